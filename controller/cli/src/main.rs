//! The `windlass` binary: wires the commands, one file each.

fn main() {}
