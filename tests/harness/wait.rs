//! Waiting for conditions. Nothing here sleeps for a fixed time: it asks, and asks again.

use std::time::{Duration, Instant};

/// Enough for what takes a moment, on a machine that is busy.
pub const SOON: Duration = Duration::from_secs(30);

const SHORTEST_PAUSE: Duration = Duration::from_millis(40);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// Asks `check` until it is `Ok`; panics with its last `Err` when `limit` is over.
#[track_caller]
pub fn eventually<T, F>(
    what: &str,
    limit: Duration,
    check: impl FnMut() -> F,
) -> impl Future<Output = T>
where
    F: Future<Output = Result<T, String>>,
{
    let place = std::panic::Location::caller();
    async move {
        match attempt(limit, check).await {
            Ok(value) => value,
            Err(last) => panic!("{place}: {what}: not within {limit:?}; the last time: {last}"),
        }
    }
}

/// Like [`eventually`], and leaves it to the caller to complain.
pub(crate) async fn attempt<T, F>(
    limit: Duration,
    mut check: impl FnMut() -> F,
) -> Result<T, String>
where
    F: Future<Output = Result<T, String>>,
{
    let end = Instant::now() + limit;
    let mut pause = SHORTEST_PAUSE;
    loop {
        match check().await {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() >= end => return Err(last),
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}
