//! The users that are being removed. A removal that failed stays owed: until it is made good, the
//! name is given to nobody, since whoever had it may still be connected.

use super::users::{Answer, SharedError};
use std::collections::{HashMap, VecDeque};
use volttron_crds::CommonName;

/// At most so many users are being deleted at once.
const AT_ONCE: usize = 16;

#[derive(Default)]
pub(super) struct Removals {
    entries: HashMap<CommonName, Removal>,
    queue: VecDeque<CommonName>,
    running: usize,
}

struct Removal {
    state: State,
    waiters: Vec<Answer<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// It is in the queue.
    Queued,
    /// The user is being deleted.
    Running,
    /// The same, and an import has ended since that may have made the user behind it.
    RunningInVain,
    /// The user was deleted while an import made it, so that it is deleted again when that has ended.
    AfterImport,
    /// It failed, and waits for somebody to ask again.
    Owed,
}

impl Removals {
    /// Removes a user; where that is under way already, joins it.
    pub(super) fn add(&mut self, name: CommonName, done: Option<Answer<()>>) {
        if let Some(removal) = self.entries.get_mut(&name) {
            removal.waiters.extend(done);
            self.retry(&name);
            return;
        }
        self.queue.push_back(name.clone());
        let removal = Removal {
            state: State::Queued,
            waiters: done.into_iter().collect(),
        };
        self.entries.insert(name, removal);
    }

    /// Tries again what is owed.
    pub(super) fn retry(&mut self, name: &CommonName) {
        if let Some(removal) = self.entries.get_mut(name)
            && removal.state == State::Owed
        {
            removal.state = State::Queued;
            self.queue.push_back(name.clone());
        }
    }

    /// Whether a user is being removed, or its removal is owed.
    pub(super) fn holds(&self, name: &CommonName) -> bool {
        self.entries.contains_key(name)
    }

    /// The next user to delete now.
    pub(super) fn next(&mut self) -> Option<CommonName> {
        if self.running >= AT_ONCE {
            return None;
        }
        let name = self.queue.pop_front()?;
        self.running += 1;
        if let Some(removal) = self.entries.get_mut(&name) {
            removal.state = State::Running;
        }
        Some(name)
    }

    /// A deletion has ended. `importing` tells whether an import of the same user is under way.
    pub(super) fn ended(
        &mut self,
        name: CommonName,
        result: &Result<(), SharedError>,
        importing: bool,
    ) {
        self.running -= 1;
        let Some(removal) = self.entries.get_mut(&name) else {
            return;
        };
        if result.is_ok() && importing {
            removal.state = State::AfterImport;
            return;
        }
        if result.is_ok() && removal.state == State::RunningInVain {
            removal.state = State::Queued;
            self.queue.push_back(name);
            return;
        }
        for done in std::mem::take(&mut removal.waiters) {
            let _ = done.send(result.clone());
        }
        removal.state = State::Owed;
        if result.is_ok() {
            self.entries.remove(&name);
        }
    }

    /// An import that had `name` in it has ended.
    pub(super) fn imported(&mut self, name: &CommonName) {
        let Some(removal) = self.entries.get_mut(name) else {
            return;
        };
        match removal.state {
            State::Running => removal.state = State::RunningInVain,
            State::AfterImport => {
                removal.state = State::Queued;
                self.queue.push_back(name.clone());
            }
            State::Queued | State::RunningInVain | State::Owed => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::ManagementError;
    use std::sync::Arc;
    use tokio::sync::oneshot;

    fn name() -> CommonName {
        "central.a.b".parse().unwrap()
    }

    fn failure() -> Result<(), SharedError> {
        Err(Arc::new(ManagementError::Slow("here".into())))
    }

    #[test]
    fn a_user_that_an_import_makes_meanwhile_is_deleted_again() {
        // The deletion ends first, then the import; and the other way round.
        for import_ends_first in [false, true] {
            let mut removals = Removals::default();
            let (done, mut answer) = oneshot::channel();
            removals.add(name(), Some(done));
            assert_eq!(removals.next(), Some(name()));
            if import_ends_first {
                removals.imported(&name());
                removals.ended(name(), &Ok(()), false);
            } else {
                removals.ended(name(), &Ok(()), true);
                assert_eq!(removals.next(), None);
                removals.imported(&name());
            }
            assert!(answer.try_recv().is_err(), "answered too early");
            assert_eq!(removals.next(), Some(name()));
            removals.ended(name(), &Ok(()), false);
            assert!(answer.try_recv().unwrap().is_ok());
            assert!(!removals.holds(&name()));
            assert_eq!(removals.next(), None);
        }
    }

    #[test]
    fn a_failed_removal_is_owed_until_it_is_asked_for_again() {
        let mut removals = Removals::default();
        let (done, mut answer) = oneshot::channel();
        removals.add(name(), Some(done));
        assert_eq!(removals.next(), Some(name()));
        removals.ended(name(), &failure(), false);
        assert!(answer.try_recv().unwrap().is_err());
        assert!(removals.holds(&name()) && removals.next().is_none());
        removals.retry(&name());
        removals.retry(&name());
        assert_eq!(removals.next(), Some(name()));
        assert_eq!(removals.next(), None);
        removals.ended(name(), &Ok(()), false);
        assert!(!removals.holds(&name()));
    }

    #[test]
    fn removals_of_one_user_are_one_call_and_many_users_take_turns() {
        let mut removals = Removals::default();
        removals.add(name(), None);
        removals.add(name(), None);
        for number in 0..AT_ONCE {
            removals.add(format!("central.a.b{number}").parse().unwrap(), None);
        }
        let started: Vec<_> = std::iter::from_fn(|| removals.next()).collect();
        assert_eq!(started.len(), AT_ONCE);
        removals.ended(name(), &Ok(()), false);
        assert!(removals.next().is_some() && removals.next().is_none());
    }
}
