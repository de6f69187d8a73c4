//! What the broker of an instance should be, and the management client that makes it so.

mod account;
mod admission;
mod claims;
mod definitions;
mod error;
mod keeper;
mod management;
mod permissions;
mod probe;
// Not inside, since the integration tests take the probe by itself to real brokers.
#[cfg(test)]
mod probe_tests;
mod pulse;
mod removals;
mod users;

pub use definitions::{EXCHANGE, Topology, boot_definitions, exchange_faults, password_hash};
pub use error::ManagementError;
pub use management::ManagementClient;
pub use permissions::{Permissions, TopicPermissions};
pub use probe::{ClientPair, Probe, RefusedBy, probe};
pub use pulse::watch_pulse;
pub use users::{Awaited, Ensured, Repaired, UserKeeper, UserKeeperHandle};

/// The operator's own RabbitMQ user. No certificate is ever signed for this name.
pub const MANAGEMENT_USER: &str = "volttron-operator";

/// Tag on the broker users the operator makes for agents. It grants nothing in RabbitMQ; it tells
/// them apart from users that others made, which are never touched.
pub const AGENT_TAG: &str = "volttron-agent";
