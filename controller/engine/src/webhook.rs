//! `POST /hooks/git/<name>`: a Git server says that something is new.
//!
//! What it says beyond that is not read: the repository is asked, as it is at each interval. So a call that is repeated,
//! or one of a flood, costs at most one question a second.

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use hyper::{HeaderMap, Request, StatusCode};
use sha2::{Digest as _, Sha256};
use windlass_crds::document::Declaration;
use windlass_crds::id::{RepoName, ResourceKey};

use crate::cache::Cache;

/// The most bytes of a call: GitHub sends 25 MB at most. They are digested as they come, and never kept.
const MOST: u64 = 25 << 20;

/// The path below which hooks are.
pub const PATH: &str = "/hooks/git/";

/// SHA-256 takes its input in blocks of so many bytes (FIPS 180-4).
const BLOCK: usize = 64;

/// HMAC-SHA256 (RFC 2104), over what comes piece by piece.
struct Hmac {
    inner: Sha256,
    outer: [u8; BLOCK],
}

impl Hmac {
    fn new(secret: &[u8]) -> Self {
        let mut key = [0; BLOCK];
        if secret.len() > BLOCK {
            key[..32].copy_from_slice(&Sha256::digest(secret));
        } else {
            key[..secret.len()].copy_from_slice(secret);
        }
        let mut inner = Sha256::new();
        inner.update(key.map(|byte| byte ^ 0x36));
        Self { inner, outer: key.map(|byte| byte ^ 0x5c) }
    }

    fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
    }

    fn finish(self) -> [u8; 32] {
        let mut outer = Sha256::new();
        outer.update(self.outer);
        outer.update(self.inner.finalize());
        outer.finalize().into()
    }
}

/// Whether two texts are the same, in a time that does not tell where they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differ, (one, other)| differ | (one ^ other)) == 0
}

/// How a call proves that it comes from who knows the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Proof {
    /// HMAC-SHA256 of the body, in hexadecimal digits: GitHub, Gitea, Forgejo.
    Signature(String),
    /// The secret itself: GitLab.
    Token(Vec<u8>),
    /// None.
    Missing,
}

impl Proof {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(signature) = text("x-hub-signature-256") {
            return signature
                .strip_prefix("sha256=")
                .map_or(Self::Missing, |digits| Self::Signature(digits.to_owned()));
        }
        if let Some(signature) = text("x-gitea-signature") {
            return Self::Signature(signature.to_owned());
        }
        match headers.get("x-gitlab-token") {
            Some(token) => Self::Token(token.as_bytes().to_owned()),
            None => Self::Missing,
        }
    }

    /// Whether it fits. Of tokens the digests are compared, so that not even the length is told.
    fn fits(&self, secret: &[u8], signed: &[u8; 32]) -> bool {
        match self {
            Self::Signature(digits) => {
                let expected: String = signed.iter().map(|byte| format!("{byte:02x}")).collect();
                same(digits.to_ascii_lowercase().as_bytes(), expected.as_bytes())
            }
            Self::Token(token) => same(&Sha256::digest(token), &Sha256::digest(secret)),
            Self::Missing => false,
        }
    }
}

/// What a call amounts to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// The repository is to be asked.
    Rings(RepoName),
    /// It is refused.
    Refused(StatusCode, &'static str),
}

/// The secret of a ConfigRepo's webhook.
fn secret(cache: &Cache, name: &RepoName) -> Option<Vec<u8>> {
    let read = cache.resource(&ResourceKey::ConfigRepo(name.clone())).declared?;
    let Ok(Declaration::ConfigRepo(repo)) = read.parsed.as_deref() else { return None };
    let webhook = repo.spec.webhook.as_ref()?;
    let secret = std::env::var_os(&webhook.secret_env).filter(|secret| !secret.is_empty());
    if secret.is_none() {
        tracing::warn!(repo = %name, variable = webhook.secret_env, "the secret of the webhook is not in the environment");
    }
    secret.map(std::os::unix::ffi::OsStringExt::into_vec)
}

/// Reads a call.
pub async fn read(cache: &Cache, request: Request<Incoming>) -> Call {
    if request.body().size_hint().lower() > MOST {
        return Call::Refused(StatusCode::PAYLOAD_TOO_LARGE, "too much");
    }
    let name = request.uri().path().strip_prefix(PATH).and_then(|name| name.parse::<RepoName>().ok());
    // Whoever guesses names is not told which there are, nor which have a secret.
    let refused = Call::Refused(StatusCode::FORBIDDEN, "no such hook, or the signature does not fit");
    let Some((secret, name)) = name.and_then(|name| Some((secret(cache, &name)?, name))) else { return refused };
    let proof = Proof::of(request.headers());
    let mut hmac = Hmac::new(&secret);
    let mut body = request.into_body();
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return Call::Refused(StatusCode::BAD_REQUEST, "it ends early") };
        let piece: &Bytes = match frame.data_ref() {
            Some(piece) => piece,
            None => continue,
        };
        length += piece.len() as u64;
        if length > MOST {
            return refused;
        }
        hmac.update(piece);
    }
    if proof.fits(&secret, &hmac.finish()) { Call::Rings(name) } else { refused }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(secret: &[u8], text: &[u8]) -> String {
        let mut hmac = Hmac::new(secret);
        text.chunks(7).for_each(|piece| hmac.update(piece));
        hmac.finish().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// RFC 4231, cases 1, 2, 3 and 6, and GitHub's own example.
    #[test]
    fn signatures_are_those_of_the_rfc() {
        for (secret, text, expected) in [
            (&[0x0b; 20][..], &b"Hi There"[..], "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (&[0xaa; 20], &[0xdd; 50], "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"),
            (
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (
                b"It's a Secret to Everybody",
                b"Hello, World!",
                "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
            ),
        ] {
            assert_eq!(signed(secret, text), expected);
        }
    }

    #[test]
    fn only_who_knows_the_secret_fits() {
        let headers = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a header"));
            headers
        };
        let good = signed(b"secret", b"body");
        let digest = |secret: &[u8]| {
            let mut hmac = Hmac::new(secret);
            hmac.update(b"body");
            hmac.finish()
        };
        for (name, value, fits) in [
            ("x-hub-signature-256", format!("sha256={good}"), true),
            ("x-hub-signature-256", format!("sha256={}", good.to_uppercase()), true),
            ("x-hub-signature-256", good.clone(), false),
            ("x-hub-signature-256", format!("sha256={}", signed(b"other", b"body")), false),
            ("x-hub-signature-256", format!("sha256={}", signed(b"secret", b"other")), false),
            ("x-hub-signature-256", "sha256=".to_owned(), false),
            ("x-gitea-signature", good.clone(), true),
            ("x-gitea-signature", String::new(), false),
            ("x-gitlab-token", "secret".to_owned(), true),
            ("x-gitlab-token", "secre".to_owned(), false),
            ("x-gitlab-token", String::new(), false),
            ("x-other", good.clone(), false),
        ] {
            let proof = Proof::of(&headers(name, &value));
            assert_eq!(proof.fits(b"secret", &digest(b"secret")), fits, "{name}: {value}");
        }
        // The older header of GitHub is SHA-1, and does not count.
        assert_eq!(Proof::of(&headers("x-hub-signature", "sha1=00")), Proof::Missing);
    }
}
