//! The operator against a real API server and real brokers.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod audit;
mod authority;
mod bad_input;
mod broker;
mod certificates;
mod decisions;
mod denied_anyway;
mod events;
mod gate;
mod gate_down;
mod hostile;
mod identity;
mod killed;
mod leadership;
mod lifecycle;
mod limits;
mod linted;
mod manifests;
mod metrics;
mod observed;
mod outages;
mod own_ca;
mod ownership;
mod revocation;
mod rights;
mod rotation;
mod shared;
mod slow_brokers;
mod soak;
mod stamping;
mod topics;
mod users;
