//! `windlass env`: the variables by which `etcdctl`, and `windlass` from elsewhere, reach the store.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
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
    output::bytes(&variables(&client.connection.options()?))?;
    Ok(Exit::Done)
}

/// An `export` a line. A path need not be UTF-8, so neither is this.
pub(super) fn variables(options: &ConnectOptions) -> Vec<u8> {
    // etcdctl makes the whole of an endpoint the name of the server that it asks, and a scheme is no part of a name.
    let bare = |endpoint: &String| endpoint.rsplit_once("://").map_or(endpoint.as_str(), |(_, bare)| bare).to_owned();
    let mut lines = Vec::new();
    let mut export = |name: &str, value: &[u8]| {
        lines.extend([b"export ", name.as_bytes(), b"=", &quoted(value), b"\n"].concat());
    };
    export("ETCDCTL_API", b"3");
    export("ETCDCTL_ENDPOINTS", options.endpoints.iter().map(bare).collect::<Vec<_>>().join(",").as_bytes());
    export("WINDLASS_ENDPOINTS", options.endpoints.join(",").as_bytes());
    export("WINDLASS_PREFIX", options.prefix.to_string().as_bytes());
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

fn absolute(file: &Path) -> Vec<u8> {
    OsString::from(std::path::absolute(file).unwrap_or_else(|_| file.to_owned())).into_vec()
}

/// A word as a POSIX shell reads it back.
fn quoted(word: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-:,@%+=".contains(byte);
    if !word.is_empty() && word.iter().all(plain) {
        return word.to_owned();
    }
    let parts: Vec<&[u8]> = word.split(|byte| *byte == b'\'').collect();
    [b"'", &parts.join(&br"'\''"[..])[..], b"'"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_what_was_meant() {
        let tls =
            Tls { ca_file: OsString::from_vec(b"/a b/it's\xff".to_vec()).into(), cert_file: None, key_file: None };
        let endpoints = ["https://127.0.0.1:2379", "https://[::1]:2379"];
        let options = ConnectOptions { tls: Some(tls), ..ConnectOptions::new(endpoints) };
        let mut script = variables(&options);
        script.extend(br#"printf '%s|' "$ETCDCTL_ENDPOINTS" "$WINDLASS_ENDPOINTS" "$ETCDCTL_CACERT""#);
        let script = OsString::from_vec(script);
        let output = std::process::Command::new("sh").arg("-c").arg(script).output().expect("sh");
        let said = output.stdout;
        assert_eq!(said, b"127.0.0.1:2379,[::1]:2379|https://127.0.0.1:2379,https://[::1]:2379|/a b/it's\xff|");
    }
}
