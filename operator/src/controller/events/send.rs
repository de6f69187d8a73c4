//! One attempt to publish an Event.

use super::object;
use super::outbox::Told;
use super::recent::Published;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::time::Duration;
use tokio::time::timeout;

/// The longest an attempt may take.
const ATTEMPT: Duration = Duration::from_secs(10);

/// What came of an attempt.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is published.
    Published(Published),
    /// It never will be.
    Refused(kube::Error),
    /// It may be, later.
    Again(String),
}

/// Publishes it as an Event of its own, or counts it on the one that says the same.
pub(super) async fn send(
    client: &Client,
    reporter: &str,
    told: &Told,
    same: Option<Published>,
) -> Outcome {
    let events = Api::<Event>::namespaced(client.clone(), &told.subject.namespace);
    let attempt = async {
        if let Some(same) = same
            && let Some(counted) = count(&events, told, same).await?
        {
            return Ok(counted);
        }
        create(&events, reporter, told).await
    };
    match timeout(ATTEMPT, attempt).await {
        Ok(Ok(published)) => Outcome::Published(published),
        Ok(Err(error)) if is_final(&error) => Outcome::Refused(error),
        Ok(Err(error)) => Outcome::Again(error.to_string()),
        Err(_) => Outcome::Again("the API server did not answer".to_owned()),
    }
}

async fn create(events: &Api<Event>, reporter: &str, told: &Told) -> kube::Result<Published> {
    let event = object::event(told, reporter);
    match events.create(&PostParams::default(), &event).await {
        // By an attempt whose answer was lost, or by the leader before.
        Err(error) if has_code(&error, |code| code == 409) => {}
        other => drop(other?),
    }
    Ok(Published {
        stamp: told.stamp.unwrap_or_default(),
        count: 1,
    })
}

/// None where that Event is gone.
async fn count(
    events: &Api<Event>,
    told: &Told,
    same: Published,
) -> kube::Result<Option<Published>> {
    let count = same.count.saturating_add(1);
    let series = json!({"series": {"count": count, "lastObservedTime": MicroTime(told.at)}});
    let (parameters, series) = (PatchParams::default(), Patch::Merge(series));
    let name = told.subject.event_name(same.stamp);
    let patched = events.patch(&name, &parameters, &series);
    match patched.await {
        Err(error) if has_code(&error, |code| code == 404) => Ok(None),
        other => other.map(|_| Some(Published { count, ..same })),
    }
}

/// Whether another attempt would come to the same: the Event is not valid, its namespace is gone,
/// or this account may not write there. Not so when it is not known who asks, when the API server
/// has too much to do, and when there was no answer.
fn is_final(error: &kube::Error) -> bool {
    has_code(error, |code| {
        (400..500).contains(&code) && ![401, 408, 409, 429].contains(&code)
    })
}

fn has_code(error: &kube::Error, is: impl Fn(u16) -> bool) -> bool {
    matches!(error, kube::Error::Api(status) if is(status.code))
}

#[cfg(test)]
mod tests;
