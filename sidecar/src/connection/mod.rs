//! The connection the sidecar holds: opened, watched, opened again, closed.

pub mod address;
mod dial;
mod error;
mod tls;

use crate::credentials::Credentials;
use crate::state::Link;
use address::Address;
use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use dial::{Opened, dial};
use error::DialError;
use futures::{Stream, StreamExt as _};
use lapin::Event;
use prometheus_client::metrics::counter::Counter;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::{interval, sleep, timeout};
use tracing::{debug, warn};

/// A connection that lasted this long was a good one: the next attempt comes soon.
const STABLE: Duration = Duration::from_secs(10);
/// How long a clean close may take.
const CLOSE: Duration = Duration::from_secs(5);
/// The pace at which the connection's state is looked at, besides the events it sends.
const LOOK: Duration = Duration::from_secs(2);
/// AMQP 0-9-1 reply code of an ordinary close.
const REPLY_SUCCESS: u16 = 200;

/// Where to connect, and with what.
#[derive(Clone, Debug)]
pub struct Target {
    /// The broker.
    pub address: Address,
    /// Our certificate and the CAs to trust.
    pub credentials: Credentials,
}

/// Delays between attempts: from 0.5 s, doubling, up to 30 s with their jitter.
#[must_use]
pub fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(500))
        .with_max_delay(Duration::from_secs(15))
        .with_jitter()
        .without_max_times()
        .build()
}

/// Keeps a connection to the target open while there is one, and says in `link` how that goes.
///
/// An open connection is left alone when the target changes: the next one goes to the new target.
/// Without a target the connection is closed. Ends, the connection closed, when the sender of
/// `target` is dropped.
pub async fn hold(
    mut target: watch::Receiver<Option<Arc<Target>>>,
    link: watch::Sender<Link>,
    name: String,
    reconnects: Counter,
) {
    let mut delays = backoff();
    let mut opened_before = false;
    let mut trouble = None;
    loop {
        // Also where the sender went away while the connection was open.
        if target.has_changed().is_err() {
            return;
        }
        let wanted = target.borrow_and_update().clone();
        let Some(wanted) = wanted else {
            link.send_replace(Link::Idle);
            trouble = None;
            delays = backoff();
            match target.changed().await {
                Ok(()) => continue,
                Err(_) => return,
            }
        };
        link.send_replace(Link::Opening(trouble.take()));
        let dialled = tokio::select! {
            dialled = dial(&wanted, &name) => dialled,
            // A new target is dialled at once; without one the attempt is given up.
            changed = target.changed() => match changed {
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        let error = match dialled {
            Ok(opened) => {
                if opened_before {
                    reconnects.inc();
                }
                opened_before = true;
                let since = Instant::now();
                let ended = stay(&opened, &mut target, &link).await;
                if since.elapsed() >= STABLE {
                    delays = backoff();
                }
                let Some(error) = ended else {
                    close(opened).await;
                    continue;
                };
                error
            }
            Err(error) => error,
        };
        debug!(error = &error as &dyn std::error::Error, "no connection");
        let words = error.to_string();
        link.send_replace(Link::Opening(Some(words.clone())));
        trouble = Some(words);
        let delay = delays.next().unwrap_or(STABLE);
        tokio::select! {
            () = sleep(delay) => {}
            changed = target.changed() => match changed {
                Ok(()) => delays = backoff(),
                Err(_) => return,
            },
        }
    }
}

/// Waits for the end of an open connection: `Some` where it ended by itself, `None` where it is
/// not wanted any more.
async fn stay(
    opened: &Opened,
    target: &mut watch::Receiver<Option<Arc<Target>>>,
    link: &watch::Sender<Link>,
) -> Option<DialError> {
    let connection = &opened.connection;
    let mut events = pin!(connection.events_listener());
    link.send_replace(Link::Open(None));
    let mut look = interval(LOOK);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(Event::ConnectionBlocked(why)) => {
                    link.send_replace(Link::Open(Some(why)));
                }
                Some(Event::ConnectionUnblocked) => {
                    link.send_replace(Link::Open(None));
                }
                Some(Event::Error(error)) => return Some(error.into()),
                Some(_) => {}
                None => return Some(gone()),
            },
            _ = look.tick() => {
                if !connection.status().connected() {
                    return Some(last_error(events.as_mut()).await);
                }
            }
            changed = target.changed() => {
                if changed.is_err() || target.borrow_and_update().is_none() {
                    return None;
                }
            }
        }
    }
}

/// What ended a connection that was found ended: the error is on its way, if there is one.
async fn last_error(mut events: impl Stream<Item = Event> + Unpin) -> DialError {
    let error = async {
        while let Some(event) = events.next().await {
            if let Event::Error(error) = event {
                return error.into();
            }
        }
        gone()
    };
    timeout(Duration::from_millis(500), error)
        .await
        .unwrap_or_else(|_| gone())
}

fn gone() -> DialError {
    DialError::Closed("without a reason".to_owned())
}

/// Closes with `Connection.Close`, and waits for the answer for a while.
async fn close(opened: Opened) {
    let closing = opened.connection.close(REPLY_SUCCESS, "OK".into());
    match timeout(CLOSE, closing).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "the connection was closed already"),
        Err(_) => warn!("the broker did not confirm the end of the connection"),
    }
}

#[cfg(test)]
mod tests;
