//! Logs on stderr, and traces to a collector where the environment names one.

use clap::ValueEnum;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::output;
use filter::filter;
use lines::Lines;
use otlp::Traces;

mod courier;
mod filter;
mod lines;
mod otlp;
mod variables;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for people
    Text,
    /// An object a line
    Json,
}

/// What has to be ended with the program.
pub(crate) struct Telemetry {
    traces: Option<Traces>,
}

impl Telemetry {
    /// Begins to log, and to send traces where that is asked for. `identity` is what this controller calls itself.
    /// To be called on the runtime that shall send them.
    ///
    /// # Errors
    /// When a variable asks for what this program cannot do.
    pub(crate) fn begin(format: LogFormat, identity: &str) -> anyhow::Result<Self> {
        let traces = Traces::from_environment(identity)?;
        let log = fmt::layer()
            .with_ansi(output::coloured())
            .event_format(Lines::new(format))
            .fmt_fields(JsonFields::new())
            .with_writer(std::io::stderr)
            .with_filter(filter(std::env::var("WINDLASS_LOG").ok().as_deref()));
        let spans = traces.as_ref().map(Traces::layer);
        tracing_subscriber::registry().with(log).with(spans).init();
        if let Some(traces) = &traces {
            tracing::info!(collector = traces.collector(), protocol = traces.protocol(), "sending traces");
        }
        Ok(Self { traces })
    }

    /// Sends what is left, for a few seconds at most.
    pub(crate) async fn end(self) {
        if let Some(traces) = self.traces {
            traces.end().await;
        }
    }
}
