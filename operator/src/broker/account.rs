//! A user as a broker lists it, compared with what it should be.

use super::{AGENT_TAG, Permissions, TopicPermissions, Topology};
use serde::Deserialize;
use std::collections::{HashMap, HashSet};
use volttron_crds::CommonName;

/// The users of a broker.
#[derive(Debug, Default)]
pub struct Users {
    /// Those the operator made for agents of the instance.
    pub agents: HashMap<CommonName, Account>,
    /// All others, which are never touched.
    pub others: HashSet<String>,
}

/// A user with all it has on the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    tags: Vec<String>,
    password_hash: String,
    /// By virtual host.
    permissions: Vec<(String, Permissions)>,
    /// By virtual host and exchange.
    topics: Vec<(String, TopicPermissions)>,
}

impl Account {
    /// The user of an agent: it has no password, and what it may do is told by its name.
    #[must_use]
    pub fn of_agent(name: &CommonName, topology: &Topology) -> Self {
        let virtual_host = &topology.virtual_host;
        Self {
            tags: vec![AGENT_TAG.to_owned()],
            password_hash: String::new(),
            permissions: vec![(virtual_host.clone(), Permissions::of_agent(name))],
            topics: vec![(virtual_host.clone(), TopicPermissions::of_agent(name))],
        }
    }
}

/// An entry of `/api/users`.
#[derive(Debug, Deserialize)]
pub(super) struct ListedUser {
    name: String,
    #[serde(default)]
    tags: Vec<String>,
    #[serde(default)]
    password_hash: String,
}

impl ListedUser {
    pub(super) fn into_name(self) -> String {
        self.name
    }

    /// The agent this user was made for; `None` where somebody else made it. The tag alone does not
    /// make a user the operator's: its name must be one that the operator gives on this instance.
    pub(super) fn agent(&self, topology: &Topology) -> Option<CommonName> {
        let tagged = self.tags.iter().any(|tag| tag == AGENT_TAG);
        let name: CommonName = self.name.parse().ok()?;
        (tagged && *name.instance() == topology.instance).then_some(name)
    }
}

/// An entry of `/api/permissions` or `/api/topic-permissions`.
#[derive(Debug, Deserialize)]
pub(super) struct Listed<T> {
    user: String,
    vhost: String,
    #[serde(flatten)]
    entry: T,
}

/// Puts together what the broker lists.
pub(super) fn users(
    listed: Vec<ListedUser>,
    permissions: Vec<Listed<Permissions>>,
    topics: Vec<Listed<TopicPermissions>>,
    topology: &Topology,
) -> Users {
    let mut permissions = by_user(permissions);
    let mut topics = by_user(topics);
    let mut users = Users::default();
    for user in listed {
        let Some(name) = user.agent(topology) else {
            users.others.insert(user.name);
            continue;
        };
        let account = Account {
            tags: user.tags,
            password_hash: user.password_hash,
            permissions: permissions.remove(&user.name).unwrap_or_default(),
            topics: topics.remove(&user.name).unwrap_or_default(),
        };
        users.agents.insert(name, account);
    }
    users
}

fn by_user<T>(listed: Vec<Listed<T>>) -> HashMap<String, Vec<(String, T)>> {
    let mut entries = HashMap::<_, Vec<_>>::new();
    for Listed { user, vhost, entry } in listed {
        entries.entry(user).or_default().push((vhost, entry));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology() -> Topology {
        Topology {
            instance: "central".parse().unwrap(),
            virtual_host: "volttron".into(),
        }
    }

    #[test]
    fn only_tagged_users_with_names_of_the_instance_are_ours() {
        let user = |name: &str, tags: &[&str]| ListedUser {
            name: name.into(),
            tags: tags.iter().map(ToString::to_string).collect(),
            password_hash: String::new(),
        };
        for (name, tags, ours) in [
            ("central.a.b", &[AGENT_TAG] as &[_], true),
            ("central.a.b", &["administrator", AGENT_TAG], true),
            ("central.a.b", &[], false),
            ("central.router", &[AGENT_TAG], false),
            ("other.a.b", &[AGENT_TAG], false),
            ("bob", &[AGENT_TAG], false),
        ] {
            let agent = user(name, tags).agent(&topology());
            assert_eq!(agent.is_some(), ours, "{name} {tags:?}");
        }
    }

    #[test]
    fn every_difference_is_seen() {
        let name = "central.a.b".parse().unwrap();
        let wanted = Account::of_agent(&name, &topology());
        let changes: [&dyn Fn(&mut Account); 9] = [
            &|it| it.tags.push("administrator".into()),
            &|it| it.password_hash = "a hash".into(),
            &|it| it.permissions.clear(),
            &|it| it.permissions[0].1.read = ".*".into(),
            &|it| it.topics.clear(),
            &|it| it.topics[0].1.read = ".*".into(),
            &|it| {
                let other = ("/".to_owned(), it.permissions[0].1.clone());
                it.permissions.push(other);
            },
            &|it| {
                let mut other = it.topics[0].clone();
                other.1.exchange = "amq.topic".into();
                it.topics.push(other);
            },
            &|it| it.topics[0].1.exchange = "amq.topic".into(),
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let mut found = wanted.clone();
            change(&mut found);
            assert_ne!(found, wanted, "case {number}");
        }
    }
}
