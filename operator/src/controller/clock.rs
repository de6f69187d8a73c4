//! Whether this machine's clock can be believed, before something is done that cannot be undone.

use super::error::chain;
use axum::http::header::DATE;
use axum::http::{HeaderMap, Request};
use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::client::Body;

/// How far both clocks may be apart: as far as certificates are backdated.
const TOLERANCE: SignedDuration = crate::pki::BACKDATE;

/// What every API server answers, whoever asks; it says its time even where it refuses.
const ASKED: &str = "/version";

/// Why the time is not certain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Uncertain {
    /// The clocks differ.
    #[error(
        "the clock of the controller's node says {here}, and that of the API server {there}: set \
         the one that is wrong"
    )]
    Apart {
        /// This machine's time.
        here: Timestamp,
        /// The API server's.
        there: Timestamp,
    },
    /// The API server did not answer.
    #[error(
        "the time of the controller's node cannot be compared with that of the API server: {0}"
    )]
    Unanswered(String),
    /// It did not say when.
    #[error(
        "the time of the controller's node cannot be compared with that of the API server, whose \
         answers carry no Date that can be read (RFC 9110, section 6.6.1)"
    )]
    Undated,
}

/// The time, where this machine's clock and the API server's agree to within [`TOLERANCE`]; of both,
/// the earlier one. For what cannot be undone and depends on the time: a clock that runs ahead makes
/// everything look expired, and what was thrown away for it is gone when the clock is right again.
///
/// # Errors
/// [`Uncertain`] says what to mend. What was to be done waits.
pub(super) async fn certain(client: &Client) -> Result<Timestamp, Uncertain> {
    let before = Timestamp::now();
    let request = Request::get(ASKED).body(Body::empty());
    let request = request.map_err(|error| Uncertain::Unanswered(chain(&error)))?;
    let answer = client.send(request).await;
    let answer = answer.map_err(|error| Uncertain::Unanswered(chain(&error)))?;
    compare(before, date_of(answer.headers()), Timestamp::now())
}

/// The `Date` of an answer; it is in whole seconds.
fn date_of(headers: &HeaderMap) -> Option<Timestamp> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let date = rfc2822::DateTimeParser::new().parse_timestamp(date);
    date.ok()
}

/// `there` was said at some moment between `before` and `after`.
fn compare(
    before: Timestamp,
    there: Option<Timestamp>,
    after: Timestamp,
) -> Result<Timestamp, Uncertain> {
    let there = there.ok_or(Uncertain::Undated)?;
    let apart = before.duration_since(there) > TOLERANCE || there.duration_since(after) > TOLERANCE;
    if apart {
        let here = Timestamp::from_second(after.as_second()).unwrap_or(after);
        return Err(Uncertain::Apart { here, there });
    }
    Ok(before.min(there))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{Response, StatusCode};
    use std::convert::Infallible;
    use tower::service_fn;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// An API server that refuses everything, and sends this header.
    fn api_server(date: Option<String>) -> Client {
        let answer = move |request: Request<Body>| {
            assert_eq!(
                (request.method().as_str(), request.uri().path()),
                ("GET", ASKED)
            );
            let mut answer = Response::builder().status(StatusCode::FORBIDDEN);
            if let Some(date) = &date {
                answer = answer.header(DATE, date);
            }
            std::future::ready(Ok::<_, Infallible>(answer.body(Body::empty()).unwrap()))
        };
        Client::new(service_fn(answer), "default")
    }

    fn date(ahead: SignedDuration) -> String {
        let then = Timestamp::now() + ahead;
        let printer = rfc2822::DateTimePrinter::new();
        printer.timestamp_to_rfc9110_string(&then).unwrap()
    }

    #[tokio::test]
    async fn a_clock_is_believed_that_agrees_with_the_api_server() {
        let minutes = SignedDuration::from_mins;
        for ahead in [0, 4, -4].map(minutes) {
            let now = Timestamp::now();
            let certain = certain(&api_server(Some(date(ahead)))).await.unwrap();
            let second = SignedDuration::from_secs(1);
            assert!(
                certain <= now + second,
                "{ahead}: the earlier one, not {certain}"
            );
            assert!(
                certain >= now + ahead.min(SignedDuration::ZERO) - second,
                "{ahead}: {certain}"
            );
        }
        for ahead in [minutes(6), minutes(-6), SignedDuration::from_hours(-8760)] {
            let error = certain(&api_server(Some(date(ahead)))).await.unwrap_err();
            let Uncertain::Apart { here, there } = error else {
                panic!("{ahead}: {error}");
            };
            let found = there.duration_since(here) - ahead;
            assert!(found.abs() < minutes(1), "{ahead}: {found}");
        }
    }

    #[tokio::test]
    async fn an_answer_without_a_date_proves_nothing() {
        for date in [None, Some("yesterday".to_owned())] {
            let error = certain(&api_server(date)).await.unwrap_err();
            assert_eq!(error, Uncertain::Undated);
        }
        let away = |_: Request<Body>| async { Err::<Response<Body>, _>("no route to host") };
        let error = certain(&Client::new(service_fn(away), "default"))
            .await
            .unwrap_err();
        assert!(error.to_string().contains("no route to host"), "{error}");
    }

    #[test]
    fn a_slow_answer_proves_as_much_as_a_quick_one() {
        let (before, after) = (at("2026-06-01T12:00:00Z"), at("2026-06-01T13:00:00Z"));
        for (there, agrees) in [
            ("2026-06-01T11:54:59Z", false),
            ("2026-06-01T11:55:00Z", true),
            ("2026-06-01T12:30:00Z", true),
            ("2026-06-01T13:05:00Z", true),
            ("2026-06-01T13:05:01Z", false),
        ] {
            let found = compare(before, Some(at(there)), after);
            assert_eq!(found.is_ok(), agrees, "{there}: {found:?}");
        }
    }

    #[test]
    fn the_message_says_both_times_and_what_to_do() {
        let (here, there) = (at("2027-06-01T12:00:00Z"), at("2026-06-01T12:00:00Z"));
        let message = compare(here, Some(there), here).unwrap_err().to_string();
        for words in [
            "2027-06-01T12:00:00Z",
            "2026-06-01T12:00:00Z",
            "set the one",
        ] {
            assert!(message.contains(words), "{message}");
        }
    }
}
