//! What waits to be told, and when it goes. No clock and no I/O.

use super::object::Subject;
use jiff::Timestamp;
use kube::runtime::events::EventType;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// What goes before what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// What people have to know at once: denials by a person, and warnings about instances.
    First,
    /// All other decisions.
    Decisions,
    /// What conditions tell as well, and what requesters bring about by themselves.
    Rest,
}

/// The bytes that may wait in each lane. An Event takes some 400: these are 20,000 denials, as many
/// decisions, and 10,000 others.
const ROOM: [usize; 3] = [8 << 20, 8 << 20, 4 << 20];

/// The pause between two Events when there is nothing else to do.
const QUIET: Duration = Duration::from_millis(5);
/// The pause between two Events, by lane, while certificates are being written: Events must not
/// take the API server's time from the work they tell of.
const BUSY: [Duration; 3] = [
    Duration::from_millis(40),
    Duration::from_millis(40),
    Duration::from_secs(1),
];

/// How many Events may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Certificates are being written.
    Busy,
    /// There is nothing else to do.
    Quiet,
    /// This is the last chance.
    Hurry,
}

/// Something that happened, as it waits to be told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) lane: Lane,
    pub(super) type_: EventType,
    pub(super) subject: Subject,
    pub(super) reason: Box<str>,
    pub(super) action: Box<str>,
    pub(super) note: Box<str>,
    /// When it happened.
    pub(super) at: Timestamp,
    /// What tells its Event from others of the same object; given by the outbox unless it is given
    /// already. Attempts to publish it again find by it what an earlier one has done.
    pub(super) stamp: Option<u64>,
    /// Whether it may be counted on an Event that says the same.
    pub(super) counts: bool,
    /// How often it was tried to publish it.
    pub(super) attempts: u32,
}

impl Told {
    /// The memory it takes.
    fn bytes(&self) -> usize {
        let texts = self.reason.len() + self.action.len() + self.note.len();
        size_of::<Self>() + texts + self.subject.bytes()
    }
}

/// What is to be done now.
#[derive(Debug)]
pub(super) enum Next {
    /// Publish this.
    Send(Box<Told>),
    /// Ask again at this time.
    At(Instant),
    /// Nothing waits; `true` where nothing will come any more.
    Nothing(bool),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    lanes: [Waiting; 3],
    /// When the last one went.
    last: Option<Instant>,
    /// Nothing goes before, since the API server takes none.
    not_before: Option<Instant>,
    last_stamp: u64,
    closed: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    told: VecDeque<Box<Told>>,
    bytes: usize,
    /// Something was dropped since it was empty.
    overflown: bool,
}

impl Outbox {
    /// Takes one in.
    ///
    /// # Errors
    /// Where there is no room for it; `true` for the first one of many.
    pub(super) fn put(&mut self, mut told: Told) -> Result<(), bool> {
        let lane = told.lane as usize;
        let waiting = &mut self.lanes[lane];
        if waiting.bytes + told.bytes() > ROOM[lane] {
            return Err(!std::mem::replace(&mut waiting.overflown, true));
        }
        // Nanoseconds sort by time, and no two are the same.
        let time = u64::try_from(told.at.as_nanosecond()).unwrap_or_default();
        self.last_stamp = time.max(self.last_stamp + 1);
        told.stamp.get_or_insert(self.last_stamp);
        self.put_back(Box::new(told));
        Ok(())
    }

    /// Takes one back in that could not be published. Others go before it: it may be to blame.
    pub(super) fn put_back(&mut self, told: Box<Told>) {
        let waiting = &mut self.lanes[told.lane as usize];
        waiting.bytes += told.bytes();
        waiting.told.push_back(told);
    }

    /// What is to be done at `now`.
    pub(super) fn next(&mut self, now: Instant, pace: Pace) -> Next {
        let Some(lane) = self.lanes.iter().position(|lane| !lane.told.is_empty()) else {
            return Next::Nothing(self.closed);
        };
        let pause = match pace {
            Pace::Hurry => Duration::ZERO,
            Pace::Quiet => QUIET,
            Pace::Busy => BUSY[lane],
        };
        let due = self.last.map_or(now, |last| last + pause);
        let due = self.not_before.map_or(due, |at| at.max(due));
        if due > now {
            return Next::At(due);
        }
        let waiting = &mut self.lanes[lane];
        let Some(told) = waiting.told.pop_front() else {
            return Next::Nothing(self.closed);
        };
        waiting.bytes -= told.bytes();
        if waiting.told.is_empty() {
            *waiting = Waiting::default();
        }
        self.last = Some(now);
        Next::Send(told)
    }

    /// The API server takes none at the moment. Returns whether that is news.
    pub(super) fn pause_until(&mut self, at: Instant) -> bool {
        let before = self.not_before.replace(at);
        before.is_none()
    }

    /// The API server takes them. Returns whether that is news.
    pub(super) fn go_on(&mut self) -> bool {
        self.not_before.take().is_some()
    }

    /// Nothing comes any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }
}

#[cfg(test)]
pub(super) mod tests;
