//! How much is logged: what `WINDLASS_LOG` says, held to our own parts.

use tracing_subscriber::filter::{EnvFilter, LevelFilter};

/// What our targets begin with.
const OURS: &str = "windlass";

/// The filter for what the variable says; what makes no sense in it is passed over, and told on stderr.
pub(super) fn filter(asked: Option<&str>) -> EnvFilter {
    EnvFilter::builder().parse_lossy(directives(asked.unwrap_or_default()))
}

/// The directives of `tracing-subscriber` that are meant. A bare level is meant for Windlass: of the crates that it is
/// made of only warnings are logged, unless they are named, for they tell of every frame.
fn directives(asked: &str) -> String {
    let asked = if asked.trim().is_empty() { "info" } else { asked };
    let directives = asked.split(',').map(|directive| match directive.trim().parse::<LevelFilter>() {
        Ok(level) if level > LevelFilter::WARN => format!("{},{OURS}={level}", LevelFilter::WARN),
        _ => directive.trim().to_owned(),
    });
    directives.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_level_is_meant_for_our_own_parts() {
        for (asked, expected) in [
            ("", "warn,windlass=info"),
            ("info", "warn,windlass=info"),
            ("DEBUG", "warn,windlass=debug"),
            ("warn", "warn"),
            ("error", "error"),
            ("off", "off"),
            ("info,windlass_store=debug", "warn,windlass=info,windlass_store=debug"),
            ("debug, h2=debug", "warn,windlass=debug,h2=debug"),
            ("h2=trace", "h2=trace"),
            ("windlass_engine[reconcile{service}]=trace,warn", "windlass_engine[reconcile{service}]=trace,warn"),
        ] {
            assert_eq!(directives(asked), expected, "{asked:?}");
        }
    }
}
