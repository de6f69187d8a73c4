//! What the broker of an instance should be, and the management client that makes it so.

mod definitions;
mod management;
mod permissions;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "for the revocation keeper and for CA rotation")
)]
mod probe;
// Not inside, since the integration tests take the probe by itself to real brokers.
#[cfg(test)]
mod probe_tests;
mod users;

pub use definitions::{Topology, boot_definitions, exchange_faults, password_hash};
pub use management::{ManagementClient, ManagementError};
pub use permissions::Permissions;
#[expect(
    unused_imports,
    reason = "for the revocation keeper and for CA rotation"
)]
pub use probe::{ClientPair, Probe, RefusedBy, probe};
pub use users::{Repaired, UserKeeper, UserKeeperHandle};

/// The operator's own RabbitMQ user. No certificate is ever signed for this name.
pub const MANAGEMENT_USER: &str = "volttron-operator";

/// Tag on the broker users the operator makes for agents. It grants nothing in RabbitMQ; it tells
/// them apart from users that others made, which are never touched.
pub const AGENT_TAG: &str = "volttron-agent";
