//! Events, published beside the work: they never hold it up.
//!
//! What happened waits in an [`Outbox`], what people have to know first. Decisions are told for
//! certain: an outage is waited for, a leader that is asked to stop tells what it has left, and the
//! next one tells again what was decided shortly before it. What else went as it should may be
//! dropped where there is too much of it; conditions say it as well.

mod decision;
mod object;
mod outbox;
mod publish;
mod recent;
mod send;

use super::text::shortened;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::EventType;
use kube::{Resource, ResourceExt};
use object::Subject;
use outbox::{Lane, Next, Outbox, Pace, Told};
use prometheus_client::metrics::counter::Counter;
pub(super) use publish::publish;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{debug, warn};

/// The most bytes of a note (events.k8s.io/v1).
const NOTE: usize = 1024;

/// Takes Events, which [`publish`] publishes.
#[derive(Clone)]
pub(super) struct Events {
    outbox: Arc<Mutex<Outbox>>,
    changed: Arc<Notify>,
    /// Counts Events that are not published, because there were too many, or not in time.
    dropped: Counter,
}

impl Events {
    pub(super) fn new(dropped: Counter) -> Self {
        Self {
            outbox: Arc::new(Mutex::new(Outbox::default())),
            changed: Arc::default(),
            dropped,
        }
    }

    /// Something went as it should.
    pub(super) fn normal<K>(&self, object: &K, reason: &str, action: &str, note: String)
    where
        K: Resource<DynamicType = ()>,
    {
        let subject = Subject::of(object);
        self.tell(Lane::Rest, EventType::Normal, subject, reason, action, note);
    }

    /// Something needs a look, soon.
    pub(super) fn warning<K>(&self, object: &K, reason: &str, action: &str, note: String)
    where
        K: Resource<DynamicType = ()>,
    {
        let (lane, type_) = (Lane::First, EventType::Warning);
        self.tell(lane, type_, Subject::of(object), reason, action, note);
    }

    /// Something needs a look of whoever brought it about. Any requester can raise as many of these
    /// as it likes, so that nothing else waits for them.
    pub(super) fn minor_warning<K>(&self, object: &K, reason: &str, action: &str, note: String)
    where
        K: Resource<DynamicType = ()>,
    {
        let (lane, type_) = (Lane::Rest, EventType::Warning);
        self.tell(lane, type_, Subject::of(object), reason, action, note);
    }

    /// Something needs a look at an object that is known by name only. It goes with decisions.
    pub(super) fn warning_about(
        &self,
        regarding: ObjectReference,
        reason: &str,
        action: &str,
        note: String,
    ) {
        let Some(subject) = Subject::named(regarding) else {
            debug!(%reason, "no object can have the name that an Event is to be about");
            return;
        };
        let (lane, type_) = (Lane::Decisions, EventType::Warning);
        self.tell(lane, type_, subject, reason, action, note);
    }

    /// Nothing is told any more after this.
    pub(super) fn close(&self) {
        self.outbox().close();
        self.changed.notify_one();
    }

    fn tell(
        &self,
        lane: Lane,
        type_: EventType,
        subject: Subject,
        reason: &str,
        action: &str,
        note: String,
    ) {
        self.put(Told {
            lane,
            type_,
            subject,
            reason: reason.into(),
            action: action.into(),
            note: shortened(note, NOTE).into(),
            at: Timestamp::now(),
            stamp: None,
            counts: true,
            attempts: 0,
        });
    }

    fn put(&self, told: Told) {
        if let Err(first) = self.outbox().put(told) {
            self.dropped.inc();
            if first {
                warn!("too many Events wait; some are dropped, see volttron_events_dropped_total");
            }
            return;
        }
        self.changed.notify_one();
    }

    fn next(&self, pace: Pace) -> Next {
        self.outbox().next(Instant::now(), pace)
    }

    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `namespace/name` of an object, for logs and messages.
pub(super) fn full_name(object: &impl ResourceExt) -> String {
    format!(
        "{}/{}",
        object.namespace().unwrap_or_default(),
        object.name_any()
    )
}
