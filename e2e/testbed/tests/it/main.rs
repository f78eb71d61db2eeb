//! The testbed keeps its own promises: what it says it boots, cuts, mends and kills, it does.

mod etcd;
mod hosts;
