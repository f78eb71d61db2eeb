//! What is wrong with a request by itself, in the order in which etcd looks (`server/etcdserver/api/v3rpc/key.go`).
//!
//! The engine would refuse it too, though not with the same error where several things are wrong.

use super::protocol::etcdserverpb as rpc;
use crate::mvcc::{MOST_OPERATIONS, Refusal};

fn key(key: &[u8]) -> Result<(), Refusal> {
    if key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

pub(super) fn put(request: &rpc::PutRequest) -> Result<(), Refusal> {
    key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

pub(super) fn txn(request: &rpc::TxnRequest) -> Result<(), Refusal> {
    within(request, MOST_OPERATIONS)
}

/// A transaction in another has what that one leaves over.
fn within(request: &rpc::TxnRequest, most: usize) -> Result<(), Refusal> {
    let rpc::TxnRequest { compare, success, failure } = request;
    let operations = compare.len().max(success.len()).max(failure.len());
    let Some(left) = most.checked_sub(operations) else { return Err(Refusal::TooManyOperations) };
    compare.iter().try_for_each(|compare| key(&compare.key))?;
    success.iter().chain(failure).try_for_each(|inner| operation(inner, left))
}

fn operation(operation: &rpc::RequestOp, most: usize) -> Result<(), Refusal> {
    use rpc::request_op::Request;
    match &operation.request {
        Some(Request::RequestRange(request)) => key(&request.key),
        Some(Request::RequestPut(request)) => put(request),
        Some(Request::RequestDeleteRange(request)) => key(&request.key),
        Some(Request::RequestTxn(request)) => within(request, most),
        // What is not there is a key that is not found.
        None => Err(Refusal::KeyNotFound),
    }
}
