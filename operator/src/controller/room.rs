//! Room for requests that wait for a decision: bounded for each instance, and within it for each
//! requester and each namespace, so that nobody buries the requests of others. Who may make service
//! accounts in a namespace is as many requesters as they like, hence the second bound.

use super::context::instance_of;
use super::triggers::Triggers;
use crate::approval::{IDENTITY_CONFLICT, WAITING_FOR_APPROVAL, Waiting};
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use volttron_crds::{Phase, RequestsSpec, VolttronCertRequest, VolttronInstance};

type Reference = ObjectRef<VolttronCertRequest>;

/// The room of all instances. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Room(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    instances: HashMap<ObjectRef<VolttronInstance>, Places>,
    known: HashMap<Reference, Guest>,
    /// Whether those that had a place before the controller started have it again.
    is_open: bool,
}

/// A request that has a place or waits for one.
#[derive(Clone, PartialEq, Eq)]
struct Guest {
    instance: ObjectRef<VolttronInstance>,
    owner: Owner,
    turn: Turn,
}

/// Whose room a request takes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    namespace: String,
    requester: String,
}

/// Who came first is first.
type Turn = (Timestamp, String);

#[derive(Default)]
struct Places {
    seated: HashSet<Reference>,
    seated_of: Counts,
    seated_in: Counts,
    /// Those that wait, by whose room they wait for.
    queues: BTreeMap<Owner, BTreeMap<Turn, Reference>>,
    limits: Limits,
}

/// How many there are, by requester or by namespace.
#[derive(Default)]
struct Counts(HashMap<String, usize>);

impl Counts {
    fn add(&mut self, key: &str) {
        *self.0.entry(key.to_owned()).or_default() += 1;
    }

    fn remove(&mut self, key: &str) {
        if let Some(count) = self.0.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(key);
            }
        }
    }

    fn of(&self, key: &str) -> usize {
        self.0.get(key).copied().unwrap_or(0)
    }
}

#[derive(Clone, Copy, Default)]
struct Limits {
    all: i32,
    of_requester: i32,
    in_namespace: i32,
}

impl Places {
    fn seat(&mut self, reference: Reference, guest: &Guest) {
        self.unqueue(guest);
        self.seated_of.add(&guest.owner.requester);
        self.seated_in.add(&guest.owner.namespace);
        self.seated.insert(reference);
    }

    fn queue(&mut self, reference: Reference, guest: &Guest) {
        let queue = self.queues.entry(guest.owner.clone()).or_default();
        queue.insert(guest.turn.clone(), reference);
    }

    fn unqueue(&mut self, guest: &Guest) {
        if let Some(queue) = self.queues.get_mut(&guest.owner) {
            queue.remove(&guest.turn);
            if queue.is_empty() {
                self.queues.remove(&guest.owner);
            }
        }
    }

    fn leave(&mut self, reference: &Reference, guest: &Guest) {
        self.unqueue(guest);
        if self.seated.remove(reference) {
            self.seated_of.remove(&guest.owner.requester);
            self.seated_in.remove(&guest.owner.namespace);
        }
    }

    fn is_empty(&self) -> bool {
        self.seated.is_empty() && self.queues.is_empty()
    }

    fn refusal(&self, owner: &Owner) -> Option<Waiting> {
        let has_room = |count: usize, limit: i32| i32::try_from(count).is_ok_and(|it| it < limit);
        if !has_room(
            self.seated_of.of(&owner.requester),
            self.limits.of_requester,
        ) {
            Some(Waiting::RequesterRoom(self.limits.of_requester))
        } else if !has_room(
            self.seated_in.of(&owner.namespace),
            self.limits.in_namespace,
        ) {
            Some(Waiting::NamespaceRoom {
                namespace: owner.namespace.clone(),
                limit: self.limits.in_namespace,
            })
        } else if !has_room(self.seated.len(), self.limits.all) {
            Some(Waiting::Room(self.limits.all))
        } else {
            None
        }
    }

    /// The one that waits longest and would find a place now.
    fn next(&self) -> Option<Reference> {
        self.first_waiting().map(|(_, reference)| reference.clone())
    }

