//! Since when requests are approved, by a clock that nobody sets: for telling how long it takes to
//! issue them, with the queue, what they wait for, and attempts that failed.

use crate::approval::verdict;
use kube::ResourceExt;
use kube::runtime::watcher::Event;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use volttron_crds::{Phase, VolttronCertRequest};

/// When this replica first saw each request approved that is not issued yet. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Approvals(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// By UID.
    known: HashMap<String, Seen>,
    /// How often all requests were listed anew.
    round: u32,
}

struct Seen {
    since: Instant,
    /// The round in which it was last seen to exist.
    round: u32,
}

/// What an event says of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Says {
    /// There is work to be done on it.
    Begun,
    /// There is none, or none any more.
    Over,
    /// That is for the reconcile to find out.
    Nothing,
}

impl Approvals {
    /// Follows the cache of requests.
    pub(super) fn observe(&self, event: &Event<VolttronCertRequest>) {
        let mut inner = self.lock();
        match event {
            Event::Init => inner.round = inner.round.wrapping_add(1),
            Event::InitApply(request) | Event::Apply(request) => {
                let uid = request.uid().unwrap_or_default();
                let round = inner.round;
                if let Some(seen) = inner.known.get_mut(&uid) {
                    seen.round = round;
                }
                match says(request) {
                    Says::Begun => drop(inner.since(uid)),
                    Says::Over => inner.forget(&uid),
                    Says::Nothing => {}
                }
            }
            Event::Delete(request) => inner.forget(&request.uid().unwrap_or_default()),
            Event::InitDone => {
                // The others went while the watch was interrupted.
                let round = inner.round;
                inner.known.retain(|_, seen| seen.round == round);
            }
        }
    }

    /// Since when `request` is approved: from now on, where that was not known before.
    pub(super) fn since(&self, request: &VolttronCertRequest) -> Instant {
        self.lock().since(request.uid().unwrap_or_default())
    }

    /// Forgets `request`, which is issued, or is not approved.
    pub(super) fn forget(&self, request: &VolttronCertRequest) {
        self.lock().forget(&request.uid().unwrap_or_default());
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn since(&mut self, uid: String) -> Instant {
        let round = self.round;
        let fresh = || Seen {
            since: Instant::now(),
            round,
        };
        self.known.entry(uid).or_insert_with(fresh).since
    }

    fn forget(&mut self, uid: &str) {
        self.known.remove(uid);
        if self.known.is_empty() {
            // What thousands at once have taken is given back.
            self.known = HashMap::new();
        }
    }
}

/// A request that is new may be a renewal, which is approved by being filed; it waits for somebody
/// once it is Pending. A decision that changes what was denied, failed or expired may have no effect.
fn says(request: &VolttronCertRequest) -> Says {
    if request.metadata.deletion_timestamp.is_some() {
        return Says::Over;
    }
    let approved = verdict(request).map(|verdict| verdict.approved);
    match (request.phase(), approved) {
        (Some(Phase::Issued), _) | (_, Some(false)) | (Some(Phase::Pending), None) => Says::Over,
        (None | Some(Phase::Pending | Phase::Approved), _) => Says::Begun,
        (Some(Phase::Denied | Phase::Failed | Phase::Expired), _) => Says::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use volttron_crds::{VolttronCertRequestSpec, VolttronCertRequestStatus, well_known};

    fn request(uid: &str, phase: Option<Phase>, decision: Option<&str>) -> VolttronCertRequest {
        let mut request = VolttronCertRequest::new(uid, VolttronCertRequestSpec::default());
        request.metadata.uid = Some(uid.to_owned());
        request.status = phase.map(|phase| VolttronCertRequestStatus {
            phase: Some(phase),
            ..VolttronCertRequestStatus::default()
        });
        if let Some(word) = decision {
            let annotations = request.annotations_mut();
            annotations.insert(well_known::DECISION.to_owned(), word.to_owned());
        }
        request
    }

    impl Approvals {
        fn sees(&self, phase: Option<Phase>, decision: Option<&str>) {
            self.observe(&Event::Apply(request("a", phase, decision)));
        }

        fn known(&self) -> usize {
            self.lock().known.len()
        }
    }

    #[test]
    fn the_time_runs_from_the_first_sight_of_the_approval_to_the_certificate() {
        let approvals = Approvals::default();
        approvals.sees(Some(Phase::Pending), None);
        assert_eq!(approvals.known(), 0, "it waits for a decision");
        let earlier = Instant::now();
        approvals.sees(Some(Phase::Pending), Some("approved"));
        let since = approvals.since(&request("a", None, None));
        assert!(since >= earlier);
        approvals.sees(Some(Phase::Approved), Some("approved"));
        assert_eq!(approvals.since(&request("a", None, None)), since);
        approvals.sees(Some(Phase::Issued), Some("approved"));
        assert_eq!(approvals.known(), 0);
        // An event that comes late is followed by the one that it was late for.
        approvals.sees(Some(Phase::Approved), Some("approved"));
        approvals.sees(Some(Phase::Issued), Some("approved"));
        assert_eq!(approvals.known(), 0);
    }

    #[test]
    fn a_renewal_is_approved_by_being_filed() {
        let approvals = Approvals::default();
        approvals.sees(None, None);
        assert_eq!(approvals.known(), 1);
        approvals.sees(Some(Phase::Approved), None);
        assert_eq!(approvals.known(), 1);
    }

    #[test]
    fn what_comes_to_nothing_is_forgotten() {
        let approvals = Approvals::default();
        let begin = || approvals.sees(None, Some("approved"));
        begin();
        approvals.sees(Some(Phase::Pending), None);
        assert_eq!(approvals.known(), 0, "the decision was taken back");
        begin();
        approvals.sees(Some(Phase::Approved), Some("denied"));
        assert_eq!(approvals.known(), 0, "it was denied");
        begin();
        approvals.observe(&Event::Delete(request("a", None, None)));
        assert_eq!(approvals.known(), 0, "it was deleted");
        begin();
        approvals.forget(&request("a", None, None));
        assert_eq!(
            approvals.known(),
            0,
            "the reconcile found that it is not approved"
        );
    }

    #[test]
    fn what_is_gone_after_an_interrupted_watch_is_forgotten() {
        let approvals = Approvals::default();
        approvals.sees(None, Some("approved"));
        let other = request("b", None, Some("approved"));
        let since = approvals.since(&other);
        for event in [
            Event::Init,
            Event::InitApply(other.clone()),
            Event::InitDone,
        ] {
            approvals.observe(&event);
        }
        assert_eq!(approvals.known(), 1);
        assert_eq!(approvals.since(&other), since);
    }
}
