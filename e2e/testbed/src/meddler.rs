//! Somebody who is always quicker: a proxy before etcd, behind which a key changes while a client reads it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result};

use crate::command::finish;
use crate::etcd::Etcd;

/// Makes the `etcdctl` that changes the key, from how often that was done before.
type Change = dyn Fn(u32) -> Command + Send + Sync;

/// Passes bytes between clients and an etcd that speaks no TLS. Whenever an answer holds a certain text, a key is
/// changed before the client gets that answer: so what the client has read is never what is there.
#[derive(Debug)]
pub struct Meddler {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    meddled: Arc<AtomicU32>,
    accepting: Option<JoinHandle<()>>,
}

impl Meddler {
    /// Puts `value(0)`, `value(1)`, … into `key`, one each time that an answer holds `marker`.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn before(
        etcd: &Etcd,
        marker: &str,
        key: &str,
        value: impl Fn(u32) -> String + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let endpoint = etcd.endpoint();
        let server: SocketAddr = endpoint.strip_prefix("http://").context("an etcd without TLS")?.parse()?;
        let (environment, program) = (etcd.etcdctl_environment(), etcd.etcdctl_command().get_program().to_owned());
        let (marker, key) = (marker.to_owned(), key.to_owned());
        let change: Arc<Change> = Arc::new(move |times| {
            let mut command = Command::new(&program);
            command.envs(environment.clone()).args(["put", &key, &value(times)]);
            command
        });
        let (over, meddled) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (ends, times) = (Arc::clone(&over), Arc::clone(&meddled));
        let accepting = std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(server) = TcpStream::connect(server) else { continue };
                let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { continue };
                std::thread::spawn(move || pass(from, to, |_| {}));
                let (marker, change, times) = (marker.clone(), Arc::clone(&change), Arc::clone(&times));
                std::thread::spawn(move || {
                    pass(server, client, |bytes| {
                        if bytes.windows(marker.len()).any(|window| window == marker.as_bytes()) {
                            let count = times.load(Ordering::SeqCst);
                            if finish(change(count), None).is_ok() {
                                times.store(count + 1, Ordering::SeqCst);
                            }
                        }
                    });
                });
            }
        });
        Ok(Self { address, over, meddled, accepting: Some(accepting) })
    }

    /// Where clients find it.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How often the key was changed.
    pub fn times(&self) -> u32 {
        self.meddled.load(Ordering::SeqCst)
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // It waits for a connection, and looks whether it is over only then.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// Passes bytes on until one end closes; `sees` is shown them first.
fn pass(mut from: TcpStream, mut to: TcpStream, sees: impl Fn(&[u8])) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                sees(&buffer[..length]);
                if to.write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
