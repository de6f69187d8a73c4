//! Which certificates are out of use before their time. No Kubernetes client, no clock and no I/O.

mod ledger;

#[cfg(test)]
pub(crate) use ledger::MOST;
pub use ledger::{Certificate, Full, Ledger, MOST_OF_IDENTITY, Why};
