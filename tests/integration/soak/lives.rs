//! The lives of requests, as agents and administrators lead them while everything fails around them: each step is tried until
//! it succeeds.

use super::PATIENCE;
use super::plan::{Life, Pauses};
use serde_json::{Value, json};
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::sync::watch;
use volttron_crds::{DecisionHow, Phase, VolttronCertRequest, well_known};
use volttron_tests::{Agent, Instance, Space, encode};

/// How a request ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Issued(DecisionHow),
    Denied(DecisionHow),
    /// It was deleted, or is to be removed as superseded by a good certificate.
    Gone,
}

/// What has to be true of a request in the end.
#[derive(Clone, Debug)]
pub struct Expected {
    /// Where it is among the spaces.
    pub space: usize,
    pub name: String,
    pub common_name: String,
    pub end: End,
    /// How many certificates it has ever had.
    pub certificates: RangeInclusive<usize>,
    /// Whether those that it does not have any more are revoked.
    pub revoked: bool,
    /// The key, where it was the only one.
    pub agent: Option<Agent>,
}

/// One who lives.
pub struct Requester<'a> {
    pub space: &'a Space<'a>,
    pub number: usize,
    pub instance: &'a Instance<'a>,
    pub name: String,
    pub filed: watch::Sender<usize>,
    pub approval: watch::Receiver<bool>,
}

impl Requester<'_> {
    /// Leads a life.
    pub async fn live(mut self, life: Life, [first, second]: Pauses) -> Vec<Expected> {
        let by_hand = End::Issued(DecisionHow::Manual);
        let agent = self.file("").await;
        self.pending("").await;
        self.filed.send_modify(|count| *count += 1);
        let _ = self.approval.wait_for(|given| *given).await;
        if !matches!(life, Life::Refused | Life::Forgotten) {
            self.approve("").await;
        }
        let mut own = self.expected("", by_hand, 1..=1);
        own.agent = Some(agent);
        let mut others = Vec::new();
        match life {
            Life::Plain => {}
            Life::Renewed => {
                tokio::time::sleep(first).await;
                self.issued("").await;
                self.file("-b").await;
                others.push(self.expected("-b", End::Issued(DecisionHow::Renewal), 1..=1));
            }
            Life::RenewedTwice | Life::RenewedAndDenied => {
                self.issued("").await;
                self.file("-b").await;
                self.issued("-b").await;
                // Which is the later one is told by the second in which they were created.
                tokio::time::sleep(first + Duration::from_secs(2)).await;
                self.file("-c").await;
                self.issued("-c").await;
                let mut superseded = self.expected("-b", End::Gone, 1..=1);
                let mut last = self.expected("-c", End::Issued(DecisionHow::Renewal), 1..=1);
                superseded.revoked = false;
                if life == Life::RenewedAndDenied {
                    self.gone("-b").await;
                    self.deny().await;
                    superseded.revoked = true;
                    last.end = End::Denied(DecisionHow::Policy);
                    own.end = End::Denied(DecisionHow::Manual);
                }
                others.extend([superseded, last]);
            }
            Life::Refused => {
                tokio::time::sleep(first).await;
                self.deny().await;
                own.end = End::Denied(DecisionHow::Manual);
                own.certificates = 0..=0;
            }
            Life::Denied => {
                tokio::time::sleep(first).await;
                self.deny().await;
                own.end = End::Denied(DecisionHow::Manual);
                own.certificates = 0..=1;
            }
            Life::DeniedAndBack => {
                self.issued("").await;
                tokio::time::sleep(first).await;
                self.deny().await;
                self.reaches("", Phase::Denied).await;
                tokio::time::sleep(second).await;
                self.approve("").await;
                own.certificates = 2..=2;
            }
            Life::Wavering => {
                tokio::time::sleep(first).await;
                self.deny().await;
                tokio::time::sleep(second / 8).await;
                self.approve("").await;
                own.certificates = 1..=2;
            }
            Life::Deleted | Life::Forgotten => {
                tokio::time::sleep(first).await;
                self.delete().await;
                own.end = End::Gone;
                own.certificates = if life == Life::Deleted { 0..=1 } else { 0..=0 };
            }
            Life::Replaced => {
                self.issued("").await;
                tokio::time::sleep(first).await;
                self.delete().await;
                self.gone("").await;
                self.file("").await;
                self.approve("").await;
                own.certificates = 2..=2;
                own.agent = None;
            }
        }
        others.push(own);
        others
    }

    fn expected(&self, suffix: &str, end: End, certificates: RangeInclusive<usize>) -> Expected {
        Expected {
            space: self.number,
            name: self.called(suffix),
            common_name: self.common_name(),
            end,
            certificates,
            revoked: true,
            agent: None,
        }
    }

    fn called(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.name)
    }

    fn common_name(&self) -> String {
        format!("central.{}.{}", self.space.namespace, self.name)
    }

    async fn file(&self, suffix: &str) -> Agent {
        let agent = Agent::new(&self.common_name());
        let name = self.called(suffix);
        let request = encode(&agent.csr);
        self.insist("is filed", async || {
            let filed = self
                .space
                .try_file(&name, self.instance, &request, None)
                .await;
            match filed {
                // The answer to the first attempt was lost.
                Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
                other => other.map(drop),
            }
        })
        .await;
        agent
    }

    async fn approve(&self, suffix: &str) {
        let decision = json!({well_known::DECISION: "approved"});
        self.decide(suffix, decision).await;
    }

    async fn deny(&self) {
        let decision = json!({well_known::DECISION: "denied", well_known::REASON: "enough"});
        self.decide("", decision).await;
    }

    async fn decide(&self, suffix: &str, decision: Value) {
        let name = self.called(suffix);
        self.insist("is decided on", async || {
            self.space.try_decide(&name, decision.clone()).await
        })
        .await;
    }

    async fn delete(&self) {
        let api = self.space.api();
        self.insist("is deleted", async || {
            match api
                .delete(&self.name, &kube::api::DeleteParams::default())
                .await
            {
                Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
                other => other.map(drop),
            }
        })
        .await;
    }

    async fn gone(&self, suffix: &str) {
        let (api, name) = (self.space.api(), self.called(suffix));
        let what = format!("request {}/{name} is gone", self.space.namespace);
        let gone = self.space.playground.eventually(&what, PATIENCE, async || {
            match api.get_opt(&name).await {
                Ok(None) => Ok(()),
                other => Err(format!("{other:#?}")),
            }
        });
        gone.await;
    }

    async fn pending(&self, suffix: &str) {
        self.reaches(suffix, Phase::Pending).await;
    }

    async fn issued(&self, suffix: &str) {
        self.reaches(suffix, Phase::Issued).await;
    }

    async fn reaches(&self, suffix: &str, phase: Phase) -> VolttronCertRequest {
        let name = self.called(suffix);
        self.space.phase_within(&name, phase, PATIENCE).await
    }

    async fn insist(&self, what: &str, attempt: impl AsyncFn() -> kube::Result<()>) {
        let what = format!("request {}/{} {what}", self.space.namespace, self.name);
        let insist = self.space.playground.eventually(&what, PATIENCE, async || {
            attempt().await.map_err(|error| error.to_string())
        });
        insist.await;
    }
}
