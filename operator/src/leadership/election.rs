//! Takes the Lease, keeps it, gives it up.

use super::decide::{Identity, Next, Observed};
use super::{Leadership, now};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use std::fmt;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, info, warn};

/// Name of the Lease, in the operator's namespace.
const LEASE: &str = "volttron-operator";

/// Where a replica stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seat {
    /// It has not read the Lease yet; the text says why.
    Undecided(String),
    /// Another replica leads, or will; the name is that of the Lease's holder.
    StandingBy(Option<String>),
    /// This replica leads.
    Leading,
}

/// One replica's part in the election.
pub struct Election {
    api: Api<Lease>,
    identity: Identity,
    times: Times,
    observed: Observed,
    /// The Lease as this replica has last written it.
    held: Lease,
    seat: watch::Sender<Seat>,
}

/// The proportions of client-go: 15 s, 10 s and 2 s.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// How long others wait for a holder that does not renew, in seconds.
    duration: u16,
    /// How long the holder acts after it began to write its last renewal. It has to be less than
    /// `duration` by more than what a call that is under way may take.
    renew_deadline: Duration,
    /// How often the holder renews, and others look.
    retry: Duration,
    /// The longest a call may take: two have to fail before the deadline.
    call: Duration,
}

impl Times {
    fn new(seconds: u16) -> Self {
        let duration = Duration::from_secs(seconds.into());
        Self {
            duration: seconds,
            renew_deadline: duration * 2 / 3,
            retry: duration * 2 / 15,
            call: duration / 3,
        }
    }
}

/// A call that brought nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("the API server did not answer")]
    NoAnswer,
    #[error(transparent)]
    Refused(#[from] kube::Error),
}

impl Failed {
    fn is(&self, code: u16) -> bool {
        matches!(self, Self::Refused(kube::Error::Api(status)) if status.code == code)
    }
}

impl Election {
    /// A replica in pod `pod`, with a Lease of so many `seconds` in `namespace`. The client must
    /// not try again by itself.
    pub fn new(client: Client, namespace: &str, pod: Option<&str>, seconds: u16) -> Self {
        let process = format!("{:016x}", rand::random::<u64>());
        let undecided = Seat::Undecided("the Lease was not read yet".to_owned());
        Self {
            api: Api::namespaced(client, namespace),
            identity: Identity::new(pod, &process),
            times: Times::new(seconds),
            observed: Observed::default(),
            held: Lease::default(),
            seat: watch::Sender::new(undecided),
        }
    }

    /// Where this replica stands, from now on.
    pub fn seat(&self) -> watch::Receiver<Seat> {
        self.seat.subscribe()
    }

