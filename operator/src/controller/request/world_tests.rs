//! Decisions in every order, with the controller looking at every moment and in every trouble: what
//! is recorded never lets an identity in that a later denial has shut out.

use super::status::{self, Basis};
use crate::approval::{Observed, Step, Waiting, decide, is_denial_needed, standing, verdict};
use crate::pki::{CheckedRequest, KeyKind, Rejection, SerialNumber, SignedCertificate, SubjectKey};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use volttron_crds::{
    AutoApproval, Phase, VolttronCertRequest, VolttronCertRequestSpec, well_known,
};

const NAMES: usize = 4;

/// What keeps a step from going through.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Trouble {
    None,
    /// The broker is known to be away.
    Obstacle,
    /// The namespace is not allowed, or the name is somebody else's.
    ShutOut,
    /// The instance became stricter.
    Unfit,
    /// The broker fails in the middle.
    Broken,
}

#[derive(Clone, Copy, Debug)]
enum Act {
    File(usize),
    Decide(usize, bool),
    Explain(usize),
    Lift(usize),
    Delete(usize),
    RunOut(usize),
    Look(usize, Trouble),
    /// Another replica leads, whose clock is so many seconds ahead.
    Skew(i64),
}

/// All requests of one identity, and what an onlooker who misses nothing knows of its decisions.
#[derive(Default)]
struct World {
    clock: i64,
    skew: i64,
    filed: usize,
    requests: BTreeMap<usize, VolttronCertRequest>,
    /// When each standing decision was made, by UID.
    made: BTreeMap<String, i64>,
    /// The denials that came after an approval, by the approval's UID.
    ended: BTreeMap<String, BTreeSet<String>>,
    /// Approvals that were made when the controller had recorded all denials.
    plain: BTreeSet<String>,
    checked: Option<CheckedRequest>,
}

impl World {
    fn act(&mut self, act: Act) {
        self.clock += 1;
        match act {
            Act::File(name) => self.file(name),
            Act::Decide(name, approved) => self.annotate(name, Some(approved)),
            Act::Lift(name) => self.annotate(name, None),
            Act::Explain(name) => self.explain(name),
            Act::Delete(name) => self.delete(name),
            Act::RunOut(name) => self.run_out(name),
            Act::Look(name, trouble) => {
                self.look(name, trouble);
            }
            Act::Skew(seconds) => self.skew = seconds,
        }
    }

    fn file(&mut self, name: usize) {
        let time = at(self.clock);
        self.filed += 1;
        let uid = format!("{:04}", self.filed);
        self.requests.entry(name).or_insert_with(|| {
            let mut request =
                VolttronCertRequest::new(&format!("r{name}"), VolttronCertRequestSpec::default());
            request.metadata.namespace = Some("plant".to_owned());
            request.metadata.uid = Some(uid);
            request.metadata.creation_timestamp = Some(Time(time));
            request
        });
    }

    /// Decisions that follow each other on one request count each for itself only where the
    /// controller has seen the one before.
    fn annotate(&mut self, name: usize, approved: Option<bool>) {
        let Some(before) = self.requests.get(&name) else {
            return;
        };
        if verdict(before).map(|it| it.approved) == approved || is_going(before) {
            return;
        }
        let is_new = before.phase().is_none();
        if !is_new || verdict(before).is_some() {
            self.settle();
        }
        let denials: Vec<String> = self.standing(false).collect();
        let approvals: Vec<String> = self.standing(true).collect();
        let all_recorded = denials.iter().all(|uid| {
            let carrier = self
                .requests
                .values()
                .find(|it| it.metadata.uid.as_ref() == Some(uid));
            carrier.is_some_and(|it| it.phase() == Some(Phase::Denied))
        });
        let none_goes = !self.requests.values().any(is_going);
        // It may have gone meanwhile.
        let Some(request) = self.requests.get_mut(&name) else {
            return;
        };
        let uid = request.metadata.uid.clone().unwrap();
        let annotations = request.metadata.annotations.get_or_insert_default();
        match approved {
            None => annotations.remove(well_known::DECISION),
            Some(true) => annotations.insert(well_known::DECISION.into(), "approved".into()),
            Some(false) => annotations.insert(well_known::DECISION.into(), "denied".into()),
        };
        self.made.remove(&uid);
        self.ended.remove(&uid);
        self.plain.remove(&uid);
        // Whatever it denied before is lifted.
        self.ended.values_mut().for_each(|ended| {
            ended.remove(&uid);
        });
        match approved {
            Some(true) => {
                self.made.insert(uid.clone(), self.clock);
                if !is_new && all_recorded && none_goes {
                    self.plain.insert(uid);
                }
            }
            Some(false) => {
                self.made.insert(uid.clone(), self.clock);
                for approval in approvals.into_iter().filter(|it| *it != uid) {
                    self.plain.remove(&approval);
                    self.ended.entry(approval).or_default().insert(uid.clone());
                }
            }
            None => {}
        }
    }

