//! An operation as the options that etcd-client takes.

use anyhow::{Result, bail};
use etcd_client::{
    Compare as EtcdCompare, CompareOp, DeleteOptions, GetOptions, PutOptions, Txn as EtcdTxn, TxnOp, WatchFilterType,
    WatchOptions,
};

use super::operation::{At, Compare, CompareTarget, Delete, Get, Operation, Put, Relation, Txn, Watch};
use super::told::{Origin, lease_id};

impl Origin {
    pub(super) fn absolute(self, at: At) -> i64 {
        match at {
            At::Unset => 0,
            At::Relative(offset) => self.0 + offset,
        }
    }

    pub(super) fn get_options(self, get: &Get) -> GetOptions {
        let mut options = GetOptions::new().with_range(get.range.end.clone()).with_limit(get.limit);
        if let Some((target, order)) = get.sort {
            options = options.with_sort(target, order);
        }
        if get.keys_only {
            options = options.with_keys_only();
        }
        if get.count_only {
            options = options.with_count_only();
        }
        if get.serializable {
            options = options.with_serializable();
        }
        options
            .with_revision(self.absolute(get.revision))
            .with_min_mod_revision(self.absolute(get.min_mod))
            .with_max_mod_revision(self.absolute(get.max_mod))
            .with_min_create_revision(self.absolute(get.min_create))
            .with_max_create_revision(self.absolute(get.max_create))
    }

    pub(super) fn watch_options(self, watch: &Watch) -> WatchOptions {
        let mut filters = Vec::new();
        if watch.without_puts {
            filters.push(WatchFilterType::NoPut);
        }
        if watch.without_deletes {
            filters.push(WatchFilterType::NoDelete);
        }
        let mut options = WatchOptions::new()
            .with_range(watch.range.end.clone())
            .with_start_revision(self.absolute(watch.start))
            .with_filters(filters)
            .with_watch_id(watch.id);
        if watch.previous {
            options = options.with_prev_key();
        }
        if watch.fragment {
            options = options.with_fragment();
        }
        options
    }

    pub(super) fn txn_request(self, txn: &Txn) -> Result<EtcdTxn> {
        let compares: Vec<EtcdCompare> = txn.compares.iter().map(|compare| self.compare(compare)).collect();
        let operations =
            |side: &[Operation]| side.iter().map(|operation| self.txn_operation(operation)).collect::<Result<Vec<_>>>();
        let mut request = EtcdTxn::new();
        // etcd-client panics when it is given a side after the next one, not when one is left out.
        if !compares.is_empty() {
            request = request.when(compares);
        }
        if !txn.success.is_empty() {
            request = request.and_then(operations(&txn.success)?);
        }
        if !txn.failure.is_empty() {
            request = request.or_else(operations(&txn.failure)?);
        }
        Ok(request)
    }

    fn txn_operation(self, operation: &Operation) -> Result<TxnOp> {
        Ok(match operation {
            Operation::Put(put) => TxnOp::put(put.key.clone(), put.value.clone(), Some(put_options(put))),
            Operation::Get(get) => TxnOp::get(get.range.key.clone(), Some(self.get_options(get))),
            Operation::Delete(delete) => TxnOp::delete(delete.range.key.clone(), Some(delete_options(delete))),
            Operation::Txn(txn) => TxnOp::txn(self.txn_request(txn)?),
            other => bail!("{other} cannot stand in a transaction"),
        })
    }

    fn compare(self, compare: &Compare) -> EtcdCompare {
        let Compare { range, relation, target } = compare;
        let relation = match relation {
            Relation::Equal => CompareOp::Equal,
            Relation::NotEqual => CompareOp::NotEqual,
            Relation::Greater => CompareOp::Greater,
            Relation::Less => CompareOp::Less,
        };
        let key = range.key.clone();
        let compare = match target {
            CompareTarget::Version(version) => EtcdCompare::version(key, relation, *version),
            CompareTarget::Create(at) => EtcdCompare::create_revision(key, relation, self.absolute(*at)),
            CompareTarget::Mod(at) => EtcdCompare::mod_revision(key, relation, self.absolute(*at)),
            CompareTarget::Value(value) => EtcdCompare::value(key, relation, value.clone()),
            CompareTarget::Lease(lease) => EtcdCompare::lease(key, relation, lease.map_or(0, lease_id)),
        };
        if range.end.is_empty() { compare } else { compare.with_range(range.end.clone()) }
    }
}

pub(super) fn put_options(put: &Put) -> PutOptions {
    let mut options = PutOptions::new().with_lease(put.lease.map_or(0, lease_id));
    if put.previous {
        options = options.with_prev_key();
    }
    if put.ignore_value {
        options = options.with_ignore_value();
    }
    if put.ignore_lease {
        options = options.with_ignore_lease();
    }
    options
}

pub(super) fn delete_options(delete: &Delete) -> DeleteOptions {
    let options = DeleteOptions::new().with_range(delete.range.end.clone());
    if delete.previous { options.with_prev_key() } else { options }
}
