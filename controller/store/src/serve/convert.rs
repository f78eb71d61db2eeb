//! Between etcd's messages and the engine's words.

use tonic::{Code, Status};

use super::protocol::etcdserverpb as rpc;
use super::protocol::mvccpb;
use crate::mvcc::{
    Answer, Change, Compare, Delete, Detail, Field, Found, KeyRange, KeyValue, LeaseNumber, Operand, Operation,
    Outcome, Put, Range, Refusal, Relation, SortBy, SortOrder, Txn, Within,
};

/// What a request says wrongly, in etcd's words.
fn wrong(why: &'static str) -> Status {
    Status::invalid_argument(why)
}

pub(super) fn range(request: rpc::RangeRequest) -> Result<Range, Status> {
    let order = match rpc::range_request::SortOrder::try_from(request.sort_order) {
        Ok(rpc::range_request::SortOrder::None) => SortOrder::None,
        Ok(rpc::range_request::SortOrder::Ascend) => SortOrder::Ascending,
        Ok(rpc::range_request::SortOrder::Descend) => SortOrder::Descending,
        Err(_) => return Err(wrong("etcdserver: invalid sort option")),
    };
    let sort_by = match rpc::range_request::SortTarget::try_from(request.sort_target) {
        Ok(rpc::range_request::SortTarget::Key) => SortBy::Key,
        Ok(rpc::range_request::SortTarget::Version) => SortBy::Version,
        Ok(rpc::range_request::SortTarget::Create) => SortBy::Created,
        Ok(rpc::range_request::SortTarget::Mod) => SortBy::Modified,
        Ok(rpc::range_request::SortTarget::Value) => SortBy::Value,
        Err(_) => return Err(wrong("etcdserver: invalid sort option")),
    };
    let detail = match (request.count_only, request.keys_only) {
        (true, _) => Detail::Count,
        (false, true) => Detail::Keys,
        (false, false) => Detail::Pairs,
    };
    Ok(Range {
        keys: KeyRange::new(request.key, request.range_end),
        revision: request.revision,
        limit: request.limit,
        sort_by,
        order,
        detail,
        modified: Within { least: request.min_mod_revision, most: request.max_mod_revision },
        created: Within { least: request.min_create_revision, most: request.max_create_revision },
    })
}

/// One that was checked.
pub(super) fn put(request: rpc::PutRequest) -> Put {
    let value = if request.ignore_value { Field::Keep } else { Field::New(request.value) };
    let lease = if request.ignore_lease { Field::Keep } else { Field::New(LeaseNumber(request.lease)) };
    Put { key: request.key, value, lease, tell_previous: request.prev_kv }
}

pub(super) fn delete(request: rpc::DeleteRangeRequest) -> Delete {
    Delete { keys: KeyRange::new(request.key, request.range_end), tell_previous: request.prev_kv }
}

/// One that was checked.
pub(super) fn txn(request: rpc::TxnRequest) -> Result<Txn, Status> {
    let operations = |list: Vec<rpc::RequestOp>| list.into_iter().map(operation).collect::<Result<Vec<_>, _>>();
    Ok(Txn {
        compare: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: operations(request.success)?,
        failure: operations(request.failure)?,
    })
}

fn operation(operation: rpc::RequestOp) -> Result<Operation, Status> {
    use rpc::request_op::Request;
    Ok(match operation.request {
        Some(Request::RequestRange(request)) => Operation::Range(range(request)?),
        Some(Request::RequestPut(request)) => Operation::Put(put(request)),
        Some(Request::RequestDeleteRange(request)) => Operation::Delete(delete(request)),
        Some(Request::RequestTxn(request)) => Operation::Txn(txn(request)?),
        None => return Err(status(&Refusal::KeyNotFound)),
    })
}

