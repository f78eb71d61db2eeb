//! `windlass env`: the variables by which `etcdctl`, and `windlass` from elsewhere, reach the store.

use std::fmt::Write as _;
use std::path::Path;

use clap::Args;
use windlass_store::{ConnectOptions, Tls};

use super::ClientArgs;
use crate::exit::Exit;
use crate::output;

/// Print the variables by which etcdctl reaches the store
///
/// For a shell: `eval "$(windlass env)"`. They name files; no secret is printed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  windlass env
  eval \"$(windlass env)\" && etcdctl get --prefix /windlass/declared/ --keys-only")]
pub(crate) struct EnvArgs {}

pub(super) fn run(_: &EnvArgs, client: &ClientArgs) -> anyhow::Result<Exit> {
    for line in variables(&client.connection.options()?).lines() {
        output::line(line)?;
    }
    Ok(Exit::Done)
}

/// An `export` a line.
pub(super) fn variables(options: &ConnectOptions) -> String {
    // etcdctl makes the whole of an endpoint the name of the server that it asks, and a scheme is no part of a name.
    let bare = |endpoint: &String| endpoint.rsplit_once("://").map_or(endpoint.as_str(), |(_, bare)| bare).to_owned();
    let mut lines = String::new();
    let mut export = |name: &str, value: &str| {
        writeln!(lines, "export {name}={}", quoted(value)).expect("a string takes everything");
    };
    export("ETCDCTL_API", "3");
    export("ETCDCTL_ENDPOINTS", &options.endpoints.iter().map(bare).collect::<Vec<_>>().join(","));
    export("WINDLASS_ENDPOINTS", &options.endpoints.join(","));
    export("WINDLASS_PREFIX", &options.prefix.to_string());
    if let Some(Tls { ca_file, cert_file, key_file }) = &options.tls {
        let files = [("CACERT", Some(ca_file)), ("CERT", cert_file.as_ref()), ("KEY", key_file.as_ref())];
        for (name, file) in files {
            let Some(file) = file else { continue };
            export(&format!("ETCDCTL_{name}"), &absolute(file));
            export(&format!("WINDLASS_{name}"), &absolute(file));
        }
    }
    lines
}

fn absolute(file: &Path) -> String {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned()).display().to_string()
}

/// A word as a POSIX shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:,@%+=".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_what_was_meant() {
        let tls = Tls { ca_file: "/a b/it's".into(), cert_file: None, key_file: None };
        let endpoints = ["https://127.0.0.1:2379", "https://[::1]:2379"];
        let options = ConnectOptions { tls: Some(tls), ..ConnectOptions::new(endpoints) };
        let script = format!(
            "{}printf '%s|' \"$ETCDCTL_ENDPOINTS\" \"$WINDLASS_ENDPOINTS\" \"$ETCDCTL_CACERT\"",
            variables(&options)
        );
        let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("sh");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, "127.0.0.1:2379,[::1]:2379|https://127.0.0.1:2379,https://[::1]:2379|/a b/it's|");
    }
}
