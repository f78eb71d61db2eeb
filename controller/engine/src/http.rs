//! What answers on `--listen`: whether the controller lives, whether it leads, and a few numbers.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::cache::Cache;
use crate::queue::Queue;

/// So many are answered at once; who comes then waits.
const CONNECTIONS: usize = 64;

/// What is told.
#[derive(Debug, Default)]
pub struct Health {
    /// Whether the cache has been filled.
    pub synced: AtomicBool,
    /// Whether this controller leads.
    pub leads: AtomicBool,
    /// Reconciles that ended well.
    pub done: AtomicU64,
    /// Reconciles that did not.
    pub failed: AtomicU64,
}

/// What the answers are made from.
pub struct Told {
    /// The controller's own health.
    pub health: Arc<Health>,
    /// What waits.
    pub queue: Arc<Queue>,
    /// What is declared.
    pub cache: Arc<Cache>,
}

/// Answers until it is dropped.
pub async fn answer(listener: TcpListener, told: Arc<Told>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file handles, most likely: without a pause this would spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                continue;
            }
        };
        let told = Arc::clone(&told);
        tokio::spawn(async move {
            let _permit = permit;
            let service = service_fn(move |request| {
                let response = respond(&told, &request);
                async move { Ok::<_, Infallible>(response) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).keep_alive(false);
            let _ = http.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

fn respond(told: &Told, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let synced = told.health.synced.load(Ordering::Relaxed);
    let leads = told.health.leads.load(Ordering::Relaxed);
    let (status, text) = match request.uri().path() {
        "/healthz" => (StatusCode::OK, "ok\n".to_owned()),
        "/readyz" if !synced => (StatusCode::SERVICE_UNAVAILABLE, "the store has not answered yet\n".to_owned()),
        "/readyz" => (StatusCode::OK, if leads { "leader\n" } else { "standby\n" }.to_owned()),
        "/metrics" => (StatusCode::OK, metrics(told, leads)),
        _ => (StatusCode::NOT_FOUND, "try /healthz, /readyz or /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn metrics(told: &Told, leads: bool) -> String {
    let rows = [
        ("windlass_leader", "gauge", "1 where this controller leads", u64::from(leads)),
        ("windlass_queue_depth", "gauge", "Keys that are due or being reconciled", told.queue.depth() as u64),
        ("windlass_declared", "gauge", "Resources that are declared", told.cache.declared_count() as u64),
        (
            "windlass_reconciles_done_total",
            "counter",
            "Reconciles that ended well",
            told.health.done.load(Ordering::Relaxed),
        ),
        (
            "windlass_reconciles_failed_total",
            "counter",
            "Reconciles that did not",
            told.health.failed.load(Ordering::Relaxed),
        ),
    ];
    let row = |(name, kind, help, value): (&str, &str, &str, u64)| {
        format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n")
    };
    rows.into_iter().map(row).collect()
}
