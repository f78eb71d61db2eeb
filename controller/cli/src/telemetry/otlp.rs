//! Sends spans to a collector by OTLP, where the environment asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{WithHttpConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Handle;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterExt as _, LevelFilter, filter_fn};
use tracing_subscriber::registry::LookupSpan;

use super::courier::Courier;
use super::variables::{Protocol, Wanted};

/// One batch may take so long to be delivered, with every try. Spans go on to wait meanwhile, in a queue that drops
/// what does not fit.
const EXPORT: Duration = Duration::from_secs(10);

/// What still waits when the controller is stopped has so long: whoever stops it waits too.
const FLUSH: Duration = Duration::from_secs(3);

/// Host and port of a URL.
fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let whole = rest.split(['/', '?', '#']).next().unwrap_or_default();
    whole.rsplit_once('@').map_or(whole, |(_, host)| host)
}

/// Spans on their way to a collector.
pub(super) struct Traces {
    provider: SdkTracerProvider,
    wanted: Wanted,
}

impl Traces {
    /// Begins to send, where the environment asks for it.
    ///
    /// # Errors
    /// When it asks for what cannot be done.
    pub(super) fn from_environment(identity: &str) -> anyhow::Result<Option<Self>> {
        let Some(wanted) = Wanted::read(|name| std::env::var(name).ok())? else { return Ok(None) };
        let exporter = Delivery {
            exporter: Arc::new(exporter(&wanted).context("cannot send traces")?),
            runtime: Handle::current(),
            failing: AtomicBool::new(false),
        };
        let mut resource = Resource::builder().with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", identity.to_owned()),
        ]);
        if !wanted.named {
            resource = resource.with_service_name("windlass");
        }
        let provider =
            SdkTracerProvider::builder().with_resource(resource.build()).with_batch_exporter(exporter).build();
        Ok(Some(Self { provider, wanted }))
    }

    /// The machine that traces go to, without whatever else the URL says: people put credentials into it.
    pub(super) fn collector(&self) -> &str {
        authority(&self.wanted.endpoint)
    }

    /// How they get there.
    pub(super) fn protocol(&self) -> &'static str {
        self.wanted.protocol.as_str()
    }

    /// Takes in this program's own spans. Those of the libraries that carry them away would never end.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    {
        let ours = filter_fn(|metadata| metadata.target().starts_with("windlass"));
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("windlass"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(ours.and(LevelFilter::INFO))
    }

    /// Sends what waits.
    pub(super) async fn end(self) {
        // It blocks, and what it waits for runs on the runtime.
        let ended = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH)).await;
        if let Ok(Err(error)) = ended {
            tracing::debug!(%error, "not every trace was delivered");
        }
    }
}

fn exporter(wanted: &Wanted) -> anyhow::Result<opentelemetry_otlp::SpanExporter> {
    let authorities = match &wanted.authorities {
        None => None,
        Some(path) => Some(std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?),
    };
    // Whichever TLS is spoken first decides on the ciphers of the whole program.
    windlass_store::restrict_ciphers();
    let builder = opentelemetry_otlp::SpanExporter::builder();
    let built = match wanted.protocol {
        Protocol::Http => builder.with_http().with_http_client(Courier::new(authorities.as_deref())?).build(),
        Protocol::Grpc if is_https(&wanted.endpoint) => {
            let tls = match authorities {
                Some(pem) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)),
                None => ClientTlsConfig::new().with_native_roots(),
            };
            builder.with_tonic().with_tls_config(tls).build()
        }
        Protocol::Grpc => builder.with_tonic().build(),
    };
    built.map_err(|error| anyhow!("{error}"))
}

fn is_https(endpoint: &str) -> bool {
    endpoint.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

/// Delivers batches, each under a deadline, and tells of trouble once.
///
/// OpenTelemetry drives its exporters on a thread without a runtime; there, time would not pass for them.
#[derive(Debug)]
struct Delivery<E> {
    exporter: Arc<E>,
    runtime: Handle,
    failing: AtomicBool,
}

impl<E: SpanExporter + 'static> SpanExporter for Delivery<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exporter = Arc::clone(&self.exporter);
        let sending = async move { tokio::time::timeout(EXPORT, exporter.export(batch)).await };
        let result = match self.runtime.spawn(sending).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(OTelSdkError::Timeout(EXPORT)),
            Err(error) => Err(OTelSdkError::InternalFailure(error.to_string())),
        };
        let was_failing = self.failing.swap(result.is_err(), Ordering::Relaxed);
        match &result {
            Err(error) if !was_failing => {
                tracing::warn!(%error, "traces cannot be delivered; those that do not fit the queue are dropped");
            }
            Ok(()) if was_failing => tracing::info!("traces are delivered again"),
            _ => {}
        }
        result
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Called once, before anything is exported.
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_named_without_its_secrets() {
        for (url, named) in [
            ("http://127.0.0.1:4318", "127.0.0.1:4318"),
            ("https://me:pass@collector:4318/v1/traces?token=secret", "collector:4318"),
            ("https://p@ss:w@collector", "collector"),
        ] {
            assert_eq!(authority(url), named);
        }
    }

    #[derive(Debug)]
    struct Stuck;

    impl SpanExporter for Stuck {
        async fn export(&self, _: Vec<SpanData>) -> OTelSdkResult {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_collector_that_never_answers_is_given_up() {
        let delivery =
            Delivery { exporter: Arc::new(Stuck), runtime: Handle::current(), failing: AtomicBool::new(false) };
        let began = tokio::time::Instant::now();
        let result = delivery.export(Vec::new()).await;
        assert!(matches!(result, Err(OTelSdkError::Timeout(_))), "{result:?}");
        assert_eq!(began.elapsed(), EXPORT);
        assert!(delivery.failing.load(Ordering::Relaxed));
    }

    #[test]
    fn https_is_told_from_http() {
        for (endpoint, https) in
            [("https://a:4317", true), ("HTTPS://a", true), ("http://a", false), ("a:4317", false), ("", false)]
        {
            assert_eq!(is_https(endpoint), https, "{endpoint}");
        }
    }
}