fn compare(compare: rpc::Compare) -> Result<Compare, Status> {
    use rpc::compare::{CompareResult, CompareTarget, TargetUnion};
    let relation = match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => Relation::Equal,
        Ok(CompareResult::Greater) => Relation::Greater,
        Ok(CompareResult::Less) => Relation::Less,
        Ok(CompareResult::NotEqual) => Relation::NotEqual,
        Err(_) => return Err(wrong("the comparison is none of =, !=, <, >")),
    };
    let target =
        CompareTarget::try_from(compare.target).map_err(|_| wrong("the target of the comparison is unknown"))?;
    // Where the operand is not of the target's kind, etcd takes it for 0, or for nothing.
    let operand = match (target, compare.target_union) {
        (CompareTarget::Version, Some(TargetUnion::Version(version))) => Operand::Version(version),
        (CompareTarget::Version, _) => Operand::Version(0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(created))) => Operand::Created(created),
        (CompareTarget::Create, _) => Operand::Created(0),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(modified))) => Operand::Modified(modified),
        (CompareTarget::Mod, _) => Operand::Modified(0),
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => Operand::Value(value),
        (CompareTarget::Value, _) => Operand::Value(Default::default()),
        (CompareTarget::Lease, Some(TargetUnion::Lease(lease))) => Operand::Lease(lease),
        (CompareTarget::Lease, _) => Operand::Lease(0),
    };
    Ok(Compare { keys: KeyRange::new(compare.key, compare.range_end), relation, operand })
}

pub(super) fn pair(pair: KeyValue) -> mvccpb::KeyValue {
    let KeyValue { key, value, created, modified, version, lease } = pair;
    mvccpb::KeyValue { key, value, create_revision: created, mod_revision: modified, version, lease: lease.0 }
}

pub(super) fn pairs(list: Vec<KeyValue>) -> Vec<mvccpb::KeyValue> {
    list.into_iter().map(pair).collect()
}

pub(super) fn event(change: Change, previous: Option<KeyValue>) -> mvccpb::Event {
    let kind = if change.deleted { mvccpb::event::EventType::Delete } else { mvccpb::event::EventType::Put };
    mvccpb::Event { r#type: kind.into(), kv: Some(pair(change.pair)), prev_kv: previous.map(pair) }
}

/// A header that says only the revision, as those within a transaction's answer do.
fn inner(revision: i64) -> Option<rpc::ResponseHeader> {
    Some(rpc::ResponseHeader { revision, ..Default::default() })
}

pub(super) fn found(header: Option<rpc::ResponseHeader>, found: Found) -> rpc::RangeResponse {
    rpc::RangeResponse { header, kvs: pairs(found.pairs), more: found.more, count: found.count }
}

pub(super) fn outcome(header: Option<rpc::ResponseHeader>, outcome: Outcome) -> rpc::TxnResponse {
    let responses = outcome.answers.into_iter().map(answer).collect();
    rpc::TxnResponse { header, succeeded: outcome.succeeded, responses }
}

fn answer(answer: Answer) -> rpc::ResponseOp {
    use rpc::response_op::Response;
    let response = match answer {
        Answer::Range(at, what) => Response::ResponseRange(found(inner(at), what)),
        Answer::Put(at, previous) => {
            Response::ResponsePut(rpc::PutResponse { header: inner(at), prev_kv: previous.map(pair) })
        }
        Answer::Delete(at, deleted, previous) => Response::ResponseDeleteRange(rpc::DeleteRangeResponse {
            header: inner(at),
            deleted,
            prev_kvs: pairs(previous),
        }),
        Answer::Txn(nested) => Response::ResponseTxn(outcome(inner(0), nested)),
    };
    rpc::ResponseOp { response: Some(response) }
}

/// A refusal with the code that etcd gives it (`api/v3rpc/rpctypes/error.go`).
pub(super) fn status(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::EmptyKey
        | Refusal::KeyNotFound
        | Refusal::ValueProvided
        | Refusal::LeaseProvided
        | Refusal::TooManyOperations
        | Refusal::DuplicateKey
        | Refusal::TooLarge => Code::InvalidArgument,
        Refusal::Compacted | Refusal::FutureRevision | Refusal::LeaseTtlTooLarge => Code::OutOfRange,
        Refusal::LeaseNotFound => Code::NotFound,
        Refusal::LeaseExists => Code::FailedPrecondition,
        Refusal::NoSpace(_) | Refusal::AnswerTooLarge | Refusal::TooManyLeases(_) => Code::ResourceExhausted,
        Refusal::Broken(_) => Code::Internal,
    };
    Status::new(code, refusal.to_string())
}
