//! Waiting for a condition, with a deadline.

use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(250);

/// What did not happen in time, and how things stood at last.
#[derive(Clone, Debug)]
pub struct TimedOut {
    what: String,
    limit: Duration,
    last: String,
}

impl std::fmt::Display for TimedOut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, seconds, last) = (&self.what, self.limit.as_secs(), &self.last);
        write!(f, "not within {seconds} s: {what}. At last: {last}")
    }
}

impl std::error::Error for TimedOut {}

/// Asks until `check` is content; its error is how things stand.
///
/// # Errors
/// [`TimedOut`] with the last answer.
pub fn eventually<T>(
    what: &str,
    limit: Duration,
    mut check: impl FnMut() -> Result<T, String>,
) -> Result<T, TimedOut> {
    let end = Instant::now() + limit;
    loop {
        let last = match check() {
            Ok(found) => return Ok(found),
            Err(last) => last,
        };
        if Instant::now() >= end {
            let what = what.to_owned();
            return Err(TimedOut { what, limit, last });
        }
        std::thread::sleep(PAUSE);
    }
}