    fn explain(&mut self, name: usize) {
        if let Some(request) = self.requests.get_mut(&name) {
            let annotations = request.metadata.annotations.get_or_insert_default();
            annotations.insert(well_known::REASON.into(), format!("in {}", self.clock));
        }
    }

    /// It goes as soon as the controller lets it.
    fn delete(&mut self, name: usize) {
        let time = at(self.clock);
        let Some(request) = self.requests.get_mut(&name).filter(|it| !is_going(it)) else {
            return;
        };
        let is_known = is_read(request);
        request.metadata.deletion_timestamp = Some(Time(time));
        let uid = request.metadata.uid.clone().unwrap();
        self.made.remove(&uid);
        let standing: BTreeSet<String> = self.standing(false).collect();
        // Where another denial has ended an approval as well, that is what counts from now on. And
        // it is not known what belongs to the identity of a request that was never read.
        for (approval, ended) in &mut self.ended {
            let carrier = self
                .requests
                .values()
                .find(|it| it.metadata.uid.as_ref() == Some(approval));
            let both_known = is_known && carrier.is_some_and(is_read);
            if !both_known || ended.intersection(&standing).next().is_some() {
                ended.remove(&uid);
            }
        }
        if !is_known {
            self.requests.remove(&name);
        }
    }

    fn run_out(&mut self, name: usize) {
        let status = self
            .requests
            .get_mut(&name)
            .and_then(|it| it.status.as_mut());
        if let Some(status) = status.filter(|status| status.certificate.is_some()) {
            status.not_after = Some(at(-1).to_string());
        }
    }

    /// Reconciles a request; returns whether that changed anything.
    fn look(&mut self, name: usize, trouble: Trouble) -> bool {
        let Some(request) = self.requests.get(&name).cloned() else {
            return false;
        };
        if is_going(&request) {
            let others = self.requests.values();
            let others = others.filter(|it| it.metadata.uid != request.metadata.uid);
            let others: Vec<_> = others
                .filter(|it| is_read(it))
                .cloned()
                .map(Arc::new)
                .collect();
            if is_denial_needed(&request, &others) {
                return false;
            }
            self.requests.remove(&name);
            return true;
        }
        let now = at(self.clock + self.skew);
        let fit = trouble != Trouble::Unfit;
        let known =
            |it: &&VolttronCertRequest| it.metadata.uid != request.metadata.uid && is_read(it);
        let peers = self.requests.values().filter(known);
        let peers: Vec<_> = peers.cloned().map(Arc::new).collect();
        let checked = if fit {
            Ok(self.checked.get_or_insert_with(checked).clone())
        } else {
            Err(Rejection::NotBase64)
        };
        let (away, shut) = (Waiting::Broker("away".into()), Waiting::Room(0));
        let standing = standing(&request, &peers, AutoApproval::Renewals);
        let step = decide(Observed {
            request: &request,
            checked: &checked,
            standing: &standing,
            shut_out: (trouble == Trouble::ShutOut).then_some(&shut),
            crowded_out: None,
            obstacle: (trouble == Trouble::Obstacle).then_some(&away),
            pending_life: Duration::from_hours(10_000),
            now,
        });
        let basis = Basis {
            request: &request,
            // It can be read, also where the instance does not allow it.
            checked: Some(self.checked.get_or_insert_with(self::checked)),
            standing: &standing,
            now,
        };
        let is_issued = request.phase() == Some(Phase::Issued);
        let next = match step {
            Step::Fail(rejection) => status::failed(basis, rejection),
            Step::Pend(waiting) => status::pending(basis, waiting.as_ref()),
            Step::Lapse => status::lapsed(basis, "10000h"),
            Step::Hold(ruling, waiting) => status::held(basis, &ruling, waiting),
            Step::Issue(..) if trouble == Trouble::Broken && is_issued => status::kept(basis),
            Step::Issue(ruling, _) if trouble == Trouble::Broken => {
                status::unfinished(basis, &ruling)
            }
            Step::Issue(ruling, _) => {
                let certificate = SignedCertificate {
                    chain: "a certificate".into(),
                    not_before: now,
                    not_after: at(1_000_000),
                };
                let serial = SerialNumber::random();
                let renew_at = at(700_000);
                let mut next = status::issued(basis, &ruling, &serial, certificate, renew_at);
                if let Some(status) = request.status.as_ref().filter(|_| is_issued) {
                    next.serial_number.clone_from(&status.serial_number);
                    next.not_before.clone_from(&status.not_before);
                }
                next
            }
            Step::Keep(_) => status::kept(basis),
            Step::Deny(_) if standing.denial_waits => status::read(basis),
            Step::Deny(ruling) => status::denied(basis, &ruling, &Ok(None)),
            Step::Expire => status::expired(basis),
        };
        let is_in = |phase| matches!(phase, Some(Phase::Approved | Phase::Issued));
        // Of a denial on a request that it has never read the controller cannot know yet.
        let mut denied = self
            .requests
            .values()
            .filter(|it| !verdict(it).is_none_or(|it| it.approved));
        let knows_all = denied.all(|it| {
            it.status
                .as_ref()
                .is_some_and(|it| it.common_name.is_some())
        });
        if is_in(next.phase) && !is_in(request.phase()) && knows_all {
            assert!(
                self.approvals_in_force().next().is_some(),
                "let in: {request:#?}\n{next:#?}"
            );
        }
        let changed = request.status.as_ref() != Some(&next);
        self.requests.get_mut(&name).unwrap().status = Some(next);
        changed
    }

