//! RabbitMQ definitions: the topology a VOLTTRON instance expects, and the users.
//! Their format is RabbitMQ's (<https://www.rabbitmq.com/docs/definitions>).

use super::{AGENT_TAG, MANAGEMENT_USER, Permissions, TopicPermissions};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use volttron_crds::{CommonName, InstanceName};

/// The exchange every agent publishes to.
pub const EXCHANGE: &str = "volttron";
/// Where messages go that no queue takes.
pub const ALTERNATE_EXCHANGE: &str = "undeliverable";

/// The virtual host and exchanges of an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// The instance, which every name of its agents begins with.
    pub instance: InstanceName,
    /// Name of the virtual host.
    pub virtual_host: String,
}

impl Topology {
    /// Definitions that declare the virtual host and its exchanges, and let the operator in.
    #[must_use]
    pub fn definitions(&self) -> Value {
        json!({
            "vhosts": [{"name": self.virtual_host}],
            "permissions": [{
                "user": MANAGEMENT_USER, "vhost": self.virtual_host,
                "configure": ".*", "write": ".*", "read": ".*",
            }],
            "exchanges": exchanges()
                .map(|(name, kind, arguments)| self.exchange(name, kind, &arguments)),
        })
    }

    /// Definitions that let `agents` in, to be imported one after the other: RabbitMQ imports
    /// permissions before topic permissions, and who has the former alone may bind anything.
    #[must_use]
    pub fn agent_definitions<'a>(
        &self,
        agents: impl Iterator<Item = &'a CommonName> + Clone,
    ) -> [Value; 2] {
        let users: Vec<_> = agents.clone().map(agent_user).collect();
        let topics: Vec<_> = agents.clone().map(|name| self.agent_topics(name)).collect();
        let permissions: Vec<_> = agents.map(|name| self.agent_permissions(name)).collect();
        [
            json!({"users": users, "topic_permissions": topics}),
            json!({"permissions": permissions}),
        ]
    }

    fn exchange(&self, name: &str, kind: &str, arguments: &Value) -> Value {
        let mut exchange = expected_exchange(kind, arguments);
        exchange["name"] = name.into();
        exchange["vhost"] = self.virtual_host.as_str().into();
        exchange
    }

    fn agent_permissions(&self, name: &CommonName) -> Value {
        let Permissions {
            configure,
            write,
            read,
        } = Permissions::of_agent(name);
        json!({
            "user": name.to_string(), "vhost": self.virtual_host,
            "configure": configure, "write": write, "read": read,
        })
    }

    fn agent_topics(&self, name: &CommonName) -> Value {
        let TopicPermissions {
            exchange,
            write,
            read,
        } = TopicPermissions::of_agent(name);
        json!({
            "user": name.to_string(), "vhost": self.virtual_host,
            "exchange": exchange, "write": write, "read": read,
        })
    }
}

/// What is wrong with the exchanges that a broker lists; empty where all is as it should be.
#[must_use]
pub fn exchange_faults(listed: &[Value]) -> Vec<String> {
    let fault = |(name, kind, arguments): (&str, &str, Value)| {
        let Some(found) = listed.iter().find(|exchange| exchange["name"] == name) else {
            return Some(format!("exchange {name} is missing"));
        };
        let wanted = expected_exchange(kind, &arguments);
        let differs = ["type", "durable", "arguments"]
            .into_iter()
            .find(|key| found[*key] != wanted[*key])?;
        Some(format!(
            "exchange {name} has {differs} {} where VOLTTRON needs {}",
            found[differs], wanted[differs]
        ))
    };
    exchanges().into_iter().filter_map(fault).collect()
}

/// Name, type and arguments of the exchanges that VOLTTRON's clients expect and never declare.
fn exchanges() -> [(&'static str, &'static str, Value); 2] {
    [
        (
            EXCHANGE,
            "topic",
            json!({"alternate-exchange": ALTERNATE_EXCHANGE}),
        ),
        (ALTERNATE_EXCHANGE, "fanout", json!({})),
    ]
}

/// The definitions a managed broker imports at each start: topology, and the operator's own user
/// with `password_hash`.
#[must_use]
pub fn boot_definitions(topology: &Topology, password_hash: &str) -> Value {
    let mut definitions = topology.definitions();
    definitions["users"] = json!([{
        "name": MANAGEMENT_USER,
        "password_hash": password_hash,
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": ["administrator"],
    }]);
    definitions
}

/// RabbitMQ's salted SHA-256 of a password
/// (<https://www.rabbitmq.com/docs/passwords#computing-password-hash>).
#[must_use]
pub fn password_hash(password: &str, salt: [u8; 4]) -> String {
    let digest = Sha256::new()
        .chain_update(salt)
        .chain_update(password)
        .finalize();
    STANDARD.encode([salt.as_slice(), digest.as_slice()].concat())
}

fn expected_exchange(kind: &str, arguments: &Value) -> Value {
    json!({"type": kind, "durable": true, "auto_delete": false, "internal": false, "arguments": arguments})
}

/// A user that can log in with a certificate only: an empty hash matches no password.
fn agent_user(name: &CommonName) -> Value {
    json!({
        "name": name.to_string(),
        "password_hash": "",
        "hashing_algorithm": "rabbit_password_hashing_sha256",
        "tags": [AGENT_TAG],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_hash_is_rabbitmqs() {
        // The worked example of RabbitMQ's documentation: password "test12", salt 908DC60A.
        assert_eq!(
            password_hash("test12", [0x90, 0x8D, 0xC6, 0x0A]),
            "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"
        );
    }

    #[test]
    fn a_changed_exchange_is_a_fault() {
        let topology = Topology {
            instance: "central".parse().unwrap(),
            virtual_host: "volttron".into(),
        };
        let mut listed = topology.definitions()["exchanges"]
            .as_array()
            .unwrap()
            .clone();
        assert_eq!(exchange_faults(&listed), Vec::<String>::new());
        listed[0]["arguments"] = json!({});
        listed.remove(1);
        let faults = exchange_faults(&listed);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("alternate-exchange"), "{faults:?}");
        assert!(faults[1].contains("undeliverable is missing"), "{faults:?}");
    }
}
