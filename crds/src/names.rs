//! VOLTTRON's names, parsed once at the edge.

use std::fmt;
use std::str::FromStr;

/// Why a text is not the name it should be; the message says what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// An instance name with characters VOLTTRON does not allow.
    #[error(
        "instance name {0:?} must be 1 to 32 letters, digits, '_' or '-' (no dot: it would make \
         common names ambiguous)"
    )]
    Instance(String),
    /// An identity with characters that are no VOLTTRON identity.
    #[error(
        "identity {0:?} must be letters, digits, '_', '-' or '.', with no empty word between dots"
    )]
    Identity(String),
    /// A common name of more than 64 characters, the bound of RFC 5280 (`ub-common-name`).
    #[error("common name is {0} characters long; RFC 5280 allows 64")]
    TooLong(usize),
    /// Not `<instance>.<local instance>.<identity>`.
    #[error("common name {0:?} must be <instance>.<local instance>.<identity>")]
    Parts(String),
}

/// The name of a VOLTTRON instance: letters, digits, `_` and `-`, at most 32 of them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceName(String);

impl InstanceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for InstanceName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let valid = (1..=32).contains(&text.len()) && text.chars().all(is_word_character);
        valid
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| InvalidName::Instance(text.to_owned()))
    }
}

impl fmt::Display for InstanceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The identity of an agent on its own instance, for example `forwarderagent-5.1_1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(String);

impl Identity {
    /// The identity as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Identity {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let valid = text
            .split('.')
            .all(|word| !word.is_empty() && word.chars().all(is_word_character));
        valid
            .then(|| Self(text.to_owned()))
            .ok_or_else(|| InvalidName::Identity(text.to_owned()))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The common name of a remote agent: `<instance>.<local instance>.<identity>`. It is the subject
/// of its certificate and its RabbitMQ user.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommonName {
    instance: InstanceName,
    local_instance: InstanceName,
    identity: Identity,
}

impl CommonName {
    /// Joins the three parts.
    ///
    /// # Errors
    /// [`InvalidName::TooLong`] where the whole is longer than 64 characters.
    pub fn new(
        instance: InstanceName,
        local_instance: InstanceName,
        identity: Identity,
    ) -> Result<Self, InvalidName> {
        let name = Self {
            instance,
            local_instance,
            identity,
        };
        match name.to_string().len() {
            0..=64 => Ok(name),
            length => Err(InvalidName::TooLong(length)),
        }
    }

    /// The instance that signs and whose broker the agent connects to.
    #[must_use]
    pub fn instance(&self) -> &InstanceName {
        &self.instance
    }

    /// The instance the agent is at home on.
    #[must_use]
    pub fn local_instance(&self) -> &InstanceName {
        &self.local_instance
    }

    /// The agent's identity on its home instance.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl FromStr for CommonName {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let mut parts = text.splitn(3, '.');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(instance), Some(local), Some(identity)) => {
                Self::new(instance.parse()?, local.parse()?, identity.parse()?)
            }
            _ => Err(InvalidName::Parts(text.to_owned())),
        }
    }
}

impl fmt::Display for CommonName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}.{}.{}",
            self.instance, self.local_instance, self.identity
        )
    }
}

fn is_word_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_common_name_splits_at_the_first_two_dots() {
        let name: CommonName = "central.collector2.forwarderagent-5.1_1".parse().unwrap();
        assert_eq!(name.instance().as_str(), "central");
        assert_eq!(name.local_instance().as_str(), "collector2");
        assert_eq!(name.identity().as_str(), "forwarderagent-5.1_1");
        assert_eq!(name.to_string(), "central.collector2.forwarderagent-5.1_1");
    }

    #[test]
    fn what_is_no_common_name_is_refused() {
        let hostile = [
            "",
            ".",
            "central",
            "central.forwarder",
            "central..forwarder",
            "central.a.",
            ".a.b",
            "central.a.b..c",
            "central.a.b/c",
            "central.a.b\0",
            "central.a.b\n",
            "central.a.*",
            "central.a.#",
            "central.a.b c",
            "central.a.b,central.c.d",
            "сentral.a.b",
        ];
        for text in hostile {
            assert!(
                text.parse::<CommonName>().is_err(),
                "{text:?} was taken for a common name"
            );
        }
        let long = format!("central.a.{}", "x".repeat(55));
        assert_eq!(long.parse::<CommonName>(), Err(InvalidName::TooLong(65)));
        assert!(long[..64].parse::<CommonName>().is_ok());
    }
}
