//! Who is let in. A pure decision from what was observed and the time; applying it is the
//! controller's part.

mod annotation;
mod decide;
mod identity;

pub use annotation::verdict;
pub use decide::{
    IDENTITY_CONFLICT, Observed, Step, TURNED_AWAY, WAITING_FOR_APPROVAL, Waiting, decide,
    lapses_at,
};
pub use identity::{
    APPROVAL_ENDED, Conflict, Ruling, Standing, is_denial_needed, removable_at, standing,
    with_access,
};
