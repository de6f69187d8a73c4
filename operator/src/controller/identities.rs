//! Which requests ask for the same common name: an index beside the cache of requests, so that one
//! request finds its peers without looking at all of them.

use super::context::instance_of;
use super::triggers::Triggers;
use crate::approval;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::Event;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use volttron_crds::{VolttronCertRequest, VolttronInstance};

/// Groups up to this size are told of each change at once, larger ones of many changes together.
const SMALL: usize = 16;
const PAUSE: Duration = Duration::from_secs(1);

type Reference = ObjectRef<VolttronCertRequest>;

/// An instance and a common name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Name {
    /// The instance.
    pub(super) instance: ObjectRef<VolttronInstance>,
    /// The common name.
    pub(super) common_name: String,
}

/// The index. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Identities(Arc<Mutex<Index>>);

#[derive(Default)]
struct Index {
    groups: HashMap<Name, HashSet<Reference>>,
    known: HashMap<Reference, Known>,
    pausing: HashSet<Name>,
    /// What the list has brought so far that begins a watch.
    listed: HashSet<Reference>,
}

/// What is known of a request: its group, and a hash of all that counts as evidence for others.
struct Known {
    name: Name,
    evidence: u64,
}

impl Identities {
    /// The requests that ask for the same name as one of them.
    pub(super) fn of(&self, name: &Name) -> Vec<Reference> {
        self.lock()
            .groups
            .get(name)
            .map(|group| group.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// Follows the watch, and has the peers of a request reconciled when what it tells about their
    /// common identity has changed. Returns the requests that are gone.
    pub(super) fn observe(
        &self,
        event: &Event<VolttronCertRequest>,
        triggers: &Triggers,
    ) -> Vec<Reference> {
        let gone = match event {
            Event::Init => {
                self.lock().listed.clear();
                Vec::new()
            }
            Event::InitApply(request) => {
                let reference = ObjectRef::from_obj(request);
                self.lock().listed.insert(reference);
                self.changed(request, triggers);
                Vec::new()
            }
            Event::Apply(request) => {
                self.changed(request, triggers);
                Vec::new()
            }
            Event::Delete(request) => vec![ObjectRef::from_obj(request)],
            // What vanished while the watch was cut off.
            Event::InitDone => {
                let mut index = self.lock();
                let listed = std::mem::take(&mut index.listed);
                let known = index.known.keys();
                known.filter(|it| !listed.contains(it)).cloned().collect()
            }
        };
        for reference in &gone {
            self.gone(reference, triggers);
        }
        gone
    }

    fn changed(&self, request: &VolttronCertRequest, triggers: &Triggers) {
        let reference = ObjectRef::from_obj(request);
        let common_name = request
            .status
            .as_ref()
            .and_then(|status| status.common_name.clone());
        let Some(common_name) = common_name else {
            return;
        };
        let name = Name {
            instance: instance_of(request),
            common_name,
        };
        let evidence = evidence(request);
        let mut index = self.lock();
        let (before, is_new) = match index.known.entry(reference.clone()) {
            Entry::Occupied(mut known) => {
                if known.get().evidence == evidence && known.get().name == name {
                    return;
                }
                let name = name.clone();
                let before = known.insert(Known { name, evidence });
                (Some(before.name), false)
            }
            Entry::Vacant(place) => {
                let name = name.clone();
                place.insert(Known { name, evidence });
                (None, true)
            }
        };
        if let Some(before) = before.filter(|before| *before != name) {
            index.leave(&before, &reference);
        } else if !is_new {
            self.tell(&mut index, &name, &reference, triggers);
            return;
        }
        index
            .groups
            .entry(name.clone())
            .or_default()
            .insert(reference.clone());
        self.tell(&mut index, &name, &reference, triggers);
    }

    fn gone(&self, reference: &Reference, triggers: &Triggers) {
        let mut index = self.lock();
        if let Some(known) = index.known.remove(reference) {
            index.leave(&known.name, reference);
            self.tell(&mut index, &known.name, reference, triggers);
        }
    }

    fn tell(&self, index: &mut Index, name: &Name, teller: &Reference, triggers: &Triggers) {
        let Some(group) = index.groups.get(name) else {
            return;
        };
        if group.len() <= SMALL {
            for peer in group.iter().filter(|peer| *peer != teller) {
                triggers.request(peer.clone());
            }
        } else if index.pausing.insert(name.clone()) {
            let (identities, triggers, name) = (self.clone(), triggers.clone(), name.clone());
            tokio::spawn(async move {
                tokio::time::sleep(PAUSE).await;
                let mut index = identities.lock();
                index.pausing.remove(&name);
                for peer in index.groups.get(&name).into_iter().flatten() {
                    triggers.request(peer.clone());
                }
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Index {
    fn leave(&mut self, name: &Name, reference: &Reference) {
        if let Entry::Occupied(mut group) = self.groups.entry(name.clone()) {
            group.get_mut().remove(reference);
            if group.get().is_empty() {
                group.remove();
            }
        }
    }
}

fn evidence(request: &VolttronCertRequest) -> u64 {
    let status = request.status.as_ref();
    let decision = status.and_then(|status| status.decision.as_ref());
    let verdict = approval::verdict(request);
    let mut hasher = DefaultHasher::new();
    (
        request.metadata.uid.as_deref(),
        request.metadata.deletion_timestamp.is_some(),
        verdict.as_ref().map(|verdict| verdict.approved),
        verdict.as_ref().and_then(|verdict| verdict.by.as_deref()),
        verdict
            .as_ref()
            .and_then(|verdict| verdict.reason.as_deref()),
        request.phase().map(|phase| phase as u8),
        decision.map(|decision| (decision.how as u8, decision.at.as_str())),
        status.and_then(|status| status.not_before.as_deref()),
    )
        .hash(&mut hasher);
    hasher.finish()
}
