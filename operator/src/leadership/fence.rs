//! Keeps a replica that does not lead from writing to the API server.

use super::Leadership;
use axum::http::{Method, Request};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::task::{Context, Poll};
use tower::{BoxError, Layer, Service};

/// Why a write was not sent.
#[derive(Debug, thiserror::Error)]
#[error("this replica no longer leads, and writes nothing")]
struct NotLeading;

/// A layer for a client that is used in one term: it lets writes through only while the term lasts.
pub fn fence(leadership: &Leadership) -> Fence {
    Fence(leadership.clone())
}

/// See [`fence`].
#[derive(Clone, Debug)]
pub struct Fence(Leadership);

/// See [`fence`].
#[derive(Clone, Debug)]
pub struct Fenced<S> {
    inner: S,
    leadership: Leadership,
}

impl<S> Layer<S> for Fence {
    type Service = Fenced<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Fenced {
            inner,
            leadership: self.0.clone(),
        }
    }
}

impl<S, B> Service<Request<B>> for Fenced<S>
where
    S: Service<Request<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    S::Response: 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !changes_something(&request) {
            return self
                .inner
                .call(request)
                .map(|r| r.map_err(Into::into))
                .boxed();
        }
        if !self.leadership.leads() {
            return async { Err(NotLeading.into()) }.boxed();
        }
        let leadership = self.leadership.clone();
        let answer = self.inner.call(request);
        async move {
            let answer = leadership.while_it_lasts(answer).await;
            answer.ok_or(NotLeading)?.map_err(Into::into)
        }
        .boxed()
    }
}

/// Whether a request can change anything in the cluster. A dry run cannot, nor the question who
/// one is.
fn changes_something<B>(request: &Request<B>) -> bool {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let query = request.uri().query().unwrap_or_default();
    let dry_run = query.split('&').any(|pair| pair == "dryRun=All");
    let asks = request.uri().path().ends_with("/selfsubjectreviews");
    !(reads || dry_run || asks)
}

#[cfg(test)]
mod tests {
    use super::super::now;
    use super::*;
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::Duration;
    use tower::service_fn;

    fn request(method: &Method, uri: &str) -> Request<()> {
        let request = Request::builder().method(method).uri(uri);
        request.body(()).unwrap()
    }

    const SECRETS: &str = "/api/v1/namespaces/plant/secrets";

    #[tokio::test]
    async fn only_a_leader_writes() {
        let leadership = Leadership::until(now() + Duration::from_hours(1));
        let sent = Arc::new(AtomicUsize::new(0));
        let server = service_fn(|_: Request<()>| {
            sent.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok::<_, Infallible>(()))
        });
        let mut fenced = fence(&leadership).layer(server);
        let writes = [Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
        for method in &writes {
            fenced.call(request(method, SECRETS)).await.unwrap();
        }
        leadership.end();
        let before = sent.load(Ordering::Relaxed);
        for method in &writes {
            let refused = fenced.call(request(method, SECRETS)).await.unwrap_err();
            assert!(refused.is::<NotLeading>(), "{method}: {refused}");
            // Neither a word in the query nor in a name makes a write harmless.
            for uri in [
                "/api/v1/namespaces/plant/secrets?fieldManager=dryRun=All",
                "/api/v1/namespaces/plant/secrets/selfsubjectreviews/status",
            ] {
                fenced.call(request(method, uri)).await.unwrap_err();
            }
        }
        assert_eq!(sent.load(Ordering::Relaxed), before, "something was sent");
        for (method, uri) in [
            (Method::GET, SECRETS),
            (Method::POST, "/api/v1/namespaces/plant/secrets?&dryRun=All"),
            (
                Method::POST,
                "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            ),
        ] {
            fenced.call(request(&method, uri)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_write_under_way_is_not_carried_on_after_the_term() {
        let leadership = Leadership::until(now() + Duration::from_hours(1));
        let sent = Arc::new(AtomicBool::new(false));
        let server = service_fn(|_: Request<()>| {
            let sent = sent.clone();
            async move {
                // Such as waiting for a connection, or to try again.
                tokio::task::yield_now().await;
                sent.store(true, Ordering::Relaxed);
                Ok::<_, Infallible>(())
            }
        });
        let mut fenced = fence(&leadership).layer(server);
        let mut write = fenced.call(request(&Method::POST, SECRETS));
        assert!(futures::poll!(&mut write).is_pending());
        leadership.end();
        assert!(write.await.unwrap_err().is::<NotLeading>());
        assert!(!sent.load(Ordering::Relaxed), "it was sent");
    }
}
