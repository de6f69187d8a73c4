//! One of several replicas acts, the others stand by. Who does is written in a Lease
//! (<https://kubernetes.io/docs/concepts/architecture/leases/>), by the rules of client-go's leader
//! election: others judge by their own clock how long the Lease has not changed, so that no two
//! clocks need to agree, and the leader gives up well before they may take over.
//!
//! A term is the time from taking the Lease to losing it. All that is done in a term is done with
//! its [`Leadership`], which ends for good: what is left over from a term, in a process that was
//! stopped and wakes up, can change nothing.

mod decide;
mod election;
mod fence;

pub use election::{Election, Seat};
pub use fence::fence;

use rustix::time::{ClockId, clock_gettime};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How long work in hand may take after SIGTERM. What is not finished by then is taken up by the
/// next leader.
const DRAIN: Duration = Duration::from_secs(3);

/// The right to act, for one term. Cheap to ask, cheap to clone.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// When it ends unless it is renewed, in nanoseconds of [`now`]; 0 once the term is over.
    until: Arc<AtomicU64>,
}

impl Leadership {
    /// A term that ends at `until` (see [`now`]) unless it is renewed.
    fn until(until: Duration) -> Self {
        Self {
            until: Arc::new(AtomicU64::new(nanoseconds(until))),
        }
    }

    /// Whether this replica may act now.
    #[must_use]
    pub fn leads(&self) -> bool {
        nanoseconds(now()) < self.until.load(Ordering::Acquire)
    }

    /// Carries `work` on as long as the term lasts; none where that was not long enough.
    ///
    /// It is asked at each step: between two of them the process may have been stopped, and what
    /// comes next may be a new connection, or another attempt.
    pub async fn while_it_lasts<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            if self.leads() {
                work.as_mut().poll(cx).map(Some)
            } else {
                Poll::Ready(None)
            }
        })
        .await
    }

    /// How long it may act unless the term is renewed.
    fn left(&self) -> Duration {
        Duration::from_nanos(self.until.load(Ordering::Acquire)).saturating_sub(now())
    }

    /// Extends the term; one that is over stays so. Returns whether this replica may act.
    fn renew(&self, until: Duration) -> bool {
        self.leads() && {
            self.until.store(nanoseconds(until), Ordering::Release);
            self.leads()
        }
    }

    /// Ends the term for good.
    fn end(&self) {
        self.until.store(0, Ordering::Release);
    }
}

/// The time since the machine was started. It counts while the process is stopped and while the
/// machine sleeps, and nobody can set it.
fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::try_from(time).unwrap_or_default()
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Runs `lead` for each term this replica gets, until `stop`. When the term ends early, what `lead`
/// returned is dropped where it stands. After `stop`, `lead` may finish what it has in hand, and
/// then the Lease is given up, so that another replica takes over at once.
///
/// # Errors
/// Those of `lead`.
pub async fn run(
    mut election: Election,
    stop: &CancellationToken,
    lead: impl AsyncFn(Leadership, CancellationToken) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut outcome = Ok(());
    while !stop.is_cancelled() && outcome.is_ok() {
        let leadership = tokio::select! {
            () = stop.cancelled() => break,
            leadership = election.win() => leadership,
        };
        let term = stop.child_token();
        let drained = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            biased;
            reason = election.keep(&leadership) => {
                warn!(%reason, "this replica no longer leads; it stops acting, and stands by");
            }
            result = lead(leadership.clone(), term.clone()) => outcome = result,
            () = drained => info!("work in hand is left to the next leader"),
        }
        leadership.end();
        term.cancel();
    }
    election.resign().await;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_ends_when_it_is_not_renewed_and_cannot_be_brought_back() {
        let hour = Duration::from_hours(1);
        let leadership = Leadership::until(now() + hour);
        assert!(leadership.leads() && leadership.clone().leads());
        assert!(leadership.renew(now() + 2 * hour) && leadership.left() > hour);
        assert!(!leadership.renew(now()), "renewed for no time");
        assert!(!leadership.renew(now() + hour), "over, and renewed");
        assert!(!leadership.leads());

        let leadership = Leadership::until(now() + hour);
        let elsewhere = leadership.clone();
        leadership.end();
        assert!(!elsewhere.leads() && !elsewhere.renew(now() + hour));
    }
}
