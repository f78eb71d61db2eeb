//! Where what takes long is done.

/// On threads of its own, so that it holds nobody up; or where it is asked for, so that everything happens in one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hands {
    /// On the runtime's threads for what blocks.
    Threads,
    /// At once.
    Here,
}

impl Hands {
    /// Does some work; `None` where the runtime is being shut down.
    pub(crate) async fn run<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        match self {
            Self::Threads => tokio::task::spawn_blocking(work).await.ok(),
            Self::Here => Some(work()),
        }
    }
}
