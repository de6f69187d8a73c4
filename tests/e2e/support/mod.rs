//! A whole node with the project's images, for the demo and the end-to-end test. Everything blocks.

mod images;
mod node;
mod trouble;
mod waiting;

pub use images::{Missing, archives};
pub use node::{Failed, Node};
pub use waiting::{TimedOut, eventually};
