//! etcd's protocol, generated from `proto/`.
#![allow(missing_docs, unreachable_pub, dead_code, clippy::all, reason = "generated")]

pub(crate) mod authpb {
    tonic::include_proto!("authpb");
}
pub(crate) mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
pub(crate) mod mvccpb {
    tonic::include_proto!("mvccpb");
}