    fn first_waiting(&self) -> Option<(&Turn, &Reference)> {
        self.queues
            .iter()
            .filter(|(owner, _)| self.refusal(owner).is_none())
            .filter_map(|(_, queue)| queue.first_key_value())
            .min_by_key(|(turn, _)| *turn)
    }
}

impl Room {
    /// Follows the first list of a watch: a request that had a place before the controller started,
    /// as its status tells, has it again before any other can take it.
    pub(super) fn observe(&self, event: &Event<VolttronCertRequest>) {
        match event {
            Event::InitApply(request) if had_a_place(request) => {
                let mut inner = self.lock();
                if !inner.is_open {
                    let guest = Guest::of(request, &instance_of(request));
                    inner.admit(ObjectRef::from_obj(request), guest, |_, _| None);
                }
            }
            Event::InitDone => self.lock().is_open = true,
            _ => {}
        }
    }

    /// Takes a place for an undecided request, or says why there is none. A free place is for the
    /// one that waits longest, who is called to it.
    pub(super) fn enter(
        &self,
        request: &VolttronCertRequest,
        instance: &ObjectRef<VolttronInstance>,
        spec: &RequestsSpec,
        triggers: &Triggers,
    ) -> Option<Waiting> {
        let guest = Guest::of(request, instance);
        let limits = Limits {
            all: spec.max_pending,
            of_requester: spec.max_pending_per_requester,
            in_namespace: spec.max_pending_per_namespace,
        };
        let own = ObjectRef::from_obj(request);
        let mut inner = self.lock();
        let refusal = inner.admit(own.clone(), guest, |places, guest| {
            places.limits = limits;
            let is_behind = || {
                places
                    .first_waiting()
                    .is_some_and(|(turn, _)| *turn < guest.turn)
            };
            let turn = || is_behind().then_some(Waiting::Room(limits.all));
            places.refusal(&guest.owner).or_else(turn)
        });
        let next = inner.instances.get(instance).and_then(Places::next);
        if let Some(next) = next.filter(|next| *next != own) {
            triggers.request(next);
        }
        refusal
    }

