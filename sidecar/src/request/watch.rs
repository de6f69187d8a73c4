//! Watches one object for as long as the sidecar lives, whatever happens to the API server.

use super::file::describe;
use futures::{StreamExt, TryStreamExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tracing::{info, warn};

/// A watch call ends after this many seconds and a new one goes on where it ended. It bounds how
/// long a connection that died without a word goes unnoticed.
const WATCH_SECONDS: u32 = 120;

/// What was last seen of an object.
#[derive(Debug)]
pub struct Seen<K> {
    /// The object; `None` before the first answer.
    pub object: Option<Presence<K>>,
    /// Why nothing newer can be seen at the moment.
    pub trouble: Option<String>,
}

/// Whether an object exists.
#[derive(Debug)]
pub enum Presence<K> {
    /// There is no object of this name.
    Absent,
    /// The object as it was last seen.
    Present(Arc<K>),
}

impl<K> Seen<K> {
    /// The object, where it exists.
    #[must_use]
    pub fn present(&self) -> Option<&K> {
        match &self.object {
            Some(Presence::Present(object)) => Some(object),
            _ => None,
        }
    }
}

impl<K> Clone for Presence<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Absent => Self::Absent,
            Self::Present(object) => Self::Present(Arc::clone(object)),
        }
    }
}

impl<K> Clone for Seen<K> {
    fn clone(&self) -> Self {
        Self {
            object: self.object.clone(),
            trouble: self.trouble.clone(),
        }
    }
}

impl<K> Default for Seen<K> {
    fn default() -> Self {
        Self {
            object: None,
            trouble: None,
        }
    }
}

/// Watches the object `name`; the watch ends when the receiver is dropped.
#[must_use]
pub fn object<K>(api: Api<K>, name: &str) -> watch::Receiver<Seen<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (sender, receiver) = watch::channel(Seen::default());
    let name = name.to_owned();
    tokio::spawn(async move {
        tokio::select! {
            () = follow(api, &name, &sender) => {}
            () = sender.closed() => {}
        }
    });
    receiver
}

async fn follow<K>(api: Api<K>, name: &str, seen: &watch::Sender<Seen<K>>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let config = watcher::Config::default()
        .fields(&format!("metadata.name={name}"))
        .timeout(WATCH_SECONDS);
    let mut events = watcher(api, config).default_backoff().into_stream().boxed();
    let kind = K::kind(&());
    let mut listed = false;
    let mut last_trouble: Option<(Instant, String)> = None;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                // `Init` only announces a list, which may fail.
                if !matches!(event, Event::Init) && seen.borrow().trouble.is_some() {
                    info!(%kind, %name, "watching again");
                }
                match event {
                    Event::Init => listed = false,
                    Event::InitApply(object) => {
                        listed = true;
                        saw(seen, Presence::Present(Arc::new(object)));
                    }
                    Event::InitDone if listed => saw_nothing_new(seen),
                    Event::Apply(object) => saw(seen, Presence::Present(Arc::new(object))),
                    Event::InitDone | Event::Delete(_) => saw(seen, Presence::Absent),
                }
            }
            // The API server forgot where we were, and the watcher lists again by itself.
            Err(watcher::Error::WatchError(status)) if status.code == 410 => {}
            Err(error) => {
                let trouble = explain(&error);
                // A watch that goes on without news says nothing, so an old trouble may be over.
                let known = last_trouble.as_ref().is_some_and(|(at, text)| {
                    *text == trouble && at.elapsed() < Duration::from_secs(u64::from(WATCH_SECONDS))
                });
                if !known {
                    warn!(%kind, %name, error = %trouble, "cannot watch; trying again");
                }
                last_trouble = Some((Instant::now(), trouble.clone()));
                seen.send_if_modified(|seen| {
                    let news = seen.trouble.as_ref() != Some(&trouble);
                    seen.trouble = Some(trouble);
                    news
                });
            }
        }
    }
}

fn saw<K>(seen: &watch::Sender<Seen<K>>, object: Presence<K>) {
    seen.send_modify(|seen| {
        seen.object = Some(object);
        seen.trouble = None;
    });
}

fn saw_nothing_new<K>(seen: &watch::Sender<Seen<K>>) {
    seen.send_if_modified(|seen| seen.trouble.take().is_some());
}

fn explain(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => describe(error),
        watcher::Error::WatchError(status) => status.message.clone(),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}