    /// Stands by until the Lease can be taken, and takes it.
    pub(super) async fn win(&mut self) -> Leadership {
        let mut failing = false;
        loop {
            let pause = match self.try_to_win().await {
                Ok(Attempt::Won(leadership)) => {
                    self.seat.send_replace(Seat::Leading);
                    return leadership;
                }
                Ok(Attempt::HeldBy(holder, left)) => {
                    failing = false;
                    let seat = Seat::StandingBy(Some(holder.clone()));
                    if self.seat.send_replace(seat.clone()) != seat {
                        info!(leader = %holder, "standing by");
                    }
                    // Replicas that wait for the same moment do not all come at once.
                    left.min(self.times.retry)
                        .mul_f64(rand::random_range(1.0..1.2))
                }
                // Another replica was faster, and is seen at the next look.
                Err(error) if error.is(409) => self.times.retry / 10,
                Err(error) => {
                    self.seat.send_if_modified(|seat| {
                        let undecided = matches!(seat, Seat::Undecided(_));
                        if undecided {
                            *seat = Seat::Undecided(error.to_string());
                        }
                        undecided
                    });
                    if !std::mem::replace(&mut failing, true) {
                        warn!(lease = LEASE, %error, "the Lease cannot be read or taken; this is tried again");
                    }
                    self.times.retry.mul_f64(rand::random_range(1.0..1.2))
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn try_to_win(&mut self) -> Result<Attempt, Failed> {
        let found = self.call(self.api.get_opt(LEASE)).await?;
        // A Lease that somebody deleted may have a holder still: what was seen of it stays valid.
        if let Some(spec) = found.as_ref().and_then(|lease| lease.spec.clone()) {
            self.observed.note(spec, now());
        }
        if let Next::StandBy(holder, left) = self.observed.next(&self.identity, now()) {
            return Ok(Attempt::HeldBy(holder, left));
        }
        let begun = now();
        let mut lease = found.unwrap_or_else(new_lease);
        let previous = lease.spec.take().unwrap_or_default();
        let holder = previous.holder_identity.unwrap_or_default();
        let transitions = previous.lease_transitions.unwrap_or_default();
        let changes = lease.metadata.uid.is_some() && holder != self.identity.as_str();
        let time = MicroTime(Timestamp::now());
        lease.spec = Some(LeaseSpec {
            acquire_time: Some(time.clone()),
            holder_identity: Some(self.identity.as_str().to_owned()),
            lease_duration_seconds: Some(self.times.duration.into()),
            lease_transitions: Some(transitions.saturating_add(changes.into())),
            renew_time: Some(time),
            ..LeaseSpec::default()
        });
        // Only one writer can win: the API server refuses a version that is not the latest, and a
        // second object of that name.
        self.held = if lease.metadata.resource_version.is_some() {
            let parameters = PostParams::default();
            self.call(self.api.replace(LEASE, &parameters, &lease))
                .await?
        } else {
            self.call(self.api.create(&PostParams::default(), &lease))
                .await?
        };
        info!(identity = %self.identity.as_str(), before = %holder, "this replica leads");
        Ok(Attempt::Won(Leadership::until(
            begun + self.times.renew_deadline,
        )))
    }

    /// Renews the Lease until that fails; returns why it did.
    pub(super) async fn keep(&mut self, leadership: &Leadership) -> Lost {
        let lost = self.renew_on_and_on(leadership).await;
        leadership.end();
        self.seat.send_replace(Seat::StandingBy(None));
        lost
    }

    async fn renew_on_and_on(&mut self, leadership: &Leadership) -> Lost {
        let mut last = None;
        loop {
            tokio::time::sleep(self.times.retry.min(leadership.left())).await;
            let begun = now();
            let renewed = match timeout(leadership.left(), self.renew()).await {
                Ok(renewed) => renewed,
                Err(_) => Err(Renewal::Failed(Failed::NoAnswer)),
            };
            match renewed {
                // A process that was stopped finds its term over here.
                _ if !leadership.leads() => return Lost::TooLate(last),
                Ok(()) => {
                    last = None;
                    if !leadership.renew(begun + self.times.renew_deadline) {
                        return Lost::TooLate(None);
                    }
                }
                Err(Renewal::Taken(holder)) => return Lost::Taken(holder),
                Err(Renewal::Failed(error)) => {
                    debug!(%error, "the Lease could not be renewed");
                    last = Some(error);
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<(), Renewal> {
        let mut lease = self.held.clone();
        lease.spec.get_or_insert_default().renew_time = Some(MicroTime(Timestamp::now()));
        let parameters = PostParams::default();
        let renewed = self
            .call(self.api.replace(LEASE, &parameters, &lease))
            .await;
        self.held = match renewed {
            // Written by somebody else, or by this replica without hearing the answer.
            Err(error) if error.is(409) => {
                let found = self.call(self.api.get(LEASE)).await?;
                let spec = found.spec.clone().unwrap_or_default();
                if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
                    return Err(Renewal::Taken(spec.holder_identity));
                }
                lease.metadata = found.metadata;
                self.call(self.api.replace(LEASE, &parameters, &lease))
                    .await?
            }
            // Deleted. Whoever makes it anew first has it.
            Err(error) if error.is(404) => {
                lease.metadata = new_lease().metadata;
                match self.call(self.api.create(&parameters, &lease)).await {
                    Err(error) if error.is(409) => return Err(Renewal::Taken(None)),
                    created => created?,
                }
            }
            other => other?,
        };
        Ok(())
    }

    /// Gives the Lease up where this replica has it, so that others need not wait.
    pub(super) async fn resign(&self) {
        let mut given_up = self.call(self.give_up()).await;
        // The last renewal was under way.
        if given_up.as_ref().is_err_and(|error| error.is(409)) {
            given_up = self.call(self.give_up()).await;
        }
        match given_up {
            Ok(true) => info!("the Lease is given up"),
            Ok(false) => {}
            Err(error) => warn!(%error, "the Lease could not be given up; it runs out by itself"),
        }
    }

    async fn give_up(&self) -> kube::Result<bool> {
        let mut lease = self.api.get(LEASE).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(self.identity.as_str()) {
            return Ok(false);
        }
        spec.holder_identity = Some(String::new());
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        // As client-go does.
        spec.lease_duration_seconds = Some(1);
        let parameters = PostParams::default();
        self.api.replace(LEASE, &parameters, &lease).await?;
        Ok(true)
    }

    async fn call<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, Failed> {
        match timeout(self.times.call, call).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(Failed::NoAnswer),
        }
    }
}

enum Attempt {
    Won(Leadership),
    HeldBy(String, Duration),
}

enum Renewal {
    Taken(Option<String>),
    Failed(Failed),
}

impl From<Failed> for Renewal {
    fn from(failed: Failed) -> Self {
        Self::Failed(failed)
    }
}

/// Why a term ended.
pub(super) enum Lost {
    /// Another replica has the Lease, or nobody.
    Taken(Option<String>),
    /// It was not renewed in time; with the error of the last attempt.
    TooLate(Option<Failed>),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(holder) => {
                let holder = holder.as_deref().filter(|holder| !holder.is_empty());
                write!(
                    f,
                    "the Lease was taken by {}",
                    holder.unwrap_or("somebody else")
                )
            }
            Self::TooLate(Some(error)) => write!(f, "the Lease could not be renewed: {error}"),
            Self::TooLate(None) => f.write_str("the Lease was not renewed in time"),
        }
    }
}

fn new_lease() -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(LEASE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: None,
    }
}
