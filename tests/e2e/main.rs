//! End to end, on a whole node with the real images: what `make demo` shows, with assertions, and
//! what happens when things die.
//!
//! All tests share one cluster and take turns on it. Each has a namespace of its own, and leaves
//! operator, instance and broker as it found them.

mod agents;
mod broker;
mod path;
mod trouble;
mod uninstall;
mod words;
mod world;
