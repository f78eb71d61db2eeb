//! The embedded store as it is started: who is let in, what they may do, and who is told what is wrong.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use windlass_store::embedded::{Embedded, EmbeddedError, EmbeddedOptions, Protection, give_certificate, local};
use windlass_store::serve::PeerName;
use windlass_store::{ConnectOptions, Key, Prefix, Store, Tls};
use windlass_testbed::EtcdVersion;

use crate::{host, report};

fn options(data_dir: &Path, listen: &str, protection: Protection) -> EmbeddedOptions {
    let listen: SocketAddr = listen.parse().expect("an address");
    EmbeddedOptions { data_dir: data_dir.to_owned(), listen, names: Vec::new(), protection, prefix: Prefix::default() }
}

/// A store on a port of its own.
async fn start(data_dir: &Path) -> Result<Embedded> {
    Ok(Embedded::start(options(data_dir, "127.0.0.1:0", Protection::Certificates)).await?)
}

/// What `etcdctl` says, and whether it succeeded.
async fn etcdctl(
    version: EtcdVersion,
    options: &ConnectOptions,
    tls: Option<&Tls>,
    arguments: &[&str],
) -> Result<(bool, String)> {
    let endpoint = options.endpoints[0].trim_start_matches("https://");
    let mut command = Command::new(version.etcdctl());
    command.env("ETCDCTL_API", "3").args(["--endpoints", endpoint, "--dial-timeout", "2s", "--command-timeout", "3s"]);
    if let Some(Tls { ca_file, cert_file, key_file }) = tls {
        command.arg("--cacert").arg(ca_file);
        if let (Some(cert), Some(key)) = (cert_file, key_file) {
            command.arg("--cert").arg(cert).arg("--key").arg(key);
        }
    }
    command.args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await?.context("cannot run etcdctl")?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.success(), said))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_own_certificates_open_it_and_nothing_else_does() -> Result<()> {
    let (folder, elsewhere) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let embedded = start(folder.path()).await?;
    let ours = local(folder.path(), Prefix::default())?.context("it says where it is")?;
    assert_eq!(ours.endpoints, embedded.options().endpoints);
    let store = Store::connect(&ours).await?;
    store.declare(&host("a"), "{}".into()).await?;
    // A store of the same kind, whose authority is another.
    let other = start(elsewhere.path()).await?;
    let theirs = local(elsewhere.path(), Prefix::default())?.context("it says where it is")?;
    let ours_tls = ours.tls.clone().context("it has certificates")?;
    let theirs_tls = theirs.tls.clone().context("it has certificates")?;
    let only_ca = Tls { cert_file: None, key_file: None, ..ours_tls.clone() };
    let stranger = Tls { ca_file: ours_tls.ca_file.clone(), ..theirs_tls.clone() };
    let rows = [
        (Some(&ours_tls), true),
        (None, false),
        (Some(&only_ca), false),
        (Some(&stranger), false),
        (Some(&theirs_tls), false),
    ];
    for version in EtcdVersion::ALL {
        for (tls, opens) in rows {
            let (done, said) = etcdctl(version, &ours, tls, &["get", "--prefix", "/", "--keys-only"]).await?;
            assert_eq!(
                (done, said.contains("/windlass/declared/hosts/a")),
                (opens, opens),
                "{version:?} {tls:?}: {said}"
            );
        }
    }
    for tls in [Some(only_ca), Some(stranger), None] {
        let refused = Store::connect(&ConnectOptions { tls, ..ours.clone() }).await;
        ensure!(refused.is_err(), "a client without our certificate");
    }
    other.stop().await?;
    embedded.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_a_given_certificate_declares_and_asks_and_changes_nothing_else() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let embedded = start(folder.path()).await?;
    let ours = local(folder.path(), Prefix::default())?.context("it says where it is")?;
    let out = folder.path().join("ana");
    let ana: PeerName = "ana".parse()?;
    let tls = give_certificate(folder.path(), &ana, &out)?;
    let again = give_certificate(folder.path(), &ana, &out).expect_err("it is there");
    ensure!(report(again).contains("ana.pem is there already"));
    // A lease like the leader's.
    let own = ours.tls.as_ref();
    let (granted, told) = etcdctl(EtcdVersion::V3_5, &ours, own, &["lease", "grant", "600"]).await?;
    ensure!(granted, "{told}");
    let lease = told.split_whitespace().nth(1).context("its number")?.to_owned();
    etcdctl(EtcdVersion::V3_5, &ours, own, &["put", "/windlass/control/leader", "x", "--lease", &lease]).await?;
    let taken = give_certificate(folder.path(), &"controller".parse()?, &out).expect_err("it is ours");
    ensure!(matches!(taken, EmbeddedError::Taken(_)));
    for version in EtcdVersion::ALL {
        let rows: [(&[&str], &str); 17] = [
            (&["put", "/windlass/declared/hosts/a", "{}"], "OK"),
            (&["get", "--prefix", "/windlass/"], "/windlass/declared/hosts/a\n{}"),
            (&["put", "/windlass/owned/default/web", "{}"], "permission denied: ana may write only below"),
            (&["put", "/windlass/control/cluster-id", "00000000"], "permission denied: ana may write only below"),
            (&["del", "--prefix", "/windlass/"], "permission denied: ana may write only below"),
            (&["compaction", "1"], "permission denied: ana may not compact; that is for"),
            (&["defrag"], "permission denied: ana may not defragment; that is for"),
            (&["put", "/windlass/status/hosts/a", "{}"], "permission denied: ana may write only below"),
            (&["put", "/elsewhere", "{}"], "permission denied: ana may write only below"),
            (&["del", "/windlass/declared/", "/windlass/requests/z"], "permission denied: ana may write only below"),
            (&["move-leader", "1234"], "windlass store migrate"),
            (&["member", "add", "x", "--peer-urls=http://127.0.0.1:1"], "windlass store migrate"),
            (&["user", "add", "ana:ana"], "windlass store certificate"),
            (&["lease", "grant", "60"], "granted with TTL(60s)"),
            (&["lease", "revoke", "1234"], "permission denied: ana may write only below"),
            (&["lease", "keep-alive", "--once", &lease], "permission denied: ana may not keep a lease"),
            (&["del", "/windlass/declared/hosts/a"], "1"),
        ];
        for (arguments, expected) in rows {
            let (_, said) = etcdctl(version, &ours, Some(&tls), arguments).await?;
            ensure!(said.contains(expected), "{version:?} {arguments:?}: {said:?} lacks {expected:?}");
        }
    }
    embedded.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_wrote_what_is_known_by_the_certificate_until_that_is_compacted_away() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let embedded = start(folder.path()).await?;
    let tls = give_certificate(folder.path(), &"ana".parse()?, &folder.path().join("ana"))?;
    let store = Store::connect(embedded.options()).await?.knowing(embedded.authors());
    let ana = Store::connect(&ConnectOptions { tls: Some(tls), ..embedded.options().clone() }).await?;
    let (a, b) = (host("a"), host("b"));
    let (key_a, key_b) = (Key::Declared(a.clone()), Key::Declared(b.clone()));
    let hers = ana.declare(&a, "{}".into()).await?;
    let ours = store.declare(&a, "{ }".into()).await?;
    let name = |key: &Key, at| store.author(key, at).map(|name| name.to_string());
    assert_eq!(name(&key_a, hers).as_deref(), Some("ana"));
    assert_eq!(name(&key_a, ours).as_deref(), Some("controller"));
    // She did not write that one.
    assert_eq!(name(&key_b, hers), None);
    ana.declare(&b, "{}".into()).await?;
    let now = store.revision().await?;
    let (done, said) = etcdctl(
        EtcdVersion::V3_5,
        embedded.options(),
        embedded.options().tls.as_ref(),
        &["compaction", &now.0.to_string()],
    )
    .await?;
    ensure!(done, "{said}");
    assert_eq!(name(&key_a, hers), None, "nobody is named who is not known any more");
    // In an etcd nobody is known.
    let elsewhere = Store::connect(embedded.options()).await?;
    assert_eq!(elsewhere.author(&key_b, now), None);
    embedded.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_kept_is_there_the_next_time_and_nobody_elses_to_read() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let first = start(folder.path()).await?;
    Store::connect(first.options()).await?.declare(&host("a"), "{}".into()).await?;
    match start(folder.path()).await.err().map(report) {
        Some(told) if told.contains(&format!("process {}", std::process::id())) => {}
        other => bail!("a second opener is told: {other:?}"),
    }
    let certificate = std::fs::read(folder.path().join("store/tls/server.pem"))?;
    first.stop().await?;
    let second = start(folder.path()).await?;
    let store = Store::connect(second.options()).await?;
    ensure!(store.get(&Key::Declared(host("a"))).await?.is_some());
    assert_eq!(std::fs::read(folder.path().join("store/tls/server.pem"))?, certificate, "a good one stays");
    let mut folders = vec![folder.path().join("store")];
    while let Some(at) = folders.pop() {
        ensure!(std::fs::metadata(&at)?.permissions().mode() & 0o077 == 0, "{}", at.display());
        if at.is_dir() {
            folders.extend(std::fs::read_dir(&at)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<PathBuf>>>()?);
        }
    }
    second.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_certificates_it_is_on_loopback_only() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let exposed = Embedded::start(options(folder.path(), "0.0.0.0:0", Protection::InsecureLoopback)).await;
    ensure!(matches!(exposed.err(), Some(EmbeddedError::Exposed(_))));
    let open = Embedded::start(options(folder.path(), "127.0.0.1:0", Protection::InsecureLoopback)).await?;
    let ours = local(folder.path(), Prefix::default())?.context("it says where it is")?;
    assert_eq!(ours.tls, None);
    Store::connect(&ours).await?;
    open.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_told_with_what_to_do() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let error = Embedded::start(options(folder.path(), &address, Protection::Certificates)).await.err();
    let told = report(error.context("it is taken")?);
    ensure!(told.contains("--etcd-listen") && told.contains("--store etcd"), "{told}");
    Ok(())
}
