//! Reads an operation from a line of a script: the opposite of its `Display`, and `a*` for a prefix.

use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use etcd_client::{SortOrder, SortTarget};

use super::operation::{
    At, Compare, CompareTarget, Delete, Get, KeyRange, Lease, Operation, Put, Relation, Txn, Watch, WatchName,
};

/// Reads one line.
pub(crate) fn parse(line: &str) -> Result<Operation> {
    let line = line.replace(';', " ; ");
    let mut words = Words { words: line.split_whitespace().collect(), next: 0 };
    let operation = words.operation().with_context(|| format!("cannot read {line:?}"))?;
    ensure!(words.peek().is_none(), "{line:?} goes on after its end");
    Ok(operation)
}

struct Words<'line> {
    words: Vec<&'line str>,
    next: usize,
}

impl<'line> Words<'line> {
    fn peek(&self) -> Option<&'line str> {
        self.words.get(self.next).copied()
    }

    fn word(&mut self) -> Result<&'line str> {
        let word = self.peek().context("the line ends too early")?;
        self.next += 1;
        Ok(word)
    }

    /// Takes the next word if it is this one.
    fn flag(&mut self, word: &str) -> bool {
        let there = self.peek() == Some(word);
        self.next += usize::from(there);
        there
    }

    fn number<Number: FromStr>(&mut self) -> Result<Number> {
        let word = self.word()?;
        word.parse().ok().with_context(|| format!("{word:?} is no number"))
    }

    fn bytes(&mut self) -> Result<Vec<u8>> {
        bytes(self.word()?)
    }

    fn at(&mut self) -> Result<At> {
        match self.word()? {
            "0" => Ok(At::Unset),
            word => Ok(At::Relative(word.parse().with_context(|| format!("{word:?} is no revision"))?)),
        }
    }

    fn bound(&mut self, word: &str, at: &mut At) -> Result<()> {
        if self.flag(word) {
            *at = self.at()?;
        }
        Ok(())
    }

    fn lease(&mut self) -> Result<Lease> {
        Ok(Lease(self.lettered('L')?))
    }

    fn watch_name(&mut self) -> Result<WatchName> {
        Ok(WatchName(self.lettered('W')?))
    }

    fn lettered(&mut self, letter: char) -> Result<i64> {
        let word = self.word()?;
        let number = word.strip_prefix(letter).and_then(|number| number.parse().ok());
        number.with_context(|| format!("{word:?} is no {letter} and a number"))
    }

    fn range(&mut self) -> Result<KeyRange> {
        range(self.word()?)
    }

    fn operation(&mut self) -> Result<Operation> {
        Ok(match self.word()? {
            "put" => Operation::Put(self.put()?),
            "get" => Operation::Get(self.get()?),
            "delete" => Operation::Delete(Delete { range: self.range()?, previous: self.flag("prev") }),
            "txn" => Operation::Txn(self.txn()?),
            "compact" => Operation::Compact { revision: self.at()?, physical: self.flag("physical") },
            "grant" => Operation::Grant { lease: self.lease()?, ttl: self.number()? },
            "revoke" => Operation::Revoke(self.lease()?),
            "keep-alive" => Operation::KeepAlive(self.lease()?),
            "ttl" => Operation::TimeToLive { lease: self.lease()?, keys: self.flag("keys") },
            "leases" => Operation::Leases,
            "watch" => Operation::Watch(self.watch()?),
            "cancel" => Operation::Cancel(self.watch_name()?),
            "events" => Operation::Events,
            "progress" => Operation::Progress,
            word => bail!("{word:?} is no operation"),
        })
    }

    fn put(&mut self) -> Result<Put> {
        let mut put = Put::of(self.bytes()?, self.bytes()?);
        if self.flag("lease") {
            put.lease = Some(self.lease()?);
        }
        put.previous = self.flag("prev");
        put.ignore_value = self.flag("ignore-value");
        put.ignore_lease = self.flag("ignore-lease");
        Ok(put)
    }

    fn get(&mut self) -> Result<Get> {
        let mut get = Get::of(self.range()?);
        self.bound("rev", &mut get.revision)?;
        if self.flag("limit") {
            get.limit = self.number()?;
        }
        if self.flag("sort") {
            get.sort = Some((sort_target(self.word()?)?, sort_order(self.word()?)?));
        }
        get.keys_only = self.flag("keys");
        get.count_only = self.flag("count");
        get.serializable = self.flag("serializable");
        self.bound("min-mod", &mut get.min_mod)?;
        self.bound("max-mod", &mut get.max_mod)?;
        self.bound("min-create", &mut get.min_create)?;
        self.bound("max-create", &mut get.max_create)?;
        Ok(get)
    }

    fn watch(&mut self) -> Result<Watch> {
        let mut watch = Watch::of(self.watch_name()?, self.range()?);
        self.bound("from", &mut watch.start)?;
        watch.previous = self.flag("prev");
        watch.without_puts = self.flag("no-puts");
        watch.without_deletes = self.flag("no-deletes");
        watch.fragment = self.flag("fragment");
        if self.flag("id") {
            watch.id = self.number()?;
        }
        Ok(watch)
    }

    fn txn(&mut self) -> Result<Txn> {
        let mut txn = Txn::default();
        if self.flag("if") {
            txn.compares = self.block(Self::compare)?;
        }
        if self.flag("then") {
            txn.success = self.block(Self::operation)?;
        }
        if self.flag("else") {
            txn.failure = self.block(Self::operation)?;
        }
        Ok(txn)
    }

    fn block<Item>(&mut self, item: impl Fn(&mut Self) -> Result<Item>) -> Result<Vec<Item>> {
        ensure!(self.flag("{"), "a block begins with {{");
        let mut items = Vec::new();
        while !self.flag("}") {
            items.push(item(self)?);
            self.flag(";");
        }
        Ok(items)
    }

    fn compare(&mut self) -> Result<Compare> {
        let what = self.word()?;
        let range = self.range()?;
        let relation = match self.word()? {
            "=" => Relation::Equal,
            "!=" => Relation::NotEqual,
            ">" => Relation::Greater,
            "<" => Relation::Less,
            word => bail!("{word:?} is no relation"),
        };
        let target = match what {
            "version" => CompareTarget::Version(self.number()?),
            "create" => CompareTarget::Create(self.at()?),
            "mod" => CompareTarget::Mod(self.at()?),
            "value" => CompareTarget::Value(self.bytes()?),
            "lease" if self.flag("none") => CompareTarget::Lease(None),
            "lease" => CompareTarget::Lease(Some(self.lease()?)),
            word => bail!("{word:?} cannot be compared"),
        };
        Ok(Compare { range, relation, target })
    }
}

