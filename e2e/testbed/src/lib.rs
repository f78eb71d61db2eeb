//! Throwaway hosts with a real systemd and a real sshd, booted, cut, mended and killed by tests.
