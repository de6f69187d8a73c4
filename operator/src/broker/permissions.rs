//! What an agent may do on the bus. The rules are told in `docs/broker.md`.

use super::EXCHANGE;
use serde::{Deserialize, Serialize};
use volttron_crds::CommonName;

/// The first word of the routing key of every pubsub message.
const PUBSUB: &str = "__pubsub__";

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
    /// An agent has its own queue, its pubsub queues, those the broker names (`amq.gen-…`), and the
    /// exchange `volttron`; not the default exchange, which leads into every queue. RabbitMQ matches
    /// patterns anywhere in a name, so these are anchored, and the name is quoted.
    #[must_use]
    pub fn of_agent(name: &CommonName) -> Self {
        let user = quote(&name.to_string());
        let own = format!(r"{user}(\.pubsub\..+)?|amq\.gen-.+");
        Self {
            configure: format!("^({own})$"),
            write: format!("^({own}|{EXCHANGE})$"),
            read: format!("^({own}|{EXCHANGE})$"),
        }
    }
}

/// Patterns of the routing keys a user may use on one topic exchange
/// (<https://www.rabbitmq.com/docs/access-control#topic-authorisation>).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPermissions {
    /// The exchange. On one that has no entry everything is allowed.
    pub exchange: String,
    /// Routing keys of what may be published.
    pub write: String,
    /// Keys that a queue or an exchange may be bound with.
    pub read: String,
}

impl TopicPermissions {
    /// An agent binds its own address and pubsub keys, of its instance or of all platforms. It
    /// publishes to addresses, and pubsub of its instance and of its home.
    ///
    /// RabbitMQ replaces `{username}` in these patterns, unquoted, so that it is not used: its dots
    /// would match anything.
    #[must_use]
    pub fn of_agent(name: &CommonName) -> Self {
        let address = quote(&name.to_string());
        let instance = quote(name.instance().as_str());
        let home = quote(name.local_instance().as_str());
        Self {
            exchange: EXCHANGE.to_owned(),
            write: format!(r"^({PUBSUB}\.({instance}|{home})\..+|(?!{PUBSUB}\.)[^.]+\..+)$"),
            read: format!(r"^({address}|{PUBSUB}\.({instance}|\*)\..+)$"),
        }
    }
}

/// Why no user of this name can be told apart from what others have on the bus; `None` for a name
/// that can.
#[must_use]
pub fn clash(name: &CommonName) -> Option<&'static str> {
    if name.to_string().contains(".pubsub.") {
        return Some(
            "its queue would be a pubsub queue of the agent that is named before \".pubsub.\"",
        );
    }
    if name.instance().as_str() == PUBSUB {
        return Some("the addresses of its instance would be pubsub topics");
    }
    None
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
        let quoted = r"central\.collector2\.forwarderagent\-5\.1_1";
        let permissions = Permissions::of_agent(&name);
        assert_eq!(
            permissions.configure,
            format!(r"^({quoted}(\.pubsub\..+)?|amq\.gen-.+)$")
        );
        assert_eq!(permissions.write, permissions.read);
        assert!(permissions.write.ends_with("|volttron)$"));
        let topics = TopicPermissions::of_agent(&name);
        assert_eq!(
            topics.read,
            format!(r"^({quoted}|__pubsub__\.(central|\*)\..+)$")
        );
        assert_eq!(
            topics.write,
            r"^(__pubsub__\.(central|collector2)\..+|(?!__pubsub__\.)[^.]+\..+)$"
        );
    }

    #[test]
    fn the_documentation_tells_these_patterns() {
        let told = include_str!("../../../docs/broker.md").replace(r"\|", "|");
        // Placeholders that need no quoting.
        let name = "INSTANCE.HOME.AGENT".parse().unwrap();
        let patterns = [
            Permissions::of_agent(&name).configure,
            Permissions::of_agent(&name).write,
            TopicPermissions::of_agent(&name).read,
            TopicPermissions::of_agent(&name).write,
        ];
        for pattern in patterns {
            let pattern = pattern
                .replace(r"INSTANCE\.HOME\.AGENT", "U")
                .replace("INSTANCE", "<instance>")
                .replace("HOME", "<home>");
            assert!(told.contains(&format!("`{pattern}`")), "not {pattern}");
        }
    }

    #[test]
    fn a_name_among_anothers_queues_is_refused() {
        for (name, clashes) in [
            ("central.a.b", false),
            ("central.a.pubsub", false),
            ("central.pubsub.b", true),
            ("central.a.b.pubsub", false),
            ("central.a.b.pubsub.x", true),
            ("central.a.b.pubsubs.x", false),
            ("__pubsub__.a.b", true),
            ("central.__pubsub__.b", false),
        ] {
            assert_eq!(clash(&name.parse().unwrap()).is_some(), clashes, "{name}");
        }
    }
}
