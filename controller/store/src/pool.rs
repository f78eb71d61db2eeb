//! The endpoints of one cluster: one is used until it fails, then the next.
//!
//! etcd-client's own balancing spreads calls over all endpoints, the dead ones too, so that with one of three
//! members down a third of all calls fail. Here a call stays with the endpoint that works.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use etcd_client::Client;
use tokio::sync::OnceCell;

/// One endpoint, connected when it is first used.
pub(crate) struct Endpoint {
    index: usize,
    url: String,
    options: etcd_client::ConnectOptions,
    client: OnceCell<Client>,
}

impl Endpoint {
    /// The URL that it was given by.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Authenticates again, since etcd forgets tokens. Keep it under a deadline.
    pub(crate) async fn authenticate(&self) -> Result<(), etcd_client::Error> {
        self.client().await?.refresh_token().await
    }

    /// The client for it. The first call authenticates, so keep it under a deadline; later ones cost nothing.
    pub(crate) async fn client(&self) -> Result<Client, etcd_client::Error> {
        let connect = || Client::connect([&self.url], Some(self.options.clone()));
        self.client.get_or_try_init(connect).await.cloned()
    }
}

/// Every endpoint, and which one is used.
pub(crate) struct Pool {
    endpoints: Vec<Arc<Endpoint>>,
    current: AtomicUsize,
}

impl Pool {
    /// `urls` must not be empty.
    pub(crate) fn new(urls: Vec<String>, options: &etcd_client::ConnectOptions) -> Self {
        let endpoints = urls
            .into_iter()
            .enumerate()
            .map(|(index, url)| Arc::new(Endpoint { index, url, options: options.clone(), client: OnceCell::new() }))
            .collect();
        Self { endpoints, current: AtomicUsize::new(0) }
    }

    /// One endpoint, to which there is a way already.
    pub(crate) fn of(client: Client) -> Self {
        let options = etcd_client::ConnectOptions::default();
        let (url, client) = ("the store of this process".to_owned(), OnceCell::new_with(Some(client)));
        Self { endpoints: vec![Arc::new(Endpoint { index: 0, url, options, client })], current: AtomicUsize::new(0) }
    }

    pub(crate) fn len(&self) -> usize {
        self.endpoints.len()
    }

    pub(crate) fn all(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// The endpoint in use.
    pub(crate) fn current(&self) -> Arc<Endpoint> {
        self.endpoints[self.current.load(Ordering::Relaxed) % self.endpoints.len()].clone()
    }

    /// Uses `endpoint` from now on.
    pub(crate) fn prefer(&self, endpoint: &Endpoint) {
        self.current.store(endpoint.index, Ordering::Relaxed);
    }

    /// Uses the one after `endpoint` from now on, unless somebody has left it already.
    pub(crate) fn leave(&self, endpoint: &Endpoint) {
        let next = (endpoint.index + 1) % self.endpoints.len();
        let _ = self.current.compare_exchange(endpoint.index, next, Ordering::Relaxed, Ordering::Relaxed);
    }
}
