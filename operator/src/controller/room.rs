//! Room for requests that wait for a decision: bounded for each instance, and for each requester, so
//! that nobody buries the requests of others.

use super::triggers::Triggers;
use crate::approval::Waiting;
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use volttron_crds::{RequestsSpec, VolttronCertRequest, VolttronInstance};

type Reference = ObjectRef<VolttronCertRequest>;

/// The room of all instances. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Room(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    instances: HashMap<ObjectRef<VolttronInstance>, Places>,
    known: HashMap<Reference, Guest>,
}

/// A request that has a place or waits for one.
#[derive(Clone)]
struct Guest {
    instance: ObjectRef<VolttronInstance>,
    requester: String,
    turn: Turn,
}

/// Who came first is first.
type Turn = (Timestamp, String);

#[derive(Default)]
struct Places {
    seated: HashMap<Reference, String>,
    seated_of: HashMap<String, usize>,
    /// Those that wait, by requester.
    queues: BTreeMap<String, BTreeMap<Turn, Reference>>,
    limits: Limits,
}

#[derive(Clone, Copy, Default)]
struct Limits {
    all: i32,
    of_requester: i32,
}

impl Places {
    fn seat(&mut self, reference: Reference, guest: &Guest) {
        self.unqueue(guest);
        *self.seated_of.entry(guest.requester.clone()).or_default() += 1;
        self.seated.insert(reference, guest.requester.clone());
    }

    fn queue(&mut self, reference: Reference, guest: &Guest) {
        let queue = self.queues.entry(guest.requester.clone()).or_default();
        queue.insert(guest.turn.clone(), reference);
    }

    fn unqueue(&mut self, guest: &Guest) {
        if let Some(queue) = self.queues.get_mut(&guest.requester) {
            queue.remove(&guest.turn);
            if queue.is_empty() {
                self.queues.remove(&guest.requester);
            }
        }
    }

    /// Returns whether a place became free.
    fn leave(&mut self, reference: &Reference, guest: &Guest) -> bool {
        self.unqueue(guest);
        if self.seated.remove(reference).is_none() {
            return false;
        }
        if let Some(count) = self.seated_of.get_mut(&guest.requester) {
            *count -= 1;
            if *count == 0 {
                self.seated_of.remove(&guest.requester);
            }
        }
        true
    }

    fn refusal(&self, requester: &str) -> Option<Waiting> {
        let reaches = |count: usize, limit: i32| i32::try_from(count).is_ok_and(|it| it < limit);
        let own = self.seated_of.get(requester).copied().unwrap_or(0);
        if !reaches(own, self.limits.of_requester) {
            Some(Waiting::RequesterRoom(self.limits.of_requester))
        } else if !reaches(self.seated.len(), self.limits.all) {
            Some(Waiting::Room(self.limits.all))
        } else {
            None
        }
    }

    /// The one that waits longest and would find a place now.
    fn next(&self) -> Option<Reference> {
        self.queues
            .iter()
            .filter(|(requester, _)| self.refusal(requester).is_none())
            .filter_map(|(_, queue)| queue.first_key_value())
            .min_by_key(|(turn, _)| *turn)
            .map(|(_, reference)| reference.clone())
    }
}

impl Room {
    /// Takes a place for an undecided request, or says why there is none. One that had a place
    /// before the controller started, as its status tells, has it still.
    pub(super) fn enter(
        &self,
        request: &VolttronCertRequest,
        instance: &ObjectRef<VolttronInstance>,
        spec: &RequestsSpec,
    ) -> Option<Waiting> {
        let reference = ObjectRef::from_obj(request);
        let created = request.metadata.creation_timestamp.as_ref();
        let guest = Guest {
            instance: instance.clone(),
            requester: request.spec.requester.clone(),
            turn: (
                created.map_or(Timestamp::MAX, |at| at.0),
                request.metadata.uid.clone().unwrap_or_default(),
            ),
        };
        let had_one = request.status.as_ref().is_some_and(|status| {
            let issued = status.conditions.iter().find(|it| it.type_ == "Issued");
            issued.is_some_and(|it| !it.reason.starts_with("TooManyPending"))
        });
        let mut inner = self.lock();
        inner.known.insert(reference.clone(), guest.clone());
        let places = inner.instances.entry(instance.clone()).or_default();
        places.limits = Limits {
            all: spec.max_pending,
            of_requester: spec.max_pending_per_requester,
        };
        if places.seated.contains_key(&reference) {
            return None;
        }
        let refusal = places.refusal(&guest.requester).filter(|_| !had_one);
        if refusal.is_some() {
            places.queue(reference, &guest);
        } else {
            places.seat(reference, &guest);
        }
        refusal
    }

    /// Gives the place of a request up, and has the next one look again.
    pub(super) fn leave(&self, reference: &Reference, triggers: &Triggers) {
        let mut inner = self.lock();
        let Some(guest) = inner.known.remove(reference) else {
            return;
        };
        let Some(places) = inner.instances.get_mut(&guest.instance) else {
            return;
        };
        if places.leave(reference, &guest)
            && let Some(next) = places.next()
        {
            triggers.request(next);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::triggers;
    use futures::{FutureExt, StreamExt};
    use volttron_crds::VolttronCertRequestSpec;

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
        let enter = |request: &VolttronCertRequest| room.enter(request, &instance, &spec);
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
        assert_eq!(invited.next().now_or_never(), None, "no place became free");
        room.leave(&ObjectRef::from_obj(&a[0]), &triggers);
        room.leave(&ObjectRef::from_obj(&a[0]), &triggers);
        assert_eq!(invited.next().now_or_never(), None, "nobody waits any more");
    }
}
