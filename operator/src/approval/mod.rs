//! Who is let in. A pure decision from what was observed and the time; applying it is the
//! controller's part.

mod annotation;
mod decide;

pub use annotation::{Verdict, verdict};
pub use decide::{Observed, Step, Waiting, decide};
