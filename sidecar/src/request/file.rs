//! Files the request: one POST, which is repeated safely because the name is always the same.

use super::Wanted;
use super::key::KeyError;
use crate::connection::backoff;
use backon::ExponentialBackoff;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::PostParams;
use kube::{Api, Client};
use std::error::Error as _;
use std::fmt::Write as _;
use std::time::Duration;
use thiserror::Error;
use tokio::time::Instant;
use volttron_crds::{VolttronCertRequest, well_known};

/// HTTP status of an object that exists already.
const CONFLICT: u16 = 409;

/// The API server answers a single object sooner than this, or not at all.
const ANSWER: Duration = Duration::from_secs(30);

/// Where the last attempt was this long ago, the next one starts with short delays again.
const STOOD: Duration = Duration::from_mins(1);

/// Creates requests in the pod's namespace, at a pace the API server can bear.
pub struct Filer {
    client: Client,
    requester: Option<String>,
    delays: ExponentialBackoff,
    last: Instant,
    not_before: Instant,
    trouble: Option<String>,
}

/// Why a request could not be filed. All of these are tried again.
#[derive(Debug, Error)]
pub enum FilingError {
    /// The API server's own words, from an admission policy, a quota or its authorizer.
    #[error("the API server refuses the request: {0}")]
    Refused(String),
    /// The API server could not be asked.
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
    /// The API server did not say who we are.
    #[error("the API server does not say which user this pod is: set VOLTTRON_REQUESTER")]
    Nameless,
    /// The signing request could not be made.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl Filer {
    /// Files as `requester`, or as whoever the API server says we are.
    #[must_use]
    pub fn new(client: Client, requester: Option<String>) -> Self {
        let now = Instant::now();
        Self {
            client,
            requester,
            delays: backoff(),
            last: now,
            not_before: now,
            trouble: None,
        }
    }

    /// Files the request, unless the last attempt was a moment ago. Says whether it tried.
    pub async fn file(&mut self, wanted: &Wanted) -> bool {
        let now = Instant::now();
        if now < self.not_before {
            return false;
        }
        if now.duration_since(self.last) > STOOD {
            self.delays = backoff();
        }
        self.last = now;
        let filed = self.create(wanted).await;
        self.trouble = filed.err().map(|error| error.to_string());
        self.not_before = Instant::now() + self.delays.next().unwrap_or(STOOD);
        true
    }

    /// How long until the next attempt.
    #[must_use]
    pub fn pause(&self) -> Duration {
        self.not_before.saturating_duration_since(Instant::now())
    }

    /// Why the last attempt failed, where it did.
    #[must_use]
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Creates the request. One that is there already is for the watch to see.
    async fn create(&mut self, wanted: &Wanted) -> Result<(), FilingError> {
        let requester = self.requester().await?;
        let requests: Api<VolttronCertRequest> =
            Api::namespaced(self.client.clone(), &wanted.pod.namespace);
        let object = wanted.object(&requester)?;
        let params = PostParams {
            field_manager: Some(well_known::SIDECAR_FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        match answer(requests.create(&params, &object)).await {
            Err(Answer::Status(CONFLICT, _)) => Ok(()),
            created => Ok(created.map(|_| ())?),
        }
    }

    /// Our user name, asked once.
    async fn requester(&mut self) -> Result<String, FilingError> {
        if let Some(requester) = &self.requester {
            return Ok(requester.clone());
        }
        let reviews: Api<SelfSubjectReview> = Api::all(self.client.clone());
        let params = PostParams::default();
        let review = answer(reviews.create(&params, &SelfSubjectReview::default())).await?;
        let user = review.status.and_then(|status| status.user_info);
        let name = user
            .and_then(|user| user.username)
            .filter(|n| !n.is_empty());
        let name = name.ok_or(FilingError::Nameless)?;
        self.requester = Some(name.clone());
        Ok(name)
    }
}

/// What went wrong with one call.
enum Answer {
    Status(u16, String),
    None(String),
}

impl From<Answer> for FilingError {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Status(429 | 500.., message) | Answer::None(message) => {
                Self::Unreachable(message)
            }
            Answer::Status(_, message) => Self::Refused(message),
        }
    }
}

async fn answer<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Answer> {
    match tokio::time::timeout(ANSWER, call).await {
        Ok(Ok(object)) => Ok(object),
        Ok(Err(kube::Error::Api(status))) => Err(Answer::Status(status.code, status.message)),
        Ok(Err(error)) => Err(Answer::None(describe(&error))),
        Err(_) => Err(Answer::None(format!(
            "no answer within {} s",
            ANSWER.as_secs()
        ))),
    }
}

/// An error of the Kubernetes client in one line: the API server's message, or the causes down to
/// the one that says something.
#[must_use]
pub fn describe(error: &kube::Error) -> String {
    if let kube::Error::Api(status) = error {
        return status.message.clone();
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            let _ = write!(text, ": {words}");
        }
        cause = error.source();
    }
    text
}
