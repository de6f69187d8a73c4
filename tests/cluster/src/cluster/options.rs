//! What to start, and under which name.

use std::sync::atomic::{AtomicU32, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How much of a Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// etcd, API server and controllers, on loopback.
    Api,
    /// These, and a node that runs pods.
    Node,
}

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// How much of a Kubernetes.
    pub tier: Tier,
    /// The cluster's name; one of its own for each when none is given.
    pub name: Option<String>,
}

impl Options {
    /// The API server's tier, under a name that nobody else has.
    #[must_use]
    pub fn api() -> Self {
        Self {
            tier: Tier::Api,
            name: None,
        }
    }

    /// A whole node, under a name that nobody else has.
    #[must_use]
    pub fn node() -> Self {
        Self {
            tier: Tier::Node,
            name: None,
        }
    }
}

/// The name becomes a folder and an interface's data: no path may hide in it.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let is_good = (1..=40).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-');
    if is_good {
        return Ok(());
    }
    Err(Error::Machine(format!(
        "`{name}` is no good name: use 1 to 40 lower-case letters, digits and dashes"
    )))
}

/// A name no other run has.
pub(crate) fn unique_name(kind: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{kind}-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_hold_a_path() {
        for name in ["", "..", "a/b", "-x", "A", "a b", &"a".repeat(41)] {
            assert!(check_name(name).is_err(), "{name:?} was accepted");
        }
        check_name("demo-2").unwrap();
    }
}
