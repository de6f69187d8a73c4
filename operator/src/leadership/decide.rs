//! What a Lease says, without a client and without a clock.

use k8s_openapi::api::coordination::v1::LeaseSpec;
use std::time::Duration;

/// A replica as the Lease knows it: the name of its pod, and what tells this process from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pod: Option<String>,
    full: String,
}

impl Identity {
    /// `process` is different for each process.
    pub(super) fn new(pod: Option<&str>, process: &str) -> Self {
        Self {
            pod: pod.map(str::to_owned),
            full: format!("{}_{process}", pod.unwrap_or("volttron-operator")),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.full
    }

    /// Whether `holder` was an earlier process in the container of this pod. It is dead: kubelet
    /// starts a container anew only when it has ended, and no two pods have the same name.
    fn succeeds(&self, holder: &str) -> bool {
        // A pod's name has no underscore.
        let pod = holder.split_once('_').map(|(pod, _)| pod);
        holder != self.full && self.pod.is_some() && self.pod.as_deref() == pod
    }
}

/// The Lease as it was last seen, and since when it has not changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Observed {
    spec: LeaseSpec,
    since: Duration,
}

/// What a replica that does not lead does about the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nobody holds it, or its holder has not renewed it in time.
    Take,
    /// The named replica leads, for at least so long.
    StandBy(String, Duration),
}

impl Observed {
    /// Notes what was read at `now`. Times in the Lease are of another machine's clock, so all they
    /// are good for is to tell that it was renewed.
    pub(super) fn note(&mut self, spec: LeaseSpec, now: Duration) {
        if self.spec != spec {
            *self = Self { spec, since: now };
        }
    }

    /// What to do at `now`.
    pub(super) fn next(&self, identity: &Identity, now: Duration) -> Next {
        let holder = self.spec.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == identity.as_str() || identity.succeeds(holder) {
            return Next::Take;
        }
        let seconds = self.spec.lease_duration_seconds.unwrap_or_default();
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        match (self.since + duration).checked_sub(now) {
            Some(left) if !left.is_zero() => Next::StandBy(holder.to_owned(), left),
            _ => Next::Take,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use k8s_openapi::jiff::Timestamp;

    const SECOND: Duration = Duration::from_secs(1);

    fn held(holder: &str, renewed: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Some(MicroTime(Timestamp::from_second(renewed).unwrap())),
            ..LeaseSpec::default()
        }
    }

    fn after(seconds: u64) -> Duration {
        Duration::from_hours(1) + SECOND * u32::try_from(seconds).unwrap()
    }

    fn me() -> Identity {
        Identity::new(Some("operator-b"), "1")
    }

    #[test]
    fn a_free_lease_is_taken() {
        let free = Observed::default();
        assert_eq!(free.next(&me(), after(0)), Next::Take);
        let mut released = Observed::default();
        released.note(held("", 0), after(0));
        assert_eq!(released.next(&me(), after(0)), Next::Take);
    }

    #[test]
    fn a_lease_is_held_until_it_has_not_changed_for_its_duration() {
        let mut observed = Observed::default();
        let held_for = |left: u32| Next::StandBy("operator-a_7".to_owned(), SECOND * left);
        observed.note(held("operator-a_7", 0), after(0));
        assert_eq!(observed.next(&me(), after(0)), held_for(15));
        observed.note(held("operator-a_7", 0), after(14));
        assert_eq!(observed.next(&me(), after(14)), held_for(1));
        observed.note(held("operator-a_7", 2), after(14));
        assert_eq!(observed.next(&me(), after(14)), held_for(15), "renewed");
        assert_eq!(observed.next(&me(), after(29)), Next::Take);
    }

    #[test]
    fn the_clock_of_the_holder_does_not_matter() {
        for renewed in [0, 4_000_000_000] {
            let mut observed = Observed::default();
            observed.note(held("operator-a_7", renewed), after(0));
            let next = observed.next(&me(), after(1));
            assert!(matches!(next, Next::StandBy(..)), "{renewed}: {next:?}");
            assert_eq!(observed.next(&me(), after(15)), Next::Take, "{renewed}");
        }
    }

    #[test]
    fn a_replica_knows_that_its_own_earlier_process_is_dead() {
        let next = |identity: &Identity, holder: &str| {
            let mut observed = Observed::default();
            observed.note(held(holder, 0), after(0));
            observed.next(identity, after(0))
        };
        assert_eq!(next(&me(), "operator-b_0"), Next::Take, "the one before");
        assert_eq!(next(&me(), "operator-b_1"), Next::Take, "itself");
        for other in [
            "operator-bb_0",
            "operator_b",
            "operator-b",
            "x_operator-b_0",
        ] {
            assert!(matches!(next(&me(), other), Next::StandBy(..)), "{other}");
        }
        let nameless = Identity::new(None, "2");
        let holder = Identity::new(None, "3");
        let next = next(&nameless, holder.as_str());
        assert!(matches!(next, Next::StandBy(..)), "{next:?}");
    }
}
