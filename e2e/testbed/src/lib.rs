//! Throwaway hosts with a real systemd and a real sshd, booted, cut, mended and killed by tests.
//!
//! ```no_run
//! let testbed = windlass_testbed::Testbed::new()?;
//! let hosts = testbed.hosts(3)?;
//! assert_eq!(hosts[0].run(&["hostname"])?, "web1\n");
//! hosts[1].partition()?;
//! hosts[2].power_cut()?;
//! hosts[2].boot()?;
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! Everything here blocks: call it from `spawn_blocking` in asynchronous tests. Dropping a value
//! takes down what it started; what a killed process left behind, the next [`Testbed::new`] takes
//! down. Hosts need root; [`Etcd`] does not.

mod authority;
mod base;
mod cgroup;
mod command;
mod etcd;
mod etcd_tls;
mod faults;
mod host;
mod meddler;
mod named;
mod site;
mod subnet;
mod testbed;

pub use authority::{Authority, KeyPair, Validity};
pub use command::{Finished, NotUsable};
pub use etcd::{Durability, Etcd, EtcdOptions, EtcdVersion, Login, Transport};
pub use etcd_tls::Certificates;
pub use faults::Spare;
pub use host::Host;
pub use meddler::Meddler;
pub use named::{NamedHost, NamedTestbed, hold, list, take_down, up};
pub use testbed::{GcReport, Testbed, gc};
