//! Which certificates are out of use before their time. No Kubernetes client, no clock and no I/O.

mod ledger;

pub use ledger::{Certificate, Full, Ledger, Why};
