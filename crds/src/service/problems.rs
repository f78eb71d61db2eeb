//! What makes no sense in a Service, and what this version cannot honour.

use super::{
    Canary, CanaryStep, DRAIN_TIMEOUT, DetectionMethod, Health, HealthRoute, HealthTls, Install, LifecycleType, Limits,
    MaxUnavailable, Network, Runtime, RuntimeTarget, ServiceSpec, Strategy, Transport,
};
use crate::id::{is_address, is_login};
use crate::problem::Problem;
use crate::span::Span;

/// Variables that Windlass sets itself.
const RESERVED_VARIABLES: [&str; 2] = ["PORT", "STATE_DIRECTORY"];

/// The longest value that systemd takes from an environment file is far above this; what is longer belongs in a file.
const LONGEST_VALUE: usize = 32 * 1024;

/// Everything that makes no sense about `spec`, then everything that cannot be honoured.
pub(super) fn problems(spec: &ServiceSpec) -> Vec<Problem> {
    let mut problems = Vec::new();
    if spec.placement.hosts.is_empty() && spec.placement.selector.is_empty() {
        problems.push(Problem::invalid("spec.placement", "name at least one host, or give a selector"));
    }
    source(spec, &mut problems);
    runtime(&spec.runtime, &mut problems);
    if let Some(network) = &spec.network {
        network_problems(network, &mut problems);
    }
    if let Some(health) = &spec.health {
        health_problems(health, spec.network.as_ref(), &mut problems);
    }
    lifecycle(spec, &mut problems);
    rollout(spec, &mut problems);
    for (name, hooks) in spec.hooks.named() {
        if !hooks.is_empty() {
            problems.push(Problem::not_supported(format!("spec.hooks.{name}")));
        }
    }
    problems
}

fn source(spec: &ServiceSpec, problems: &mut Vec<Problem>) {
    let source = &spec.source;
    match (&source.path, &source.git) {
        (None, None) if source.repo.is_some() => {}
        _ if source.repo.is_some() => {
            let message = "a source is either a path, a Git repository or a directory of a ConfigRepo";
            problems.push(Problem::invalid("spec.source", message));
        }
        (None, None) => problems.push(Problem::invalid("spec.source.path", "say which directory holds the files")),
        (Some(_), Some(_)) => {
            problems.push(Problem::invalid("spec.source", "a source is either a path or a Git repository"));
        }
        (None, Some(_)) => problems.push(Problem::not_supported("spec.source.git")),
        (Some(path), None) => {
            if !path.starts_with('/') || path.chars().any(char::is_control) {
                problems.push(Problem::invalid(
                    "spec.source.path",
                    "must be an absolute path on the controller's machine; `windlass apply` makes a relative one absolute",
                ));
            }
        }
    }
    if source.change_detection.method != DetectionMethod::ContentHash {
        problems.push(Problem::not_supported("spec.source.changeDetection.method"));
    }
    if source.change_detection.interval < Span::seconds(1) {
        problems.push(Problem::invalid("spec.source.changeDetection.interval", "must be at least 1s"));
    }
}

