//! The operator against a real API server and real brokers.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod authority;
mod bad_input;
mod broker;
mod certificates;
mod gate;
mod killed;
mod lifecycle;
mod manifests;
mod observed;
mod outages;
mod own_ca;
mod ownership;
mod rotation;
mod shared;
mod users;
