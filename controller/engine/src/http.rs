//! What answers on `--listen`: `/healthz`, `/readyz`, `/metrics` and the webhooks.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use windlass_crds::id::ResourceKey;
use windlass_hosts::traffic::Traffic;

use crate::cache::Cache;
use crate::health::{Health, Readiness};
use crate::metrics::{self, Metrics, Now, exposition};
use crate::queue::Queue;
use crate::repos::Hooks;
use crate::serve::WORKERS;
use crate::webhook::{self, Call};

/// So many are answered at once; who comes then waits.
const CONNECTIONS: usize = 64;

/// One connection is one question and its answer, and gets no longer than this: who sends a byte a second would keep
/// a place from others. A scrape of a thousand hosts is made and read in milliseconds.
const LONGEST: Duration = Duration::from_secs(10);

/// The longest head of a request; hyper takes no less than 8 KiB.
const HEAD_BYTES: usize = 8 << 10;

/// Between two tries to accept a connection when there are no file handles: without a pause this would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the answers are made from.
pub struct Told {
    /// The controller's own health.
    pub health: Arc<Health>,
    /// What waits.
    pub queue: Arc<Queue>,
    /// What is declared.
    pub cache: Arc<Cache>,
    /// What was counted.
    pub metrics: Arc<Metrics>,
    /// Which ConfigRepos a webhook has called.
    pub hooks: Arc<Hooks>,
    /// Asks for the connections to hosts.
    pub traffic: Box<dyn Fn() -> Traffic + Send + Sync>,
}

/// Answers until it is dropped.
pub async fn answer(listener: TcpListener, told: Arc<Told>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let told = Arc::clone(&told);
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request: Request<Incoming>| {
                let told = Arc::clone(&told);
                async move {
                    let response = match request.uri().path().starts_with(webhook::PATH) {
                        true => hook(&told, request).await,
                        false => respond(&told, request.method(), request.uri().path()),
                    };
                    Ok::<_, Infallible>(response)
                }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).keep_alive(false).max_buf_size(HEAD_BYTES);
            // How a stranger's connection ends is his affair.
            let _ = tokio::time::timeout(LONGEST, http.serve_connection(TokioIo::new(stream), service)).await;
        });
    }
}

/// The answer to the call of a webhook: its repository is asked soon. A standby asks nobody, and says so.
async fn hook(told: &Told, request: Request<Incoming>) -> Response<Full<Bytes>> {
    if *request.method() != Method::POST {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "POST is answered here");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    match webhook::read(&told.cache, request).await {
        Call::Rings(_) if !told.health.leads() => {
            plain(StatusCode::SERVICE_UNAVAILABLE, "standby: another controller follows this repository")
        }
        Call::Rings(name) => {
            told.hooks.ring(&name);
            told.queue.push(ResourceKey::ConfigRepo(name));
            plain(StatusCode::ACCEPTED, "the repository is asked")
        }
        Call::Refused(status, why) => {
            tracing::debug!(%status, why, "a call of a webhook is refused");
            plain(status, why)
        }
    }
}

/// The answer to one question. hyper leaves the body out of an answer to HEAD.
fn respond(told: &Told, method: &Method, path: &str) -> Response<Full<Bytes>> {
    if !matches!(path, "/healthz" | "/readyz" | "/metrics") {
        return plain(StatusCode::NOT_FOUND, "try /healthz, /readyz or /metrics");
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD are answered here");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/healthz" => match told.health.ailment(&told.queue.backlog(), WORKERS) {
            None => plain(StatusCode::OK, "ok"),
            Some(ailment) => plain(StatusCode::SERVICE_UNAVAILABLE, &format!("stuck: {ailment}")),
        },
        "/readyz" => {
            let readiness = told.health.readiness();
            let ready = matches!(readiness, Readiness::Leader | Readiness::Standby);
            plain(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &readiness.to_string())
        }
        _ => {
            let now = Now {
                health: &told.health,
                backlog: told.queue.backlog(),
                census: told.cache.census(),
                traffic: (told.traffic)(),
            };
            text(StatusCode::OK, metrics::CONTENT_TYPE, exposition(&told.metrics, &now))
        }
    }
}

fn plain(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    text(status, "text/plain; charset=utf-8", format!("{line}\n"))
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
