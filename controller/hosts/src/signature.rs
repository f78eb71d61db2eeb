//! Signatures with SSH keys: of a text, as `ssh-keygen -Y` makes and checks them.
//!
//! `ssh-keygen` is there wherever `ssh` is, and knows every kind of key, those in agents and on tokens included.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use windlass_crds::host::HostKey;

/// Checking takes some ten milliseconds; a program that hangs holds nobody up for longer than this.
const CHECKING: Duration = Duration::from_secs(10);

/// A person may have to type a passphrase, or to touch a token.
const SIGNING: Duration = Duration::from_secs(120);

/// Why a signature could not be made, or is none.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// `ssh-keygen` cannot be run.
    #[error("ssh-keygen: {0}; is openssh-client installed here?")]
    Program(#[source] io::Error),
    /// It took too long.
    #[error("ssh-keygen did not end within {} s", .0.as_secs())]
    Slow(Duration),
    /// None of the keys has made it.
    #[error("it is signed with none of the keys that are known: {0}")]
    Stranger(String),
    /// It is not of this text, or it is no signature.
    #[error("the signature is not of what is asked: {0}")]
    Wrong(String),
    /// It could not be made.
    #[error("cannot sign with {key}: {told}")]
    Unsigned {
        /// Which key.
        key: String,
        /// What ssh-keygen says.
        told: String,
    },
}

struct Said {
    good: bool,
    out: String,
    told: String,
}

async fn keygen(arguments: &[&str], input: &str, terminal: bool, limit: Duration) -> Result<Said, SignatureError> {
    let mut command = Command::new("ssh-keygen");
    command.args(arguments).env("LC_ALL", "C").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if !terminal {
        // It asks nobody.
        command.env("SSH_ASKPASS_REQUIRE", "never").env_remove("DISPLAY");
    }
    let mut child = command.spawn().map_err(SignatureError::Program)?;
    let running = async {
        if let Some(mut stdin) = child.stdin.take() {
            // One that ends without reading says why.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(limit, running).await.map_err(|_| SignatureError::Slow(limit))?;
    let output = output.map_err(SignatureError::Program)?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    Ok(Said { good: output.status.success(), out: text(&output.stdout), told: last_line(&text(&output.stderr)) })
}

/// What it says last is why it failed.
fn last_line(text: &str) -> String {
    text.lines().next_back().unwrap_or("it does not say why").chars().take(200).collect()
}

/// Which of these keys has signed a text for a purpose.
///
/// # Errors
/// [`SignatureError`], where none has.
pub async fn signer<'a>(
    text: &str,
    purpose: &str,
    signature: &str,
    keys: &'a [HostKey],
) -> Result<&'a HostKey, SignatureError> {
    let folder = tempfile::tempdir().map_err(SignatureError::Program)?;
    let (allowed, given) = (folder.path().join("allowed"), folder.path().join("signature"));
    let lines: String = keys.iter().enumerate().map(|(index, key)| format!("key{index} {key}\n")).collect();
    std::fs::write(&allowed, lines)
        .and_then(|()| std::fs::write(&given, signature))
        .map_err(SignatureError::Program)?;
    let (allowed, given) = (path(&allowed), path(&given));
    let found = keygen(&["-Y", "find-principals", "-f", &allowed, "-s", &given], "", false, CHECKING).await?;
    let name = found.out.lines().next().unwrap_or_default();
    let key = name.strip_prefix("key").and_then(|index| index.parse::<usize>().ok()).and_then(|index| keys.get(index));
    let Some(key) = key.filter(|_| found.good) else { return Err(SignatureError::Stranger(found.told)) };
    let verify = ["-Y", "verify", "-f", &allowed, "-I", name, "-n", purpose, "-s", &given];
    let checked = keygen(&verify, text, false, CHECKING).await?;
    if checked.good { Ok(key) } else { Err(SignatureError::Wrong(checked.told)) }
}

/// Signs a text for a purpose: with a private key, or with the one in the running agent that a public key names.
///
/// # Errors
/// [`SignatureError`].
pub async fn sign(text: &str, purpose: &str, key: &Path) -> Result<String, SignatureError> {
    let file = path(key);
    let said = keygen(&["-Y", "sign", "-q", "-n", purpose, "-f", &file], text, true, SIGNING).await?;
    if said.good && said.out.starts_with("-----BEGIN SSH SIGNATURE-----") {
        Ok(said.out + "\n")
    } else {
        Err(SignatureError::Unsigned { key: file, told: said.told })
    }
}

fn path(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn key(folder: &Path, name: &str) -> (std::path::PathBuf, HostKey) {
        let file = folder.join(name);
        let made = keygen(&["-q", "-t", "ed25519", "-N", "", "-f", &path(&file)], "", false, CHECKING).await;
        assert!(made.expect("ssh-keygen runs").good);
        let public = std::fs::read_to_string(file.with_extension("pub")).expect("it is there");
        (file, public.parse().expect("a key"))
    }

    #[tokio::test]
    async fn a_signature_is_of_one_text_for_one_purpose_by_one_key() {
        let folder = tempfile::tempdir().expect("a folder");
        let (ana_file, ana) = key(folder.path(), "ana").await;
        let (_, bo) = key(folder.path(), "bo").await;
        let keys = [bo.clone(), ana.clone()];
        let signed = sign("one\n", "purpose", &ana_file).await.expect("signed");
        assert_eq!(signer("one\n", "purpose", &signed, &keys).await.expect("hers"), &ana);
        for (text, purpose, signature, keys, why) in [
            ("two\n", "purpose", signed.as_str(), &keys[..], "not of what is asked"),
            ("one\n", "other", &signed, &keys, "not of what is asked"),
            ("one\n", "purpose", &signed, &keys[..1], "none of the keys"),
            ("one\n", "purpose", &signed, &[], "none of the keys"),
            ("one\n", "purpose", "", &keys, "none of the keys"),
            (
                "one\n",
                "purpose",
                "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n",
                &keys,
                "none of the keys",
            ),
        ] {
            let error = signer(text, purpose, signature, keys).await.expect_err(why).to_string();
            assert!(error.contains(why), "{error} lacks {why}");
        }
        let missing = sign("x", "purpose", &folder.path().join("nobody")).await.expect_err("no key").to_string();
        assert!(missing.contains("nobody"), "{missing}");
    }
}
