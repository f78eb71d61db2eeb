//! A way to a store that can be shut: who is behind it hears nothing more, and whatever was said waits.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{sleep, spawn};
use std::time::Duration;

use anyhow::{Context, Result};

/// How often to look whether it has been opened, shut, or is gone.
const POLL: Duration = Duration::from_millis(20);

/// A way that is open until it is shut. Dropping it ends what goes through it.
#[derive(Debug)]
pub struct Gate {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    shut: AtomicBool,
    gone: AtomicBool,
}

impl Gate {
    /// A way to what listens at `to`.
    ///
    /// # Errors
    /// When no port is left.
    pub fn to(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((to.ip(), 0)).context("making a gate")?;
        listener.set_nonblocking(true).context("making a gate")?;
        let address = listener.local_addr().context("making a gate")?;
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        spawn(move || accept(&listener, to, &shared));
        Ok(Self { address, state })
    }

    /// Where to go in.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets nothing through, either way, without a word.
    pub fn shut(&self) {
        self.state.shut.store(true, Ordering::Relaxed);
    }

    /// Lets everything through again, and what has waited.
    pub fn open(&self) {
        self.state.shut.store(false, Ordering::Relaxed);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.state.gone.store(true, Ordering::Relaxed);
    }
}

impl State {
    /// Waits while it is shut; false when the gate is gone.
    fn may_pass(&self) -> bool {
        while self.shut.load(Ordering::Relaxed) && !self.gone.load(Ordering::Relaxed) {
            sleep(POLL);
        }
        !self.gone.load(Ordering::Relaxed)
    }
}

fn accept(listener: &TcpListener, to: SocketAddr, state: &Arc<State>) {
    while state.may_pass() {
        let Ok((client, _)) = listener.accept() else {
            sleep(POLL);
            continue;
        };
        // A store that is away refuses, and so does this.
        let Ok(server) = TcpStream::connect(to) else { continue };
        let pairs = [(client.try_clone(), server.try_clone()), (Ok(server), Ok(client))];
        for (from, to) in pairs {
            if let (Ok(from), Ok(to)) = (from, to) {
                let state = Arc::clone(state);
                spawn(move || carry(from, to, &state));
            }
        }
    }
}

/// Carries what one side says to the other until either ends.
fn carry(mut from: TcpStream, mut to: TcpStream, state: &State) {
    let mut bytes = [0; 16 << 10];
    if from.set_nonblocking(false).is_ok() && from.set_read_timeout(Some(POLL)).is_ok() {
        while state.may_pass() {
            match from.read(&mut bytes) {
                Ok(0) => break,
                Ok(length) => {
                    // It may have been shut while this was waited for.
                    if !state.may_pass() || to.write_all(&bytes[..length]).is_err() {
                        break;
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(_) => break,
            }
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
