//! Notices at once when a policy or a binding changes. One watch each, by name, so that the
//! controller needs to see no other policy of the cluster.

use super::guards;
use futures::StreamExt;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::pin::pin;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// What a watch has told.
#[derive(Debug)]
pub(super) enum Change {
    /// A policy or binding was made or changed.
    Made,
    /// One is gone; the text says which.
    Removed(String),
}

/// What the watches have told since the last proof.
pub(super) struct Changes {
    told: UnboundedReceiver<Change>,
    /// One of them was taken from `told` already.
    is_any: bool,
}

impl Changes {
    /// Watches until `stop`.
    pub(super) fn watch(client: &Client, stop: &CancellationToken) -> Self {
        let (tell, told) = unbounded_channel();
        for name in guards::names() {
            let (client, tell, stop) = (client.clone(), tell.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::join!(
                    follow::<ValidatingAdmissionPolicy>(client.clone(), name, &tell, stop.clone()),
                    follow::<ValidatingAdmissionPolicyBinding>(client, name, &tell, stop),
                );
            });
        }
        Self {
            told,
            is_any: false,
        }
    }

    /// Forgets the changes so far; the next proof sees what they have made.
    pub(super) fn forget(&mut self) {
        self.is_any = false;
        while self.told.try_recv().is_ok() {}
    }

    /// Whether something has changed since.
    pub(super) fn any(&self) -> bool {
        self.is_any || !self.told.is_empty()
    }

    /// Waits for a change.
    pub(super) async fn next(&mut self) -> Change {
        match self.told.recv().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }

    /// Waits until a policy or binding is gone; says which.
    pub(super) async fn removal(&mut self) -> String {
        loop {
            let change = self.next().await;
            self.is_any = true;
            if let Change::Removed(which) = change {
                return which;
            }
        }
    }
}

async fn follow<K>(
    client: Client,
    name: &'static str,
    tell: &UnboundedSender<Change>,
    stop: CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let events = watcher(Api::<K>::all(client), config)
        .default_backoff()
        .take_until(stop.cancelled_owned());
    let mut events = pin!(events);
    let gone = || {
        // The loop ends only with the program.
        let _ = tell.send(Change::Removed(format!(
            "{} {name} has been removed",
            K::kind(&())
        )));
    };
    let (mut known, mut listed) = (false, false);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed = false,
            Ok(Event::InitApply(_)) => listed = true,
            Ok(Event::Apply(_)) => {
                known = true;
                let _ = tell.send(Change::Made);
            }
            // It went, or was replaced, while nobody watched.
            Ok(Event::InitDone) => {
                if known && !listed {
                    gone();
                }
                known = listed;
                let _ = tell.send(Change::Made);
            }
            Ok(Event::Delete(_)) => {
                known = false;
                gone();
            }
            // Said once, by the proof, which reads the same objects.
            Err(error) => debug!(kind = %K::kind(&()), %name, %error, "watch interrupted"),
        }
    }
}