fn sort_target(word: &str) -> Result<SortTarget> {
    Ok(match word {
        "key" => SortTarget::Key,
        "version" => SortTarget::Version,
        "create" => SortTarget::Create,
        "mod" => SortTarget::Mod,
        "value" => SortTarget::Value,
        _ => bail!("{word:?} is nothing to sort by"),
    })
}

fn sort_order(word: &str) -> Result<SortOrder> {
    Ok(match word {
        "none" => SortOrder::None,
        "ascend" => SortOrder::Ascend,
        "descend" => SortOrder::Descend,
        _ => bail!("{word:?} is no order"),
    })
}

fn range(word: &str) -> Result<KeyRange> {
    if let Some(prefix) = word.strip_suffix('*') {
        let key = bytes(prefix)?;
        let mut end = key.clone();
        *end.last_mut().context("a prefix has a letter")? += 1;
        return Ok(KeyRange::new(key, end));
    }
    match word.split_once("..") {
        None => Ok(KeyRange::one(bytes(word)?)),
        Some(("", "")) => Ok(KeyRange::all()),
        Some((key, "")) => Ok(KeyRange::new(bytes(key)?, "\0")),
        Some((key, end)) => Ok(KeyRange::new(bytes(key)?, bytes(end)?)),
    }
}

fn bytes(word: &str) -> Result<Vec<u8>> {
    if word == "''" {
        return Ok(Vec::new());
    }
    if let Some(length) = word.strip_prefix('#') {
        return Ok(vec![b'x'; length.parse().context("the length of a value")?]);
    }
    let mut parts = word.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2).context("two digits follow \\x")?;
        bytes.push(u8::from_str_radix(digits, 16).context("two digits follow \\x")?);
        bytes.extend(rest.as_bytes());
    }
    Ok(bytes)
}
