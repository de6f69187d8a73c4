//! What the sidecar is told: command line flags, each with an environment variable.

use clap::{Parser, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;
use volttron_crds::{Identity, InstanceName, InstanceReference, InvalidName, parse_duration};

/// Asks a VOLTTRON instance for a client certificate and holds the TLS connection to its broker.
#[derive(Clone, Debug, Parser)]
#[command(name = "volttron-sidecar", version, about)]
pub struct Settings {
    /// The instance to connect to: a `VolttronInstance` of this cluster, in the pod's namespace
    /// unless another one is named.
    #[arg(long, env = "VOLTTRON_REMOTE", value_name = "[NAMESPACE/]INSTANCE")]
    pub remote: Remote,

    /// The agent's VOLTTRON identity on its own instance, for example `forwarder`.
    #[arg(long, env = "VOLTTRON_IDENTITY")]
    pub identity: Identity,

    /// The VOLTTRON instance the agent is at home on. Default: the pod's namespace.
    #[arg(long, env = "VOLTTRON_LOCAL_INSTANCE", value_name = "NAME")]
    pub local_instance: Option<InstanceName>,

    /// Name of the pod (downward API: `metadata.name`).
    #[arg(long, env = "POD_NAME")]
    pub pod_name: String,

    /// Namespace of the pod (downward API: `metadata.namespace`).
    #[arg(long, env = "POD_NAMESPACE")]
    pub pod_namespace: String,

    /// UID of the pod (downward API: `metadata.uid`).
    #[arg(long, env = "POD_UID")]
    pub pod_uid: String,

    /// The user that files the request. Default: whoever the API server says this pod is.
    #[arg(long, env = "VOLTTRON_REQUESTER", value_name = "USER")]
    pub requester: Option<String>,

    /// How long the certificate should live, for example `168h`. Default: the instance decides.
    #[arg(long, env = "VOLTTRON_DURATION", value_parser = duration)]
    pub duration: Option<String>,

    /// Where `/readyz`, `/healthz` and `/metrics` are served.
    #[arg(long, env = "VOLTTRON_LISTEN", default_value = "0.0.0.0:8471")]
    pub listen: SocketAddr,

    /// A memory-backed directory for `tls.key`, `tls.crt` and `ca.crt`, shared with the agent.
    /// Default: none, the key stays in this process.
    #[arg(long, env = "VOLTTRON_CREDENTIALS_DIR", value_name = "DIR")]
    pub credentials_dir: Option<PathBuf>,

    /// How log lines are written.
    #[arg(long, env = "VOLTTRON_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

impl Settings {
    /// The instance the agent is at home on.
    ///
    /// # Errors
    /// Where none was given and the pod's namespace is no VOLTTRON instance name.
    pub fn home(&self) -> Result<InstanceName, InvalidName> {
        match &self.local_instance {
            Some(name) => Ok(name.clone()),
            None => self.pod_namespace.parse(),
        }
    }

    /// Namespace of the remote instance.
    #[must_use]
    pub fn remote_namespace(&self) -> &str {
        let named = self.remote.namespace.as_deref();
        named.unwrap_or(&self.pod_namespace)
    }

    /// The remote instance as a request refers to it: the namespace only where it is another.
    #[must_use]
    pub fn instance_reference(&self) -> InstanceReference {
        let namespace = self.remote.namespace.clone();
        InstanceReference {
            name: self.remote.name.clone(),
            namespace: namespace.filter(|namespace| *namespace != self.pod_namespace),
        }
    }
}

/// Text for people, or one JSON object a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `<instance>` or `<namespace>/<instance>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Namespace of the instance, where it was given.
    pub namespace: Option<String>,
    /// Name of the `VolttronInstance`.
    pub name: String,
}

/// A remote that is no `[<namespace>/]<instance>`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidRemote {
    /// An address instead of a name.
    #[error(
        "{0:?} is an address: only instances of the same cluster are supported, by name: \
         [<namespace>/]<VolttronInstance>"
    )]
    Address(String),
    /// Not the name of a Kubernetes object.
    #[error(
        "{0:?} must be [<namespace>/]<VolttronInstance>, each of lower-case letters, digits and '-'"
    )]
    Name(String),
}

impl FromStr for Remote {
    type Err = InvalidRemote;

    fn from_str(text: &str) -> Result<Self, InvalidRemote> {
        if text.contains("://") {
            return Err(InvalidRemote::Address(text.to_owned()));
        }
        let (namespace, name) = match text.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, text),
        };
        if !is_label(name) || !namespace.is_none_or(is_label) {
            return Err(InvalidRemote::Name(text.to_owned()));
        }
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        })
    }
}

/// A DNS-1123 label, which is what namespaces and instances are named by.
fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn duration(text: &str) -> Result<String, String> {
    parse_duration(text)
        .map(|_| text.to_owned())
        .ok_or_else(|| "must be hours, minutes and seconds, such as 168h or 1h30m".to_owned())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Settings of a pod `forwarder-0` in `building-7` that connects to `volttron/central`.
    pub fn settings(extra: &[&str]) -> Result<Settings, clap::Error> {
        let required = [
            "volttron-sidecar",
            "--remote=volttron/central",
            "--identity=forwarder",
            "--pod-name=forwarder-0",
            "--pod-namespace=building-7",
            "--pod-uid=6f9d",
        ];
        Settings::try_parse_from(required.iter().chain(extra))
    }

    #[test]
    fn the_pods_namespace_is_the_local_instance_unless_one_is_named() {
        let home = |extra: &[&str]| settings(extra).unwrap().home().unwrap().to_string();
        assert_eq!(home(&[]), "building-7");
        assert_eq!(home(&["--local-instance=collector2"]), "collector2");
    }

    #[test]
    fn an_instance_of_the_pods_own_namespace_is_referred_to_by_name_alone() {
        let reference = |remote: &str| {
            let mut settings = settings(&[]).unwrap();
            settings.remote = remote.parse().unwrap();
            (
                settings.remote_namespace().to_owned(),
                settings.instance_reference().namespace,
            )
        };
        let own = ("building-7".to_owned(), None);
        assert_eq!(reference("central"), own);
        assert_eq!(reference("building-7/central"), own);
        let other = ("volttron".to_owned(), Some("volttron".to_owned()));
        assert_eq!(reference("volttron/central"), other);
    }

    #[test]
    fn what_is_no_remote_is_refused() {
        for text in [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "A",
            "central.volttron",
            "-a",
            "a-",
        ] {
            let parsed = text.parse::<Remote>();
            assert_eq!(parsed, Err(InvalidRemote::Name(text.to_owned())));
        }
        let address = "https://central:8443".parse::<Remote>();
        assert!(matches!(address, Err(InvalidRemote::Address(_))));
    }

    #[test]
    fn a_duration_is_checked_before_anything_is_filed() {
        assert!(settings(&["--duration=168h"]).is_ok());
        assert!(settings(&["--duration=7d"]).is_err());
    }
}
