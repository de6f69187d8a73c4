//! Publishes what waits, one after the other, as long as this replica leads.

use super::decision::LIFE;
use super::outbox::{Next, Pace, Told};
use super::recent::{Published, Recent};
use super::send::{Outcome, send};
use crate::controller::context::Context;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// How many are under way at once, where the API server takes its time.
const AT_ONCE: usize = 16;
/// The first pause when the API server takes none, doubled up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(8);

/// Publishes Events until `stop`, and then without any pause what is left, until
/// [`close`](super::Events::close). The Events say that they are from pod `reporter`.
pub(in crate::controller) async fn publish(
    context: Arc<Context>,
    reporter: String,
    stop: CancellationToken,
) {
    let retell = async {
        tokio::select! {
            () = context.requests_filled.wait() => context.events.retell(&context, Timestamp::now()),
            () = stop.cancelled() => {}
        }
    };
    tokio::join!(retell, run(&context, &reporter, &stop));
}

async fn run(context: &Context, reporter: &str, stop: &CancellationToken) {
    let events = &context.events;
    let mut recent = Recent::default();
    let mut under_way = FuturesUnordered::new();
    // What is left is another leader's.
    while context.leadership.leads() {
        let hurries = stop.is_cancelled();
        let mut wake = None;
        while under_way.len() < AT_ONCE {
            let pace = match hurries {
                true => Pace::Hurry,
                false if context.is_writing() => Pace::Busy,
                false => Pace::Quiet,
            };
            match events.next(pace) {
                Next::Send(told) => {
                    let same = recent.find(&told, Instant::now());
                    under_way.push(attempt(context, reporter, told, same));
                }
                Next::At(at) => {
                    wake = Some(at);
                    break;
                }
                Next::Nothing(true) if under_way.is_empty() => return,
                Next::Nothing(_) => break,
            }
        }
        tokio::select! {
            Some((told, outcome)) = under_way.next() => {
                settle(context, &mut recent, told, outcome, hurries);
            }
            () = events.changed.notified() => {}
            () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => {}
            // Whatever was waited for, there is no more time for that.
            () = stop.cancelled(), if !hurries => drop(events.outbox().go_on()),
        }
    }
}

async fn attempt(
    context: &Context,
    reporter: &str,
    told: Box<Told>,
    same: Option<Published>,
) -> (Box<Told>, Outcome) {
    let outcome = send(&context.client, reporter, &told, same).await;
    (told, outcome)
}

fn settle(
    context: &Context,
    recent: &mut Recent,
    mut told: Box<Told>,
    outcome: Outcome,
    hurries: bool,
) {
    let events = &context.events;
    let now = Instant::now();
    match outcome {
        Outcome::Published(published) => {
            recent.note(&told, published, now);
            if events.outbox().go_on() {
                info!("Events can be published again");
            }
        }
        Outcome::Refused(error) => {
            warn!(reason = %told.reason, %error, "an Event was refused, and is not published");
        }
        Outcome::Again(error) if Timestamp::now().duration_since(told.at) > LIFE => {
            events.dropped.inc();
            warn!(reason = %told.reason, %error, "an Event is an hour old, and is not published");
        }
        Outcome::Again(error) => {
            let longest = if hurries { SHORTEST } else { LONGEST };
            let pause = SHORTEST * 2_u32.pow(told.attempts.min(5));
            let pause = pause.min(longest).mul_f64(rand::random_range(0.75..1.25));
            told.attempts += 1;
            let mut outbox = events.outbox();
            outbox.put_back(told);
            if outbox.pause_until(now + pause) {
                warn!(%error, "Events cannot be published now; this is tried again");
            }
        }
    }
}
