//! The only crate that names etcd: typed reads, watch, compare-and-swap and leases.
