//! Generates the server's side of etcd's API from its protocol.

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=proto");
    // Keys and values are handed on, never copied.
    tonic_prost_build::configure().build_client(false).bytes(".").compile_protos(&["proto/rpc.proto"], &["proto"])
}
