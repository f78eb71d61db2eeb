//! The variables of OpenTelemetry that say whether, where and how traces are sent.
//!
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/> and
//! <https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>. Headers, timeouts, resource
//! attributes, the sampler's argument and the batch's sizes are read by OpenTelemetry's own crates; here is what
//! they would pass over in silence.

use std::path::PathBuf;

use crate::failure::UsageError;

/// How traces travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// gRPC.
    Grpc,
    /// Protocol buffers in an HTTP POST.
    Http,
}

impl Protocol {
    /// As the variable calls it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Http => "http/protobuf",
        }
    }
}

/// What the environment asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Where traces go, for people: the exporter reads it from the same variables.
    pub(super) endpoint: String,
    /// How they travel.
    pub(super) protocol: Protocol,
    /// The authorities that may have signed the collector's certificate; the machine's own unless told.
    pub(super) authorities: Option<PathBuf>,
    /// Whether somebody has given this program another name.
    pub(super) named: bool,
}

/// Samplers that OpenTelemetry's crates know.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];

/// Variables that ask for what is not there; none of them may be passed over in silence.
const REFUSED: [&str; 4] = [
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
];

impl Wanted {
    /// Reads the variables, an empty one being none; nothing where traces are not asked for.
    pub(super) fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, UsageError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        if variable("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        // What is for traces alone comes before what is for every signal.
        let either = |name: &str| {
            let names = [format!("OTEL_EXPORTER_OTLP_TRACES_{name}"), format!("OTEL_EXPORTER_OTLP_{name}")];
            names.into_iter().find_map(|name| variable(&name).map(|value| (name, value)))
        };
        let Some((_, endpoint)) = either("ENDPOINT") else { return Ok(None) };
        match variable("OTEL_TRACES_EXPORTER").as_deref() {
            None | Some("otlp") => {}
            Some("none") => return Ok(None),
            Some(other) => return Err(unsupported("OTEL_TRACES_EXPORTER", other, "otlp and none")),
        }
        let protocol = match either("PROTOCOL") {
            None => Protocol::Http,
            Some((_, value)) if value == Protocol::Http.as_str() => Protocol::Http,
            Some((_, value)) if value == Protocol::Grpc.as_str() => Protocol::Grpc,
            Some((name, value)) => return Err(unsupported(&name, &value, "grpc and http/protobuf")),
        };
        match either("COMPRESSION") {
            None => {}
            Some((_, value)) if value == "none" => {}
            Some((name, value)) => return Err(unsupported(&name, &value, "none")),
        }
        if let Some(sampler) = variable("OTEL_TRACES_SAMPLER").filter(|sampler| !SAMPLERS.contains(&&**sampler)) {
            return Err(unsupported("OTEL_TRACES_SAMPLER", &sampler, &SAMPLERS.join(", ")));
        }
        if let Some(name) = REFUSED.into_iter().find(|name| variable(name).is_some()) {
            return Err(UsageError(format!("{name} is not supported by this version: no client certificate is sent")));
        }
        let attributes = variable("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
        let named = variable("OTEL_SERVICE_NAME").is_some()
            || attributes.split(',').any(|pair| pair.trim_start().starts_with("service.name="));
        let authorities = either("CERTIFICATE").map(|(_, value)| value.into());
        Ok(Some(Self { endpoint, protocol, authorities, named }))
    }
}

fn unsupported(name: &str, value: &str, known: &str) -> UsageError {
    UsageError(format!("{name}={value} is not supported by this version, which knows {known}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318");

    fn read(variables: &[(&str, &str)]) -> Result<Option<Wanted>, String> {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Wanted::read(find).map_err(|error| error.0)
    }

    #[test]
    fn traces_are_sent_where_they_are_asked_for() {
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")]), Ok(None));
        assert_eq!(read(&[ENDPOINT, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(None));
        assert_eq!(read(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        let plain = Wanted {
            endpoint: "http://localhost:4318".to_owned(),
            protocol: Protocol::Http,
            authorities: None,
            named: false,
        };
        assert_eq!(read(&[ENDPOINT]), Ok(Some(plain.clone())));
        let all = read(&[
            ENDPOINT,
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://traces:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/etc/ca.pem"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=prod, service.name=deployer"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
        ]);
        assert_eq!(
            all,
            Ok(Some(Wanted {
                endpoint: "https://traces:4317".to_owned(),
                protocol: Protocol::Grpc,
                authorities: Some("/etc/ca.pem".into()),
                named: true,
            }))
        );
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "thrift"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_TRACES_SAMPLER", "xray"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/etc/key.pem"),
        ] {
            let error = read(&[ENDPOINT, (name, value)]).expect_err(name);
            assert!(error.starts_with(name) && error.contains("not supported"), "{error}");
        }
    }
}
