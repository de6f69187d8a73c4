//! A client of RabbitMQ's management HTTP API
//! (<https://www.rabbitmq.com/docs/http-api-reference>), for the few calls the operator needs.

use super::account::{self, ListedUser, Users};
use super::{ManagementError, Topology};
use crate::leadership::Leadership;
use reqwest::{Method, StatusCode, Url};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::time::Duration;

/// A broker that does not answer within this is taken for unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest that most calls may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest an import may take; some thousand users need seconds.
const IMPORT_TIMEOUT: Duration = Duration::from_mins(1);
/// The longest a sign of life may take.
const PULSE_TIMEOUT: Duration = Duration::from_secs(4);

/// Talks to the management API of one broker, as [`super::MANAGEMENT_USER`], trusting the
/// instance's CA alone.
#[derive(Clone)]
pub struct ManagementClient {
    http: reqwest::Client,
    base: Url,
    password: String,
    leadership: Leadership,
}

/// Who made a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// The operator, for an agent of the instance.
    Operator,
    /// Somebody else: it is never touched.
    Another,
}

/// The Debug of a client never shows its password.
impl fmt::Debug for ManagementClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagementClient")
            .field("base", &self.base.as_str())
            .finish_non_exhaustive()
    }
}

impl ManagementClient {
    /// A client of the API at `base` (`https://host:port`) that trusts `bundle` (PEM), and is of
    /// use in one term.
    ///
    /// # Errors
    /// [`ManagementError::Trust`] where the bundle holds no usable certificate,
    /// [`ManagementError::Unreachable`] where `base` is no address.
    pub fn new(
        base: &str,
        password: &str,
        bundle: &str,
        leadership: Leadership,
    ) -> Result<Self, ManagementError> {
        let trust = |error: Box<dyn std::error::Error + Send + Sync>| {
            ManagementError::Trust(base.to_owned(), error)
        };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            let certificate = certificate.map_err(|e| trust(e.into()))?;
            roots.add(certificate).map_err(|e| trust(e.into()))?;
        }
        let tls = ClientConfig::builder()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .https_only(true)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .build()
            .map_err(|e| trust(e.into()))?;
        let base = Url::parse(base).map_err(|error| ManagementError::Unreachable {
            address: base.to_owned(),
            detail: error.to_string(),
        })?;
        Ok(Self {
            http,
            base,
            password: password.to_owned(),
            leadership,
        })
    }

    /// What the client calls, for messages.
    #[must_use]
    pub fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// Whether the virtual host is there.
    ///
    /// # Errors
    /// [`ManagementError`]
    pub async fn has_virtual_host(&self, virtual_host: &str) -> Result<bool, ManagementError> {
        let found: Option<Value> = found(self.get(&["vhosts", virtual_host]).await)?;
        Ok(found.is_some())
    }

    /// The exchanges of a virtual host.
    ///
    /// # Errors
    /// [`ManagementError`]
    pub async fn exchanges(&self, virtual_host: &str) -> Result<Vec<Value>, ManagementError> {
        self.get(&["exchanges", virtual_host]).await
    }

    /// The users on the broker, with all their permissions.
    ///
    /// # Errors
    /// [`ManagementError`]
    pub async fn users(&self, topology: &Topology) -> Result<Users, ManagementError> {
        let listed = self.get(&["users"]).await?;
        let permissions = self.get(&["permissions"]).await?;
        let topics = self.get(&["topic-permissions"]).await?;
        Ok(account::users(listed, permissions, topics, topology))
    }

    /// The names of the users that others made.
    ///
    /// # Errors
    /// [`ManagementError`]
    pub async fn others(&self, topology: &Topology) -> Result<HashSet<String>, ManagementError> {
        let users: Vec<ListedUser> = self.get(&["users"]).await?;
        Ok(users
            .into_iter()
            .filter(|user| user.agent(topology).is_none())
            .map(ListedUser::into_name)
            .collect())
    }

    /// Who made the user of this name, where there is one.
    ///
    /// # Errors
    /// [`ManagementError`]
    pub async fn maker_of(
        &self,
        name: &str,
        topology: &Topology,
    ) -> Result<Option<Maker>, ManagementError> {
        let user: Option<ListedUser> = found(self.get(&["users", name]).await)?;
        Ok(user.map(|user| match user.agent(topology) {
            Some(_) => Maker::Operator,
            None => Maker::Another,
        }))
    }

    /// Creates or replaces what is at `path` under `/api/`.
    ///
    /// # Errors
    /// [`ManagementError`]
    pub async fn put(&self, path: &[&str], body: &Value) -> Result<(), ManagementError> {
        self.call(Method::PUT, path, Some(body), CALL_TIMEOUT)
            .await
            .map(drop)
    }

    /// Creates or updates everything in `definitions`; nothing else is changed.
    ///
    /// # Errors
    /// [`ManagementError`]
    pub async fn import(&self, definitions: &Value) -> Result<(), ManagementError> {
        self.call(
            Method::POST,
            &["definitions"],
            Some(definitions),
            IMPORT_TIMEOUT,
        )
        .await
        .map(drop)
    }

    /// Deletes the user of an agent, which closes its connections. One that is gone is fine, and one
    /// that somebody else made stays. Returns whether it was not somebody else's.
    ///
    /// RabbitMQ deletes unconditionally, so that it is asked right before.
    ///
    /// # Errors
    /// [`ManagementError`]
    pub async fn delete_agent(
        &self,
        name: &str,
        topology: &Topology,
    ) -> Result<bool, ManagementError> {
        let found_as = self.maker_of(name, topology).await?;
        if found_as == Some(Maker::Operator) {
            found(self.delete(&["users", name]).await)?;
        }
        Ok(found_as != Some(Maker::Another))
    }

    /// Closes the connections of an agent, which may connect again
    /// (<https://www.rabbitmq.com/docs/http-api-reference#delete-apiconnectionsusernameusername>).
    /// Those of a user that somebody else made stay.
    ///
    /// # Errors
    /// [`ManagementError`]
    pub async fn disconnect_agent(
        &self,
        name: &str,
        topology: &Topology,
    ) -> Result<(), ManagementError> {
        if self.maker_of(name, topology).await? == Some(Maker::Operator) {
            self.delete(&["connections", "username", name]).await?;
        }
        Ok(())
    }

    /// How long each node of the broker has been up, in milliseconds.
    ///
    /// # Errors
    /// [`ManagementError`]
    pub async fn uptimes(&self) -> Result<BTreeMap<String, u64>, ManagementError> {
        #[derive(Deserialize)]
        struct Node {
            name: String,
            /// Absent on a node that is down.
            #[serde(default)]
            uptime: u64,
        }
        let nodes: Vec<Node> = self.get_within(&["nodes"], PULSE_TIMEOUT).await?;
        Ok(nodes
            .into_iter()
            .map(|node| (node.name, node.uptime))
            .collect())
    }

    async fn delete(&self, path: &[&str]) -> Result<(), ManagementError> {
        self.call(Method::DELETE, path, None, CALL_TIMEOUT)
            .await
            .map(drop)
    }

    async fn get<T: DeserializeOwned>(&self, path: &[&str]) -> Result<T, ManagementError> {
        self.get_within(path, CALL_TIMEOUT).await
    }

    async fn get_within<T: DeserializeOwned>(
        &self,
        path: &[&str],
        limit: Duration,
    ) -> Result<T, ManagementError> {
        let answer = self.call(Method::GET, path, None, limit).await?;
        let address = answer.url().to_string();
        answer
            .json()
            .await
            .map_err(|error| ManagementError::Unreadable {
                address,
                detail: root_cause(&error),
            })
    }

    /// Calls `/api/` with `path`, whose segments may hold any character.
    async fn call(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
        limit: Duration,
    ) -> Result<reqwest::Response, ManagementError> {
        let url = url(&self.base, path);
        let mut request = self
            .http
            .request(method.clone(), url.clone())
            .timeout(limit)
            .basic_auth(super::MANAGEMENT_USER, Some(&self.password));
        if let Some(body) = body {
            request = request.json(body);
        }
        // Before it is sent there is a connection to make, and a leader may be stopped meanwhile.
        let answer = self
            .leadership
            .while_it_lasts(async { request.send().await });
        let answer = answer
            .await
            .ok_or_else(|| ManagementError::NotLeading(url.to_string()))?
            .map_err(|error| ManagementError::Unreachable {
                address: self.address().to_owned(),
                detail: root_cause(&error),
            })?;
        match answer.status() {
            status if status.is_success() => Ok(answer),
            StatusCode::UNAUTHORIZED => {
                Err(ManagementError::Unauthorized(self.address().to_owned()))
            }
            status => {
                let body = answer
                    .text()
                    .await
                    .unwrap_or_default()
                    .chars()
                    .take(300)
                    .collect();
                Err(ManagementError::Refused {
                    method,
                    address: url.to_string(),
                    status,
                    body,
                })
            }
        }
    }
}

/// `None` where the broker says 404.
fn found<T>(answer: Result<T, ManagementError>) -> Result<Option<T>, ManagementError> {
    match answer {
        Err(ManagementError::Refused {
            status: StatusCode::NOT_FOUND,
            ..
        }) => Ok(None),
        other => other.map(Some),
    }
}

fn url(base: &Url, path: &[&str]) -> Url {
    let mut url = base.clone();
    // Only an address that is no base, such as `mailto:`, has no segments.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().push("api").extend(path);
    }
    url
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_in_paths() {
        let base = Url::parse("https://broker:15671").unwrap();
        for (segment, path) in [
            ("central.a.b-c_d", "/api/users/central.a.b-c_d"),
            ("/", "/api/users/%2F"),
            ("a/../b?c#d e%2F", "/api/users/a%2F..%2Fb%3Fc%23d%20e%252F"),
        ] {
            assert_eq!(url(&base, &["users", segment]).path(), path);
        }
    }
}
