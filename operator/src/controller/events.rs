//! Events, published beside the work: they never hold it up.

use crate::leadership::Leadership;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Resource, ResourceExt};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::warn;

/// Events that wait to be published. When there are more, new ones are dropped: they tell a story
/// that conditions tell as well.
const QUEUE: usize = 16_384;
/// The pause between two Events: a flood of them must not take the API server's time from the work
/// they tell of. The first [`BURST`] after a quiet time are published at once.
const PAUSE: Duration = Duration::from_millis(40);
const BURST: u32 = 50;

/// Publishes Events in the background.
#[derive(Clone)]
pub(super) struct Events {
    queue: mpsc::Sender<(Event, ObjectReference)>,
}

impl Events {
    /// Starts publishing with `recorder`, one Event at a time, as long as this replica leads.
    pub(super) fn spawn(recorder: Recorder, leadership: Leadership) -> Self {
        let (queue, mut waiting) = mpsc::channel::<(Event, ObjectReference)>(QUEUE);
        tokio::spawn(async move {
            let mut pace = Pace::new(Instant::now());
            while let Some((event, regarding)) = waiting.recv().await {
                tokio::time::sleep_until(pace.next(Instant::now())).await;
                if !leadership.leads() {
                    return;
                }
                if let Err(error) = recorder.publish(&event, &regarding).await {
                    warn!(reason = %event.reason, %error, "an Event could not be published");
                }
            }
        });
        Self { queue }
    }

    /// Something went as it should.
    pub(super) fn normal<K>(&self, object: &K, reason: &str, action: &str, note: String)
    where
        K: Resource<DynamicType = ()>,
    {
        self.publish(
            EventType::Normal,
            object.object_ref(&()),
            reason,
            action,
            note,
        );
    }

    /// Something needs a look.
    pub(super) fn warning<K>(&self, object: &K, reason: &str, action: &str, note: String)
    where
        K: Resource<DynamicType = ()>,
    {
        self.publish(
            EventType::Warning,
            object.object_ref(&()),
            reason,
            action,
            note,
        );
    }

    /// Something needs a look at an object that is known by name only.
    pub(super) fn warning_about(
        &self,
        regarding: ObjectReference,
        reason: &str,
        action: &str,
        note: String,
    ) {
        self.publish(EventType::Warning, regarding, reason, action, note);
    }

    fn publish(
        &self,
        type_: EventType,
        regarding: ObjectReference,
        reason: &str,
        action: &str,
        note: String,
    ) {
        // The API allows 1024 bytes (events.k8s.io/v1, `note`).
        let note = note.chars().take(1000).collect();
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        if self.queue.try_send((event, regarding)).is_err() {
            warn!(%reason, "too many Events wait; one was dropped");
        }
    }
}

/// Spaces Events: a bucket of [`BURST`] tokens that is filled by one each [`PAUSE`].
struct Pace {
    /// When the bucket would be full again.
    full_at: Instant,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// When the next Event may go.
    fn next(&mut self, now: Instant) -> Instant {
        self.full_at = self.full_at.max(now) + PAUSE;
        self.full_at
            .checked_sub(PAUSE * BURST)
            .unwrap_or(now)
            .max(now)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_a_flood_is_spread() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        let times: Vec<_> = (0..BURST + 25).map(|_| pace.next(now)).collect();
        assert!(times[..50].iter().all(|at| *at == now));
        assert_eq!(times[74], now + PAUSE * 25);
        let later = now + Duration::from_mins(1);
        assert_eq!(pace.next(later), later, "a quiet minute fills the bucket");
    }
}
