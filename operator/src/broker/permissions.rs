//! RabbitMQ permissions of an agent.

use serde::{Deserialize, Serialize};
use volttron_crds::CommonName;

/// Patterns of resource names a user may configure, write and read
/// (<https://www.rabbitmq.com/docs/access-control#authorisation>).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permissions {
    /// Queues and exchanges that may be declared and deleted.
    pub configure: String,
    /// Exchanges that may be published to, and queues that may be bound.
    pub write: String,
    /// Queues that may be consumed, and exchanges that may be bound to.
    pub read: String,
}

impl Permissions {
    /// The permissions VOLTTRON means an agent to have: its own queue, its pubsub and ZeroMQ
    /// proxy queues, server-named ones, and the exchange `volttron`. RabbitMQ matches patterns
    /// anywhere in a name, so these are anchored, and the name is quoted.
    #[must_use]
    pub fn of_agent(name: &CommonName) -> Self {
        let user = quote(&name.to_string());
        let own = format!(r"{user}|{user}\.pubsub\..*|{user}\.zmq\..*|amq\..*");
        Self {
            configure: format!("^({own})$"),
            write: format!("^({own}|volttron)$"),
            read: format!("^({own}|volttron)$"),
        }
    }
}

/// Quotes the characters that mean something in a regular expression and may stand in a name.
fn quote(name: &str) -> String {
    name.chars()
        .fold(String::with_capacity(name.len() + 8), |mut quoted, c| {
            if !c.is_ascii_alphanumeric() && c != '_' {
                quoted.push('\\');
            }
            quoted.push(c);
            quoted
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_anchored_and_quoted() {
        let name = "central.collector2.forwarderagent-5.1_1".parse().unwrap();
        let permissions = Permissions::of_agent(&name);
        let quoted = r"central\.collector2\.forwarderagent\-5\.1_1";
        assert_eq!(
            permissions.configure,
            format!(r"^({quoted}|{quoted}\.pubsub\..*|{quoted}\.zmq\..*|amq\..*)$")
        );
        assert_eq!(permissions.write, permissions.read);
        assert!(permissions.write.ends_with("|volttron)$"));
    }
}
