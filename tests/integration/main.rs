//! The operator against a real API server and real brokers.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod bad_input;
mod certificates;
mod killed;
mod lifecycle;
mod shared;
