//! Events that were published not long ago. One that would say the same about the same object is
//! counted on the first, as client-go does (`series` of events.k8s.io/v1).

use super::outbox::Told;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;
use tokio::time::Instant;

/// How long after the last one the next of a series may come.
const SERIES: Duration = Duration::from_mins(6);
/// How many are remembered.
const MEMORY: usize = 1024;

/// What was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Published {
    /// The stamp in the Event's name.
    pub(super) stamp: u64,
    /// How often it was told.
    pub(super) count: i32,
}

/// See the module. The last one is at the end.
#[derive(Debug, Default)]
pub(super) struct Recent {
    published: VecDeque<(u64, Published, Instant)>,
    hasher: RandomState,
}

impl Recent {
    /// The Event that says the same.
    pub(super) fn find(&self, told: &Told, now: Instant) -> Option<Published> {
        if !told.counts {
            return None;
        }
        let key = self.key(told);
        let known = self.published.iter().rev();
        let mut known = known.take_while(|(_, _, at)| now < *at + SERIES);
        known.find(|(it, ..)| *it == key).map(|(_, it, _)| *it)
    }

    /// Remembers what was published.
    pub(super) fn note(&mut self, told: &Told, published: Published, now: Instant) {
        if !told.counts {
            return;
        }
        let key = self.key(told);
        self.published.retain(|(it, ..)| *it != key);
        if self.published.len() == MEMORY {
            self.published.pop_front();
        }
        self.published.push_back((key, published, now));
    }

    fn key(&self, told: &Told) -> u64 {
        let warns = told.type_ == kube::runtime::events::EventType::Warning;
        let texts = (&told.reason, &told.action, &told.note);
        self.hasher.hash_one((warns, &told.subject, texts))
    }
}

#[cfg(test)]
mod tests {
    use super::super::outbox::tests::told;
    use super::*;

    #[test]
    fn only_the_same_about_the_same_within_minutes_is_a_series() {
        let now = Instant::now();
        let mut recent = Recent::default();
        let first = Published { stamp: 7, count: 1 };
        recent.note(&told("agent", "lost"), first, now);
        let later = now + SERIES / 2;
        assert_eq!(recent.find(&told("agent", "lost"), later), Some(first));
        for other in [told("agent", "stolen"), told("other", "lost")] {
            assert_eq!(recent.find(&other, later), None);
        }
        assert_eq!(recent.find(&told("agent", "lost"), now + SERIES), None);
        let second = Published { stamp: 7, count: 2 };
        recent.note(&told("agent", "lost"), second, later);
        let much_later = now + SERIES;
        assert_eq!(
            recent.find(&told("agent", "lost"), much_later),
            Some(second)
        );
        for number in 0..MEMORY {
            let other = told("agent", &number.to_string());
            recent.note(&other, first, later);
        }
        assert_eq!(recent.published.len(), MEMORY);
        assert_eq!(recent.find(&told("agent", "lost"), later), None);
    }
}
