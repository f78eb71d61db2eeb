//! Connecting: what works, and what is said when it does not.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use windlass_store::{ConnectOptions, LEADERSHIP_TTL, Problem, Scope, Store, Tls, User, Write, WriteError};
use windlass_testbed::{Certificates, Etcd, Login, Transport};

use crate::mirror::Mirror;
use crate::proxy::Proxy;
use crate::{check, check_with, connect, freeze, host, report, status, until};

/// The deadline of connecting, and some more for a busy machine.
const DEADLINE: Duration = Duration::from_secs(8);

fn options(etcd: &Etcd) -> ConnectOptions {
    ConnectOptions::new(etcd.endpoints())
}

fn with_user(etcd: &Etcd, name: &str, password: &str) -> ConnectOptions {
    let user = User { name: name.to_owned(), password: password.to_owned().into() };
    ConnectOptions { user: Some(user), ..options(etcd) }
}

fn tls(certificates: &Certificates) -> Tls {
    Tls { ca_file: certificates.authority.clone(), cert_file: None, key_file: None }
}

fn mutual(certificates: &Certificates) -> Tls {
    Tls {
        cert_file: Some(certificates.client.clone()),
        key_file: Some(certificates.client_key.clone()),
        ..tls(certificates)
    }
}

/// Connecting fails in time, and says all of `words`.
async fn refused(options: &ConnectOptions, words: &[&str]) -> Result<String> {
    let begun = Instant::now();
    let outcome = Store::connect(options).await;
    ensure!(begun.elapsed() < DEADLINE, "took {:?}", begun.elapsed());
    let Err(error) = outcome else { anyhow::bail!("connected, although it should say {words:?}") };
    let text = report(error);
    for word in words {
        ensure!(text.contains(word), "{word:?} is missing in: {text}");
    }
    Ok(text)
}

#[test]
fn what_is_wrong_with_an_endpoint_is_told() {
    check(async |etcd| {
        refused(
            &ConnectOptions::new(["127.0.0.1:1"]),
            &["127.0.0.1:1", "cannot be reached", "Connection refused", "hint: nothing listens"],
        )
        .await?;
        refused(
            &ConnectOptions::new(["no-such-host.invalid:2379"]),
            &["no-such-host.invalid", "cannot be reached", "does not resolve"],
        )
        .await?;
        refused(&ConnectOptions::new(Vec::<String>::new()), &["no endpoint"]).await?;
        refused(&ConnectOptions::new(["unix:///run/etcd"]), &["unix:///run/etcd", "http://"]).await?;
        refused(&ConnectOptions::new(["https://127.0.0.1:2379"]), &["--cacert"]).await?;
        let both = ConnectOptions::new(["127.0.0.1:1", "127.0.0.1:2"]);
        refused(&both, &["127.0.0.1:1", "127.0.0.1:2"]).await?;
        freeze(&etcd).await?;
        refused(&options(&etcd), &[&etcd.endpoint(), "did not answer in time"]).await?;
        etcd.thaw()?;
        connect(&etcd).await?;
        Ok(())
    });
}

#[test]
fn one_good_endpoint_is_enough() {
    check(async |etcd| {
        let endpoints = ["http://127.0.0.1:1".to_owned(), etcd.endpoint(), "http://127.0.0.1:2".to_owned()];
        let store = Store::connect(&ConnectOptions::new(endpoints)).await?;
        for _ in 0..20 {
            store.declare(&host("a"), b"x".to_vec()).await?;
        }
        Ok(())
    });
}

#[test]
fn tls_trusts_only_its_authority() {
    check_with(Transport::Tls, async |etcd| {
        let certificates = etcd.certificates().context("certificates")?;
        let good = ConnectOptions { tls: Some(tls(certificates)), ..options(&etcd) };
        Store::connect(&good).await?.declare(&host("a"), b"x".to_vec()).await?;

        let stranger = Tls { ca_file: certificates.stranger_authority.clone(), ..tls(certificates) };
        let bad = ConnectOptions { tls: Some(stranger), ..options(&etcd) };
        refused(&bad, &["not trusted", "--cacert"]).await?;

        let missing = Tls { ca_file: "/nonexistent/ca.pem".into(), ..tls(certificates) };
        refused(&ConnectOptions { tls: Some(missing), ..options(&etcd) }, &["/nonexistent/ca.pem", "No such file"])
            .await?;
        let wrong = Tls { ca_file: certificates.client_key.clone(), ..tls(certificates) };
        refused(&ConnectOptions { tls: Some(wrong), ..options(&etcd) }, &["holds no certificate"]).await?;
        let half = Tls { cert_file: Some(certificates.client.clone()), ..tls(certificates) };
        refused(&ConnectOptions { tls: Some(half), ..options(&etcd) }, &["needs its key"]).await?;

        let plain = ConnectOptions::new([etcd.endpoint().replace("https", "http")]);
        refused(&plain, &["hint: if it speaks TLS", "https://"]).await?;
        Ok(())
    });
}

#[test]
fn tls_to_a_plain_endpoint_is_told() {
    check(async |etcd| {
        let other = Etcd::start(windlass_testbed::EtcdOptions { version: etcd.version(), transport: Transport::Tls })?;
        let certificates = other.certificates().context("certificates")?;
        let endpoint = etcd.endpoint().replace("http", "https");
        let bad = ConnectOptions { tls: Some(tls(certificates)), ..ConnectOptions::new([endpoint]) };
        refused(&bad, &["hint: does it speak plain http"]).await?;
        Ok(())
    });
}