    /// Looks at all requests until there is nothing left to do.
    fn settle(&mut self) {
        for _ in 0..30 {
            let names: Vec<usize> = self.requests.keys().copied().collect();
            let mut changed = false;
            for name in names {
                self.clock += 1;
                changed |= self.look(name, Trouble::None);
            }
            if !changed {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn check(&self) {
        let denied = |request: &VolttronCertRequest| request.phase() == Some(Phase::Denied);
        if self.standing(false).next().is_some() && self.approvals_in_force().next().is_none() {
            for request in self.requests.values() {
                assert!(denied(request), "the denial is lost: {request:#?}");
            }
        }
        for request in self.requests.values() {
            let uid = request.metadata.uid.as_ref().unwrap();
            if self.plain.contains(uid) {
                assert!(!denied(request), "the approval is lost: {request:#?}");
            }
        }
    }

    /// UIDs of the requests that are approved, or denied, by hand.
    fn standing(&self, approved: bool) -> impl Iterator<Item = String> {
        let all = self.requests.values();
        all.filter(|it| !is_going(it))
            .filter(move |it| verdict(it).is_some_and(|it| it.approved == approved))
            .filter_map(|it| it.metadata.uid.clone())
    }

    /// Approvals after which no denial came.
    fn approvals_in_force(&self) -> impl Iterator<Item = String> {
        self.standing(true)
            .filter(|uid| self.ended.get(uid).is_none_or(BTreeSet::is_empty))
            .filter(|uid| {
                self.standing(false)
                    .all(|it| self.made[&it] < self.made[uid])
            })
    }
}

/// Others find a request by the common name that was read from it.
fn is_read(request: &VolttronCertRequest) -> bool {
    let status = request.status.as_ref();
    status.is_some_and(|status| status.common_name.is_some())
}

fn is_going(request: &VolttronCertRequest) -> bool {
    request.metadata.deletion_timestamp.is_some()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn checked() -> CheckedRequest {
    CheckedRequest {
        common_name: "central.plant.forwarder".parse().unwrap(),
        key: SubjectKey {
            spki: Vec::new(),
            algorithm: KeyKind::P256,
        },
    }
}

fn any_act() -> impl Strategy<Value = Act> {
    let trouble = prop::sample::select(vec![
        Trouble::None,
        Trouble::None,
        Trouble::Obstacle,
        Trouble::ShutOut,
        Trouble::Unfit,
        Trouble::Broken,
    ]);
    prop_oneof![
        4 => (0..NAMES).prop_map(Act::File),
        4 => (0..NAMES, any::<bool>()).prop_map(|(name, approved)| Act::Decide(name, approved)),
        1 => (0..NAMES).prop_map(Act::Explain),
        1 => (0..NAMES).prop_map(Act::Lift),
        1 => (0..NAMES).prop_map(Act::Delete),
        1 => (0..NAMES).prop_map(Act::RunOut),
        8 => (0..NAMES, trouble).prop_map(|(name, trouble)| Act::Look(name, trouble)),
        1 => (0..100_i64).prop_map(Act::Skew),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn a_denial_ends_every_approval_before_it_in_whatever_phase_that_is(
        acts in prop::collection::vec(any_act(), 1..40),
    ) {
        let mut world = World::default();
        for act in acts {
            world.act(act);
        }
        world.settle();
        world.check();
    }
}
