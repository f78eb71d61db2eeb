//! `windlass serve` by itself: how it starts, what it says, and how it stops.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::world::World;

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// A controller that runs; dropped, it is killed.
struct Serving {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStderr>>,
    seen: Vec<String>,
}

impl Serving {
    fn start(world: &World, more: &[&str], environment: &[(&str, &str)]) -> Self {
        let data = world.dir.path().join("data");
        let data = data.to_str().expect("UTF-8");
        let arguments = [&["serve", "--listen", "127.0.0.1:0", "--data-dir", data], more].concat();
        let mut command = world.command(&arguments);
        command.envs(environment.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary runs");
        let lines = BufReader::new(child.stderr.take().expect("stderr")).lines();
        Self { child, lines, seen: Vec::new() }
    }

    /// Reads the log until a line says this. A controller that ends first fails the test.
    fn until(&mut self, words: &str) -> String {
        loop {
            let line = self.lines.next().unwrap_or_else(|| panic!("no {words:?} in {:#?}", self.seen));
            let line = line.expect("UTF-8");
            self.seen.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Asks it to stop; returns its exit code and all that it logged.
    fn stop(mut self) -> (Option<i32>, Vec<String>) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").arg(id).status().expect("kill").success());
        while let Some(Ok(line)) = self.lines.next() {
            self.seen.push(line);
        }
        let code = self.child.wait().expect("it ends").code();
        (code, std::mem::take(&mut self.seen))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_port_in_use_is_said_and_ends_it() {
    let world = World::empty();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = world
        .command(&["serve", "--listen", &address, "--data-dir", "data"])
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    let told = world.show(&output).replace(&address, "ADDRESS");
    insta::assert_snapshot!(told, @r"
    -- stderr
    error: cannot listen on ADDRESS
      cause: Address already in use (os error 98)
    hint: --listen takes another address
    -- exit 1
    ");
}

#[test]
fn what_opentelemetry_is_asked_in_vain_is_refused_at_the_start() {
    let world = World::empty();
    let output = world
        .command(&["serve", "--listen", "127.0.0.1:0", "--data-dir", "data"])
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    insta::assert_snapshot!(world.show(&output), @r"
    -- stderr
    error: OTEL_EXPORTER_OTLP_PROTOCOL=http/json is not supported by this version, which knows grpc and http/protobuf
    -- exit 2
    ");
}

#[test]
fn a_json_log_is_one_object_a_line() {
    let world = World::empty();
    let mut serving = Serving::start(&world, &["--log-format", "json"], &[]);
    serving.until("leading");
    let (code, lines) = serving.stop();
    assert_eq!(code, Some(0), "{lines:#?}");
    assert!(lines.len() >= 3, "{lines:#?}");
    for line in &lines {
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        for name in ["timestamp", "level", "target", "message"] {
            assert!(object[name].is_string(), "{name} in {line}");
        }
    }
}

/// The levels at which these targets log, of a controller under this `WINDLASS_LOG` that comes to lead.
fn levels_of(log: &str, targets: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let world = World::empty();
    let mut serving = Serving::start(&world, &["--log-format", "json"], &[("WINDLASS_LOG", log)]);
    serving.until("leading");
    let (code, lines) = serving.stop();
    assert_eq!(code, Some(0), "{lines:#?}");
    let objects = lines.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).expect(line));
    let of_these = objects.filter(|object| object["target"].as_str().is_some_and(&targets));
    of_these.map(|object| object["level"].as_str().expect("a level").to_owned()).collect()
}

#[test]
fn a_bare_level_does_not_log_what_other_crates_do() {
    let ours = |target: &str| target.starts_with("windlass");
    let theirs = levels_of("debug", |target| !ours(target));
    assert!(theirs.iter().all(|level| level == "WARN" || level == "ERROR"), "{theirs:?}");
    let named = levels_of("debug,h2=debug", |target| target.starts_with("h2"));
    assert!(named.contains("DEBUG"), "{named:?}");
    assert!(levels_of("debug", ours).contains("INFO"));
}

/// Accepts connections, and never says a word on them; counts them.
fn mute_collector() -> (SocketAddr, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming().flatten() {
            counted.fetch_add(1, Ordering::Relaxed);
            kept.push(stream);
        }
    });
    (address, count)
}

#[track_caller]
fn check_dead_collector(protocol: &str, endpoint: &str) {
    let world = World::empty();
    let environment = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "200"),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let mut serving = Serving::start(&world, &[], &environment);
    serving.until("leading");
    let zone = "apiVersion: windlass/v1\nkind: NetworkZone\nmetadata: {name: lab}\nspec: {location: vpn, cidrs: [198.18.0.0/15]}\n";
    world.put("declared/networkzones/lab", zone);
    serving.until("traces cannot be delivered");
    // More spans, and more batches that fail, until a status says that work went on all the while.
    let deadline = Instant::now() + PATIENCE;
    let mut generation = 0;
    for round in 1..=5 {
        world.put("declared/networkzones/lab", &format!("{zone}# {round}\n"));
        generation = world.generation("declared/networkzones/lab");
        while !world.value("status/networkzones/lab").contains(&format!("\"observedGeneration\":{generation}")) {
            assert!(Instant::now() < deadline, "the zone was not looked at");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    assert!(generation > 0);
    let began = Instant::now();
    let (code, lines) = serving.stop();
    assert!(began.elapsed() < Duration::from_secs(10), "it took {:?} to stop", began.elapsed());
    assert_eq!(code, Some(0), "{lines:#?}");
    let complaints: Vec<&String> = lines.iter().filter(|line| line.contains("traces cannot")).collect();
    assert_eq!(complaints.len(), 1, "{complaints:#?}");
}

#[test]
fn a_dead_collector_holds_up_nothing() {
    let unused = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    check_dead_collector("http/protobuf", &format!("http://{unused}"));
    check_dead_collector("grpc", &format!("http://{unused}"));
}

#[test]
fn a_mute_collector_holds_up_nothing() {
    let (address, connections) = mute_collector();
    check_dead_collector("http/protobuf", &format!("http://{address}"));
    assert!(connections.load(Ordering::Relaxed) > 0, "nobody called the collector");
}
