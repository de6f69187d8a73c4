#![doc = include_str!("../README.md")]

mod addons;
mod cache;
mod certificates;
mod cluster;
mod control_plane;
mod error;
mod exec;
mod hosts;
pub mod images;
mod interrupt;
mod node;
pub mod packages;
mod processes;
mod programs;
mod rabbitmq;
mod runs;
mod sandbox;
mod steps;
mod teardown;

pub use cache::{Cache, Key};
pub use cluster::{Cluster, Existing, Options, Tier, names, prepare, take_down};
pub use control_plane::Component;
pub use error::{Error, Result};
pub use hosts::Hosts;
pub use interrupt::{is_interrupted, take_down_when_interrupted};
pub use programs::Tool;
pub use rabbitmq::{Base, RabbitMq, RabbitMqOptions};
pub use steps::Steps;
pub use teardown::sweep;