    /// Gives the place of a request up, and has the next one look again.
    pub(super) fn leave(&self, reference: &Reference, triggers: &Triggers) {
        // Also where the one that leaves had no place: it may have been invited to a free one.
        if let Some(next) = self.lock().dismiss(reference) {
            triggers.request(next);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Gives a place, unless it has one or is refused.
    fn admit(
        &mut self,
        reference: Reference,
        guest: Guest,
        refusal: impl FnOnce(&mut Places, &Guest) -> Option<Waiting>,
    ) -> Option<Waiting> {
        // Another request of the same name was here, and its deletion was missed.
        if self.known.get(&reference).is_some_and(|it| *it != guest) {
            self.dismiss(&reference);
        }
        let places = self.instances.entry(guest.instance.clone()).or_default();
        let refusal = refusal(places, &guest);
        if places.seated.contains(&reference) {
            return None;
        }
        if refusal.is_some() {
            places.queue(reference.clone(), &guest);
        } else {
            places.seat(reference.clone(), &guest);
        }
        self.known.insert(reference, guest);
        refusal
    }

    /// Returns who should look for a place now.
    fn dismiss(&mut self, reference: &Reference) -> Option<Reference> {
        let guest = self.known.remove(reference)?;
        let places = self.instances.get_mut(&guest.instance)?;
        places.leave(reference, &guest);
        let next = places.next();
        if places.is_empty() {
            self.instances.remove(&guest.instance);
        }
        next
    }
}

impl Guest {
    fn of(request: &VolttronCertRequest, instance: &ObjectRef<VolttronInstance>) -> Self {
        let created = request.metadata.creation_timestamp.as_ref();
        Self {
            instance: instance.clone(),
            owner: Owner {
                namespace: request.metadata.namespace.clone().unwrap_or_default(),
                requester: request.spec.requester.clone(),
            },
            turn: (
                created.map_or(Timestamp::MAX, |at| at.0),
                request.metadata.uid.clone().unwrap_or_default(),
            ),
        }
    }
}

/// Whether status tells of a request that waits for a decision and for nothing else.
fn had_a_place(request: &VolttronCertRequest) -> bool {
    let conditions = request.status.as_ref().map(|status| &status.conditions);
    let issued = conditions
        .into_iter()
        .flatten()
        .find(|it| it.type_ == "Issued");
    let waits_for_a_decision = issued
        .is_some_and(|it| matches!(it.reason.as_str(), WAITING_FOR_APPROVAL | IDENTITY_CONFLICT));
    request.phase() == Some(Phase::Pending) && waits_for_a_decision
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::triggers;
    use futures::{FutureExt, StreamExt};
    use volttron_crds::{VolttronCertRequestSpec, VolttronCertRequestStatus, set_condition};

    fn request(number: i64, requester: &str) -> VolttronCertRequest {
        let spec = VolttronCertRequestSpec {
            requester: requester.into(),
            ..VolttronCertRequestSpec::default()
        };
        let mut request = VolttronCertRequest::new(&format!("{requester}-{number}"), spec);
        request.metadata.namespace = Some("default".into());
        request.metadata.uid = Some(format!("{number:03}"));
        let created = Timestamp::from_second(number).unwrap();
        request.metadata.creation_timestamp = Some(
            k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(created),
        );
        request
    }

    #[test]
    fn the_oldest_that_waits_is_next_and_no_requester_takes_the_room_of_others() {
        let (room, instance) = (Room::default(), ObjectRef::new("central").within("default"));
        let (triggers, _, requests) = triggers::channels();
        let mut invited = std::pin::pin!(requests);
        let spec = RequestsSpec {
            max_pending: 3,
            max_pending_per_requester: 2,
            ..RequestsSpec::default()
        };
        let enter =
            |request: &VolttronCertRequest| room.enter(request, &instance, &spec, &triggers);
        let a: Vec<_> = (0..4).map(|number| request(number, "a")).collect();
        let b: Vec<_> = (10..12).map(|number| request(number, "b")).collect();
        assert_eq!(enter(&a[0]), None);
        assert_eq!(enter(&a[1]), None);
        assert_eq!(enter(&a[2]), Some(Waiting::RequesterRoom(2)));
        assert_eq!(enter(&b[0]), None, "another requester has room");
        assert_eq!(enter(&b[1]), Some(Waiting::Room(3)));
        assert_eq!(enter(&a[0]), None, "a place is kept");
        room.leave(&ObjectRef::from_obj(&b[0]), &triggers);
        let next = invited.next().now_or_never().flatten();
        assert_eq!(next, Some(ObjectRef::from_obj(&b[1])), "a has two already");
        assert_eq!(enter(&b[1]), None);
        room.leave(&ObjectRef::from_obj(&a[2]), &triggers);
        assert_eq!(invited.next().now_or_never(), None, "nobody waits");
        room.leave(&ObjectRef::from_obj(&a[0]), &triggers);
        room.leave(&ObjectRef::from_obj(&a[0]), &triggers);
        assert_eq!(invited.next().now_or_never(), None, "nobody waits any more");
    }

    #[test]
    fn a_namespace_has_no_more_room_with_more_requesters() {
        let (room, instance) = (Room::default(), ObjectRef::new("central").within("default"));
        let (triggers, _, requests) = triggers::channels();
        let mut invited = std::pin::pin!(requests);
        let spec = RequestsSpec {
            max_pending: 4,
            max_pending_per_namespace: 2,
            ..RequestsSpec::default()
        };
        let enter =
            |request: &VolttronCertRequest| room.enter(request, &instance, &spec, &triggers);
        let crowd: Vec<_> = ["a", "b", "c", "d"]
            .into_iter()
            .zip(1..)
            .map(|(requester, number)| request(number, requester))
            .collect();
        let refused = Waiting::NamespaceRoom {
            namespace: "default".into(),
            limit: 2,
        };
        assert_eq!(enter(&crowd[0]), None);
        assert_eq!(enter(&crowd[1]), None);
        assert_eq!(enter(&crowd[2]), Some(refused.clone()));
        let elsewhere: Vec<_> = (11..14)
            .map(|number| {
                // A user who files in two namespaces.
                let mut request = request(number, "a");
                request.metadata.namespace = Some("elsewhere".into());
                request
            })
            .collect();
        assert_eq!(enter(&elsewhere[0]), None, "another namespace has room");
        assert_eq!(enter(&elsewhere[1]), None);
        assert!(enter(&elsewhere[2]).is_some());
        assert_eq!(enter(&crowd[3]), Some(refused));
        room.leave(&ObjectRef::from_obj(&elsewhere[0]), &triggers);
        let next = invited.next().now_or_never().flatten();
        let expected = ObjectRef::from_obj(&elsewhere[2]);
        assert_eq!(next, Some(expected), "the crowd has two already");
        assert_eq!(enter(&elsewhere[2]), None);
        room.leave(&ObjectRef::from_obj(&crowd[0]), &triggers);
        let next = invited.next().now_or_never().flatten();
        assert_eq!(next, Some(ObjectRef::from_obj(&crowd[2])));
        assert_eq!(enter(&crowd[2]), None);
        for request in crowd.iter().chain(&elsewhere) {
            room.leave(&ObjectRef::from_obj(request), &triggers);
        }
        let inner = room.lock();
        assert!(inner.known.is_empty() && inner.instances.is_empty());
    }

    fn waiting(number: i64, requester: &str, reason: &str) -> VolttronCertRequest {
        let mut request = request(number, requester);
        let mut conditions = Vec::new();
        let now = Timestamp::UNIX_EPOCH;
        set_condition(
            &mut conditions,
            "Issued",
            false.into(),
            reason,
            "",
            None,
            now,
        );
        request.status = Some(VolttronCertRequestStatus {
            phase: Some(Phase::Pending),
            conditions,
            ..VolttronCertRequestStatus::default()
        });
        request.spec.instance_ref.name = "central".into();
        request
    }

    #[test]
    fn places_survive_a_restart_and_what_waited_for_something_else_had_none() {
        let (triggers, _instances, _requests) = triggers::channels();
        let (room, instance) = (Room::default(), ObjectRef::new("central").within("default"));
        let spec = RequestsSpec {
            max_pending: 2,
            ..RequestsSpec::default()
        };
        let seated = waiting(5, "a", WAITING_FOR_APPROVAL);
        let conflict = waiting(6, "b", IDENTITY_CONFLICT);
        let others: Vec<_> = ["TooManyPending", "NamespaceNotAllowed", "InstanceNotFound"]
            .into_iter()
            .zip(1..)
            .map(|(reason, number)| waiting(number, "c", reason))
            .collect();
        room.observe(&Event::Init);
        for request in others.iter().chain([&seated, &conflict]) {
            room.observe(&Event::InitApply(request.clone()));
        }
        room.observe(&Event::InitDone);
        let late = waiting(7, "d", WAITING_FOR_APPROVAL);
        room.observe(&Event::InitApply(late.clone()));
        for request in others.iter().chain([&late]) {
            assert_eq!(
                room.enter(request, &instance, &spec, &triggers),
                Some(Waiting::Room(2))
            );
        }
        for request in [&seated, &conflict] {
            assert_eq!(room.enter(request, &instance, &spec, &triggers), None);
        }
    }

    #[test]
    fn a_request_made_anew_under_the_same_name_leaves_nothing_of_the_first_behind() {
        let (room, instance) = (Room::default(), ObjectRef::new("central").within("default"));
        let (triggers, _, _) = triggers::channels();
        let spec = RequestsSpec {
            max_pending_per_requester: 1,
            ..RequestsSpec::default()
        };
        let first = request(1, "a");
        let mut second = request(2, "b");
        second.metadata.name.clone_from(&first.metadata.name);
        assert_eq!(room.enter(&first, &instance, &spec, &triggers), None);
        assert_eq!(room.enter(&second, &instance, &spec, &triggers), None);
        assert_eq!(
            room.enter(&request(3, "a"), &instance, &spec, &triggers),
            None
        );
        assert!(
            room.enter(&request(4, "b"), &instance, &spec, &triggers)
                .is_some()
        );
        for number in [3, 4] {
            let requester = if number == 3 { "a" } else { "b" };
            let reference = ObjectRef::from_obj(&request(number, requester));
            room.leave(&reference, &triggers);
        }
        room.leave(&ObjectRef::from_obj(&second), &triggers);
        let inner = room.lock();
        assert!(inner.known.is_empty() && inner.instances.is_empty());
    }
}