#[test]
fn mutual_tls_wants_a_certificate() {
    check_with(Transport::MutualTls, async |etcd| {
        let certificates = etcd.certificates().context("certificates")?;
        let good = ConnectOptions { tls: Some(mutual(certificates)), ..options(&etcd) };
        Store::connect(&good).await?.declare(&host("a"), b"x".to_vec()).await?;
        let bad = ConnectOptions { tls: Some(tls(certificates)), ..options(&etcd) };
        refused(&bad, &["client certificate", "--cert"]).await?;
        Ok(())
    });
}

#[test]
fn users_are_known_by_their_password() {
    check(async |etcd| {
        refused(&with_user(&etcd, "root", "sesame"), &["authentication is not enabled", "leave out --user"]).await?;
        etcd.enable_auth("sesame")?;
        Store::connect(&with_user(&etcd, "root", "sesame")).await?.declare(&host("a"), b"x".to_vec()).await?;
        let text = refused(&with_user(&etcd, "root", "wrong-secret"), &["credentials", "password"]).await?;
        ensure!(!text.contains("wrong-secret"), "{text}");
        refused(&with_user(&etcd, "nobody", "sesame"), &["credentials"]).await?;
        refused(&options(&etcd), &["credentials", "--user"]).await?;
        Ok(())
    });
}

#[test]
fn a_user_kept_to_declarations_can_use_them_and_nothing_else() {
    check(async |etcd| {
        etcd.enable_auth("sesame")?;
        let login = Login { user: "dev".to_owned(), password: "dev".to_owned() };
        etcd.add_user(&login, "/windlass/declared/")?;
        let store = Store::connect(&with_user(&etcd, "dev", "dev")).await?;
        store.declare(&host("a"), b"x".to_vec()).await?;
        let refused = store.request(&host("a"), &"r1".parse()?, b"x".to_vec()).await;
        let denied = matches!(&refused, Err(WriteError::NotApplied(error)) if error.problem == Problem::Denied);
        ensure!(denied, "{refused:?}");
        Ok(())
    });
}

/// Makes etcd forget the tokens that it gave out, as it does by itself after five minutes without use.
fn forget_tokens(etcd: &Etcd) -> Result<()> {
    etcd.etcdctl(&["auth", "disable"])?;
    let enabled = etcd.etcdctl_command().env_remove("ETCDCTL_USER").args(["auth", "enable"]).output()?.status;
    ensure!(enabled.success());
    Ok(())
}

#[test]
fn a_token_that_expired_is_renewed() {
    check(async |etcd| {
        etcd.enable_auth("sesame")?;
        let proxy = Proxy::to(&etcd.endpoint()).await?;
        let options = ConnectOptions { endpoints: vec![proxy.endpoint()], ..with_user(&etcd, "root", "sesame") };
        let store = Store::connect(&options).await?;
        let mut mirror = Mirror::of(store.follow(Scope::state())).await?;
        let leadership = store.campaign("tester", LEADERSHIP_TTL).await?;
        let write = Write::put(status("a"), "y");

        // With every stream open, then with every stream to be opened again.
        forget_tokens(&etcd)?;
        store.commit(&leadership, std::slice::from_ref(&write)).await?;
        proxy.cut();
        mirror.until("the interruption", |mirror| mirror.interruptions == 1).await?;
        forget_tokens(&etcd)?;
        proxy.pass(&etcd.endpoint())?;
        let begun = Instant::now();
        let revision = store.declare(&host("a"), b"x".to_vec()).await?;
        mirror.until("the declaration", |mirror| mirror.revision >= revision).await?;
        ensure!(begun.elapsed() < Duration::from_secs(10), "took {:?}", begun.elapsed());
        // Beyond the lease: the keep-alives are let in again too.
        tokio::time::sleep(LEADERSHIP_TTL + Duration::from_secs(2)).await;
        ensure!(leadership.is_valid());
        store.commit(&leadership, &[write]).await?;
        leadership.resign().await?;
        Ok(())
    });
}

/// `openssl s_server` with one cipher of TLS 1.2, which is all that it offers.
struct OneCipher(std::process::Child);

impl OneCipher {
    fn start(certificates: &Certificates, cipher: &str) -> Result<(Self, String)> {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = format!("127.0.0.1:{port}");
        let server = std::process::Command::new("openssl")
            .args(["s_server", "-quiet", "-tls1_2", "-alpn", "h2", "-accept", &address, "-cipher", cipher])
            .arg("-cert")
            .arg(&certificates.client)
            .arg("-key")
            .arg(&certificates.client_key)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()?;
        Ok((Self(server), address))
    }
}

impl Drop for OneCipher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn other_ciphers_are_refused() {
    check_with(Transport::Tls, async |etcd| {
        let certificates = etcd.certificates().context("certificates")?;
        for (cipher, agreed) in [
            ("ECDHE-ECDSA-AES128-GCM-SHA256", false),
            ("ECDHE-ECDSA-AES256-SHA384", false),
            ("ECDHE-ECDSA-AES256-GCM-SHA384", true),
            ("ECDHE-ECDSA-CHACHA20-POLY1305", true),
        ] {
            let (_server, address) = OneCipher::start(certificates, cipher)?;
            until("it listens", async || Ok(tokio::net::TcpStream::connect(&address).await.is_ok())).await?;
            let options = ConnectOptions { tls: Some(tls(certificates)), ..ConnectOptions::new([address]) };
            // It is no etcd, so that connecting always fails, one way or the other.
            let text = refused(&options, &[]).await?;
            ensure!(text.contains("hint: it must offer TLS 1.2 or later, with") != agreed, "{cipher}: {text}");
        }
        Ok(())
    });
}
