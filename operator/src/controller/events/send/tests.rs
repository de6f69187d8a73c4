use super::super::outbox::tests::told;
use super::*;
use axum::http::{Method, Request, Response};
use kube::client::Body;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use tower::service_fn;

/// What was asked, and an API server that gives these answers.
type Asked = Arc<Mutex<Vec<String>>>;

fn server(answers: &[u16]) -> (Client, Asked) {
    let asked = Asked::default();
    let noted = asked.clone();
    let answers = Arc::new(Mutex::new(answers.to_vec()));
    let service = service_fn(move |request: Request<Body>| {
        let what = format!("{} {}", request.method(), request.uri().path());
        noted.lock().unwrap().push(what);
        let code = answers.lock().unwrap().remove(0);
        let created = request.method() == Method::POST || request.method() == Method::PATCH;
        assert!(created, "{request:?}");
        let body = if code < 300 {
            json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {}})
        } else {
            json!({
                "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
                "message": "", "reason": "", "code": code,
            })
        };
        let answer = Response::builder().status(code);
        let answer = answer.body(Body::from(body.to_string().into_bytes()));
        std::future::ready(Ok::<_, Infallible>(answer.unwrap()))
    });
    (Client::new(service, "default"), asked)
}

async fn outcome(answers: &[u16], same: Option<Published>) -> (Outcome, Vec<String>) {
    let (client, asked) = server(answers);
    let mut told = told("agent", "lost");
    told.stamp = Some(0xab);
    let outcome = send(&client, "pod", &told, same).await;
    let asked = asked.lock().unwrap().clone();
    (outcome, asked)
}

const CREATE: &str = "POST /apis/events.k8s.io/v1/namespaces/plant/events";
const COUNT: &str = "PATCH /apis/events.k8s.io/v1/namespaces/plant/events/agent.0000000000000007";

#[tokio::test]
async fn an_event_that_is_there_already_is_published() {
    let own = Published {
        stamp: 0xab,
        count: 1,
    };
    for code in [201, 409] {
        let (outcome, asked) = outcome(&[code], None).await;
        assert!(
            matches!(outcome, Outcome::Published(it) if it == own),
            "{code}: {outcome:?}"
        );
        assert_eq!(asked, [CREATE]);
    }
}

#[tokio::test]
async fn an_event_that_says_the_same_counts_it_unless_it_is_gone() {
    let same = Published { stamp: 7, count: 2 };
    let (counted, asked) = outcome(&[200], Some(same)).await;
    let third = Published { stamp: 7, count: 3 };
    assert!(matches!(counted, Outcome::Published(it) if it == third));
    assert_eq!(asked, [COUNT]);
    let (created, asked) = outcome(&[404, 201], Some(same)).await;
    assert!(matches!(created, Outcome::Published(it) if it.stamp == 0xab));
    assert_eq!(asked, [COUNT, CREATE]);
}

#[tokio::test]
async fn what_the_api_server_will_never_take_is_not_tried_again() {
    for code in [400, 403, 404, 422] {
        let (outcome, _) = outcome(&[code], None).await;
        assert!(
            matches!(outcome, Outcome::Refused(_)),
            "{code}: {outcome:?}"
        );
    }
    for code in [401, 429, 500, 503] {
        let (outcome, _) = outcome(&[code], None).await;
        assert!(matches!(outcome, Outcome::Again(_)), "{code}: {outcome:?}");
    }
}
