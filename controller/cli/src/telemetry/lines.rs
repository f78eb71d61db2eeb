//! One log line: time, level, what happened, and to what.
//!
//! What the spans around an event know (service, host, sequence, step) stands in the same line, so that `grep` and
//! `jq` find everything about a rollout.

use std::fmt::{self, Write as _};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;

/// What a text line takes from the spans around an event, and in which order such fields stand in it.
const SUBJECT: [&str; 6] = ["service", "host", "resource", "sequence", "step", "revision"];

/// Fields that only a collector of traces understands.
const FOR_COLLECTORS: &str = "otel.";

/// Formats events; the fields of spans have to be formatted as JSON.
#[derive(Debug)]
pub(super) struct Lines {
    format: LogFormat,
}

impl Lines {
    pub(super) fn new(format: LogFormat) -> Self {
        Self { format }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut around = Map::new();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let fields = extensions.get::<FormattedFields<N>>();
            let fields = fields.and_then(|fields| serde_json::from_str::<Map<String, Value>>(fields).ok());
            around.extend(fields.unwrap_or_default());
        }
        around.retain(|name, _| !name.starts_with(FOR_COLLECTORS));
        let mut said = Said::default();
        event.record(&mut said);
        let time = format!("{:.3}", jiff::Timestamp::now());
        let level = *event.metadata().level();
        match self.format {
            LogFormat::Json => json(out, &time, level, event.metadata().target(), around, said),
            LogFormat::Text => text(out, &time, level, &around, &said),
        }
    }
}

/// What an event says by itself.
#[derive(Debug, Default)]
struct Said {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Said {
    fn put(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(message)) => self.message = message,
            (name, value) => self.fields.push((name, value)),
        }
    }
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        // The chain, as everywhere else.
        let mut text = value.to_string();
        let mut next = value.source();
        while let Some(error) = next {
            let _ = write!(text, ": {error}");
            next = error.source();
        }
        self.put(field, text.into());
    }
}

/// An object a line; what the event says of a field wins over what a span said before.
fn json(
    mut out: Writer<'_>,
    time: &str,
    level: Level,
    target: &str,
    around: Map<String, Value>,
    said: Said,
) -> fmt::Result {
    let mut line = Map::new();
    line.extend(around);
    line.extend(said.fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
    for (name, value) in
        [("timestamp", time), ("level", level.as_str()), ("target", target), ("message", &said.message)]
    {
        line.insert(name.to_owned(), value.into());
    }
    writeln!(out, "{}", Value::Object(line))
}

/// A line for people: legible without colour.
fn text(mut out: Writer<'_>, time: &str, level: Level, around: &Map<String, Value>, said: &Said) -> fmt::Result {
    let colour = match level {
        Level::ERROR => "31",
        Level::WARN => "33",
        _ => "2",
    };
    let (begin, end) = match out.has_ansi_escapes() {
        true => (format!("\u{1b}[{colour}m"), "\u{1b}[0m"),
        false => (String::new(), ""),
    };
    write!(out, "{begin}{time} {level:>5}{end} {}", said.message)?;
    for name in SUBJECT {
        let own = said.fields.iter().find(|(known, _)| *known == name).map(|(_, value)| value);
        if let Some(value) = own.or_else(|| around.get(name)) {
            field(&mut out, name, value)?;
        }
    }
    for (name, value) in said.fields.iter().filter(|(name, _)| !SUBJECT.contains(name)) {
        field(&mut out, name, value)?;
    }
    writeln!(out)
}

fn field(out: &mut Writer<'_>, name: &str, value: &Value) -> fmt::Result {
    match value {
        Value::String(text) if is_plain(text) => write!(out, " {name}={text}"),
        // As JSON, so that a line stays a line and ends where it seems to.
        value => write!(out, " {name}={value}"),
    }
}

fn is_plain(text: &str) -> bool {
    let odd = |letter: char| letter.is_whitespace() || letter.is_control() || letter == '"' || letter == '=';
    !text.is_empty() && !text.contains(odd)
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt;
    use tracing_subscriber::fmt::format::JsonFields;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `tell` writes in a format, without the time.
    fn written(format: LogFormat, tell: impl FnOnce()) -> String {
        let out = Written::default();
        let writer = out.clone();
        let layer = fmt::layer()
            .with_ansi(false)
            .event_format(Lines::new(format))
            .fmt_fields(JsonFields::new())
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), tell);
        let bytes = out.0.lock().expect("no panic").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    fn deploy() {
        let span = tracing::info_span!(
            "reconcile",
            kind = "service",
            service = "default/web",
            sequence = tracing::field::Empty,
            otel.status_code = "OK"
        );
        let _reconcile = span.enter();
        span.record("sequence", 7);
        tracing::info!(release = "sha256:00", "revision accepted");
        let step = tracing::info_span!("step", host = "web1", step = "stage 2");
        let _step = step.enter();
        let error = "disk\nfull";
        tracing::warn!(host = "web1", took_ms = 12, error, empty = "", "step not done");
    }

    #[test]
    fn a_text_line_says_what_happened_to_what() {
        let text = written(LogFormat::Text, deploy);
        let lines: Vec<&str> = text.lines().map(|line| line.split_once(' ').expect("a time").1).collect();
        assert_eq!(
            lines,
            [
                " INFO revision accepted service=default/web sequence=7 release=sha256:00",
                " WARN step not done service=default/web host=web1 sequence=7 step=\"stage 2\" took_ms=12 error=\"disk\\nfull\" empty=\"\"",
            ]
        );
    }

    #[test]
    fn a_json_line_is_one_object_with_all_fields() {
        let text = written(LogFormat::Json, deploy);
        let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        let mut last = objects[1].clone();
        let time = last["timestamp"].take();
        assert!(time.as_str().expect("a text").parse::<jiff::Timestamp>().is_ok(), "{time}");
        assert_eq!(
            last,
            serde_json::json!({
                "timestamp": null, "level": "WARN", "message": "step not done",
                "target": "windlass::telemetry::lines::tests", "kind": "service", "service": "default/web",
                "sequence": 7, "host": "web1", "step": "stage 2", "took_ms": 12, "error": "disk\nfull", "empty": "",
            })
        );
    }
}
