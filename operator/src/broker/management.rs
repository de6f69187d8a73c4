//! A client of RabbitMQ's management HTTP API
//! (<https://www.rabbitmq.com/docs/http-api-reference>), for the few calls the operator needs.

use super::{AGENT_TAG, Permissions};
use crate::leadership::Leadership;
use reqwest::{Method, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

/// A broker that does not answer within this is taken for unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest a call may take; an import of some thousand users needs seconds.
const CALL_TIMEOUT: Duration = Duration::from_mins(1);

/// Talks to the management API of one broker, as [`super::MANAGEMENT_USER`], trusting the
/// instance's CA alone.
#[derive(Clone)]
pub struct ManagementClient {
    http: reqwest::Client,
    base: String,
    password: String,
    leadership: Leadership,
}

/// The Debug of a client never shows its password.
impl fmt::Debug for ManagementClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagementClient")
            .field("base", &self.base)
            .finish_non_exhaustive()
    }
}

/// Why a call failed. The text is shown in conditions.
#[derive(Debug, thiserror::Error)]
pub enum ManagementError {
    /// The trust bundle is not usable.
    #[error("the CA bundle for {0} is not usable")]
    Trust(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer: not running, not reachable, or its certificate is not of this instance's CA.
    #[error("{address} is not reachable: {detail}")]
    Unreachable {
        /// What was called.
        address: String,
        /// The innermost cause.
        detail: String,
    },
    /// The broker does not know the operator's password.
    #[error("{0} refuses the operator's password (401)")]
    Unauthorized(String),
    /// The broker has a user of that name that the operator did not make.
    #[error(
        "broker user {0} exists and was not made by the operator; it is left as it is: delete it, \
         or have the agent ask under another name"
    )]
    ForeignUser(String),
    /// Another replica leads by now.
    #[error("{0} was not called: this replica no longer leads")]
    NotLeading(String),
    /// The broker refused the call.
    #[error("{method} {address} was refused with {status}: {body}")]
    Refused {
        /// The HTTP method.
        method: Method,
        /// What was called.
        address: String,
        /// The HTTP status.
        status: StatusCode,
        /// The beginning of the answer.
        body: String,
    },
    /// The answer is not what the API documents.
    #[error("{address} gave an answer that cannot be read: {detail}")]
    Unreadable {
        /// What was called.
        address: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl ManagementError {
    /// Whether a user of somebody else stands in the way.
    #[must_use]
    pub fn is_foreign_user(&self) -> bool {
        matches!(self, Self::ForeignUser(_))
    }

    /// The `reason` of the condition.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Trust(..) => "InvalidTrustBundle",
            Self::Unreachable { .. } => "Unreachable",
            Self::Unauthorized(_) => "Unauthorized",
            Self::ForeignUser(_) => "BrokerUserExists",
            Self::NotLeading(_) => "NotLeading",
            Self::Refused { .. } => "Refused",
            Self::Unreadable { .. } => "UnreadableAnswer",
        }
    }
}

/// The users of a broker.
#[derive(Debug, Default)]
pub struct Users {
    /// Those the operator made for agents.
    pub agents: HashMap<String, Option<Permissions>>,
    /// All others, which are never touched.
    pub others: HashSet<String>,
}

#[derive(Deserialize)]
struct ListedUser {
    name: String,
    #[serde(default)]
    tags: Vec<String>,
}

#[derive(Deserialize)]
struct ListedPermissions {
    user: String,
    #[serde(flatten)]
    permissions: Permissions,
}

impl ManagementClient {
    /// A client of the API at `base` (`https://host:port`) that trusts `bundle` (PEM), and is of
    /// use in one term.
    ///
    /// # Errors
    /// [`ManagementError::Trust`] where the bundle holds no usable certificate.
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
            .timeout(CALL_TIMEOUT)
            .build()
            .map_err(|e| trust(e.into()))?;
        Ok(Self {
            http,
            base: base.to_owned(),
            password: password.to_owned(),
            leadership,
        })
    }

    /// Whether the virtual host is there.
    ///
    /// # Errors
    /// [`ManagementError`]
    pub async fn has_virtual_host(&self, virtual_host: &str) -> Result<bool, ManagementError> {
        match self
            .get::<Value>(&format!("/api/vhosts/{virtual_host}"))
            .await
        {
            Ok(_) => Ok(true),
            Err(ManagementError::Refused {
                status: StatusCode::NOT_FOUND,
                ..
            }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The exchanges of a virtual host.
    ///
    /// # Errors
    /// [`ManagementError`]
    pub async fn exchanges(&self, virtual_host: &str) -> Result<Vec<Value>, ManagementError> {
        self.get(&format!("/api/exchanges/{virtual_host}")).await
    }

    /// The users on the broker; those of agents with the permissions they have on `virtual_host`.
    ///
    /// # Errors
    /// [`ManagementError`]
    pub async fn users(&self, virtual_host: &str) -> Result<Users, ManagementError> {
        let listed: Vec<ListedUser> = self.get("/api/users").await?;
        let permissions: Vec<ListedPermissions> = self
            .get(&format!("/api/vhosts/{virtual_host}/permissions"))
            .await?;
        let mut permissions: HashMap<_, _> = permissions
            .into_iter()
            .map(|entry| (entry.user, entry.permissions))
            .collect();
        let mut users = Users::default();
        for user in listed {
            if user.tags.iter().any(|tag| tag == AGENT_TAG) {
                let permissions = permissions.remove(&user.name);
                users.agents.insert(user.name, permissions);
            } else {
                users.others.insert(user.name);
            }
        }
        Ok(users)
    }

    /// Creates or updates everything in `definitions`; nothing else is changed.
    ///
    /// # Errors
    /// [`ManagementError`]
    pub async fn import(&self, definitions: &Value) -> Result<(), ManagementError> {
        self.call(Method::POST, "/api/definitions", Some(definitions))
            .await
            .map(drop)
    }

    /// Deletes a user, which closes its connections. One that is gone is fine.
    ///
    /// # Errors
    /// [`ManagementError`]
    pub async fn delete_user(&self, name: &str) -> Result<(), ManagementError> {
        match self
            .call(Method::DELETE, &format!("/api/users/{name}"), None)
            .await
        {
            Err(ManagementError::Refused {
                status: StatusCode::NOT_FOUND,
                ..
            }) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ManagementError> {
        let answer = self.call(Method::GET, path, None).await?;
        answer
            .json()
            .await
            .map_err(|error| ManagementError::Unreadable {
                address: format!("{}{path}", self.base),
                detail: root_cause(&error),
            })
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<reqwest::Response, ManagementError> {
        let address = format!("{}{path}", self.base);
        if !self.leadership.leads() {
            return Err(ManagementError::NotLeading(address));
        }
        let mut request = self
            .http
            .request(method.clone(), &address)
            .basic_auth(super::MANAGEMENT_USER, Some(&self.password));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request
            .send()
            .await
            .map_err(|error| ManagementError::Unreachable {
                address: self.base.clone(),
                detail: root_cause(&error),
            })?;
        match answer.status() {
            status if status.is_success() => Ok(answer),
            StatusCode::UNAUTHORIZED => Err(ManagementError::Unauthorized(self.base.clone())),
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
                    address,
                    status,
                    body,
                })
            }
        }
    }
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
