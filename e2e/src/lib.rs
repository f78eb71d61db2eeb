//! End-to-end tests: the real binary, a real etcd and throwaway hosts.