/// Whether `name` may stand before `=` in an environment (POSIX.1-2017, section 8.1).
fn is_variable(name: &str) -> bool {
    !name.starts_with(|c: char| c.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn runtime(runtime: &Runtime, problems: &mut Vec<Problem>) {
    if matches!(runtime.target, RuntimeTarget::Go | RuntimeTarget::Rust | RuntimeTarget::Dotnet) {
        problems.push(Problem::not_supported("spec.runtime.target"));
    }
    for (index, argument) in runtime.args.iter().enumerate() {
        if argument.chars().any(|c| c.is_control() && c != '\t') {
            problems.push(Problem::invalid(format!("spec.runtime.args[{index}]"), "holds a control character"));
        }
    }
    for (name, value) in &runtime.env {
        let field = || format!("spec.runtime.env.{name}");
        if !is_variable(name) {
            problems.push(Problem::invalid(field(), "is not a name for a variable: letters, digits and _"));
        } else if RESERVED_VARIABLES.contains(&name.as_str()) {
            problems.push(Problem::invalid(field(), "is set by Windlass itself"));
        }
        if value.chars().any(|c| c.is_control() && !"\t\n".contains(c)) || value.len() > LONGEST_VALUE {
            problems.push(Problem::invalid(field(), "holds a control character, or more than 32 KiB"));
        }
    }
    if !runtime.env_from.is_empty() {
        problems.push(Problem::not_supported("spec.runtime.envFrom"));
    }
    if matches!(runtime.install, Install::Command(_)) {
        problems.push(Problem::not_supported("spec.runtime.install"));
    }
    if runtime.user.as_deref().is_some_and(|user| !is_login(user)) {
        problems.push(Problem::invalid("spec.runtime.user", "is not the name of a user"));
    }
    if let Some(limits) = &runtime.limits {
        limits_problems(limits, problems);
    }
}

/// Whether `text` is a number of bytes as systemd reads it: `512M`.
fn is_size(text: &str) -> bool {
    let digits = text.strip_suffix(['K', 'M', 'G', 'T']).unwrap_or(text);
    !digits.is_empty()
        && digits.len() <= 15
        && digits.bytes().all(|byte| byte.is_ascii_digit())
        && !digits.starts_with('0')
}

/// Whether `text` is a number of cores above zero, with at most two decimals.
fn is_cores(text: &str) -> bool {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let digits =
        |part: &str, longest| (1..=longest).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole, 4) && digits(decimals, 2) && text.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
}

fn limits_problems(limits: &Limits, problems: &mut Vec<Problem>) {
    if limits.memory.as_deref().is_some_and(|memory| !is_size(memory)) {
        problems.push(Problem::invalid("spec.runtime.limits.memory", "is not a size such as 512M or 2G"));
    }
    if limits.cpu.as_deref().is_some_and(|cpu| !is_cores(cpu)) {
        problems.push(Problem::invalid("spec.runtime.limits.cpu", "is not a number of cores such as \"1.5\""));
    }
}

fn network_problems(network: &Network, problems: &mut Vec<Problem>) {
    if network.certificate.is_some() {
        problems.push(Problem::not_supported("spec.network.certificate"));
    }
    if network.auth.is_some() {
        problems.push(Problem::not_supported("spec.network.auth"));
    }
}

fn health_problems(health: &Health, network: Option<&Network>, problems: &mut Vec<Problem>) {
    match (&health.endpoint, network) {
        (_, None) => problems.push(Problem::invalid("spec.health", "needs a port to ask: give spec.network.port")),
        (Some(_), Some(Network { transport: Some(Transport::Tcp), .. })) => {
            problems.push(Problem::invalid("spec.health.endpoint", "has no meaning with `transport: tcp`"));
        }
        (Some(endpoint), Some(_)) => {
            let plain = endpoint.bytes().all(|byte| byte.is_ascii_graphic());
            if !endpoint.starts_with('/') || !plain {
                problems.push(Problem::invalid("spec.health.endpoint", "must be a path such as /health"));
            }
        }
        (None, Some(_)) => {}
    }
    if health.via == HealthRoute::Direct {
        problems.push(Problem::not_supported("spec.health.via"));
    }
    if let Some(tls) = &health.tls {
        tls_problems(tls, network.and_then(|network| network.transport), problems);
    }
    for (field, span) in [("interval", health.interval), ("timeout", health.timeout)] {
        if span < Span::seconds(1) && span.duration().as_millis() < 50 {
            problems.push(Problem::invalid(format!("spec.health.{field}"), "must be at least 50ms"));
        }
    }
}

fn tls_problems(tls: &HealthTls, transport: Option<Transport>, problems: &mut Vec<Problem>) {
    if let Some(plaintext) = transport.filter(|transport| transport.is_plaintext()) {
        let message = format!("has no meaning with `transport: {plaintext}`");
        problems.push(Problem::invalid("spec.health.tls", message));
    }
    if tls.server_name.as_deref().is_some_and(|name| !is_address(name)) {
        problems.push(Problem::invalid("spec.health.tls.serverName", "is not a host name or an IP address"));
    }
    if tls.ca_file.as_deref().is_some_and(|file| !file.starts_with('/') || file.chars().any(char::is_control)) {
        let message = "must be an absolute path on the controller's machine";
        problems.push(Problem::invalid("spec.health.tls.caFile", message));
    }
}

fn lifecycle(spec: &ServiceSpec, problems: &mut Vec<Problem>) {
    let lifecycle = &spec.lifecycle;
    let refused = [
        ("type", lifecycle.kind != LifecycleType::Persistent),
        ("idleTimeout", lifecycle.idle_timeout.is_some()),
        ("maxLifetime", lifecycle.max_lifetime.is_some()),
        ("shutdownOn", !lifecycle.shutdown_on.is_empty()),
        ("drainTimeout", lifecycle.drain_timeout != DRAIN_TIMEOUT),
    ];
    let refused = refused.into_iter().filter(|(_, changed)| *changed);
    problems.extend(refused.map(|(field, _)| Problem::not_supported(format!("spec.lifecycle.{field}"))));
    if lifecycle.force_after < Span::seconds(1) {
        problems.push(Problem::invalid("spec.lifecycle.forceAfter", "must be at least 1s"));
    }
}

fn rollout(spec: &ServiceSpec, problems: &mut Vec<Problem>) {
    let rollout = &spec.rollout;
    if rollout.strategy == Strategy::BlueGreen {
        problems.push(Problem::not_supported("spec.rollout.strategy"));
    }
    if let Some(canary) = &rollout.canary {
        canary_problems(canary, problems);
    } else if rollout.strategy == Strategy::Canary {
        let message = "say its steps, such as `canary: {steps: [1, 25%, 100%], bake: 60s}`";
        problems.push(Problem::invalid("spec.rollout.canary", message));
    }
    if rollout.max_failures > 0 && rollout.strategy == Strategy::Canary {
        let message = "has no meaning with `strategy: canary`: one unhealthy host sends all of them back";
        problems.push(Problem::invalid("spec.rollout.maxFailures", message));
    }
    if rollout.max_failures > 0 && !rollout.rollback_on_failure {
        let message = "needs `rollbackOnFailure: true`: a host that fails goes back by itself";
        problems.push(Problem::invalid("spec.rollout.maxFailures", message));
    }
    if rollout.progress_deadline < Span::seconds(1) {
        problems.push(Problem::invalid("spec.rollout.progressDeadline", "must be at least 1s"));
    }
}

fn canary_problems(canary: &Canary, problems: &mut Vec<Problem>) {
    if canary.steps.is_empty() {
        problems.push(Problem::invalid("spec.rollout.canary.steps", "name at least one step, such as 1 or 25%"));
    }
    for (index, pair) in canary.steps.windows(2).enumerate() {
        let [CanaryStep(before), CanaryStep(after)] = pair else { continue };
        // Whether 3 hosts are more than 25 % of them, only their number tells.
        let grows = match (before, after) {
            (MaxUnavailable::Count(before), MaxUnavailable::Count(after)) => before < after,
            (MaxUnavailable::Percent(before), MaxUnavailable::Percent(after)) => before < after,
            _ => true,
        };
        if !grows {
            let message = format!("counts the hosts of the steps before it too, so {after} cannot follow {before}");
            problems.push(Problem::invalid(format!("spec.rollout.canary.steps[{}]", index + 1), message));
        }
    }
}
