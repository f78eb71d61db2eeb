//! Reads: pages at one revision, large values, and keys that nobody should have put.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::ensure;
use windlass_crds::audit::Chain;
use windlass_crds::id::RecordNumber;
use windlass_store::{Entry, Key, MOST_WRITES, ReadError, Scope, Section, Write};

use crate::mirror::Mirror;
use crate::{check, connect, host, lead, status};

#[test]
fn pages_are_of_one_revision_while_writers_write() {
    check(async |etcd| {
        const HOSTS: usize = 1203;
        let (store, leadership) = lead(&etcd).await?;
        let names: Vec<String> = (0..HOSTS).map(|number| format!("h{number:05}")).collect();
        for names in names.chunks(MOST_WRITES) {
            let writes: Vec<Write> = names.iter().map(|name| Write::put(status(name), "0")).collect();
            store.commit(&leadership, &writes).await?;
        }
        let done = AtomicBool::new(false);
        // The first, one in the middle and the last are always written together, so they differ only when a list
        // mixes revisions.
        let watched = [status(&names[0]), status(&names[HOSTS / 2]), status(&names[HOSTS - 1])];
        let write = async {
            let mut round = 0_u64;
            while !done.load(Ordering::Relaxed) {
                round += 1;
                let writes = watched.clone().map(|key| Write::put(key, round.to_string()));
                store.commit(&leadership, &writes).await?;
            }
            anyhow::Ok(round)
        };
        let read = async {
            let mut distinct = std::collections::BTreeSet::new();
            for _ in 0..20 {
                let listing = store.list(&Scope::section(Section::Status)).await?;
                ensure!(listing.entries.len() == HOSTS);
                ensure!(listing.entries.is_sorted_by_key(|entry| entry.key.path(store.prefix())));
                let seen: Vec<_> = listing.entries.iter().filter(|entry| watched.contains(&entry.key)).collect();
                ensure!(seen.len() == 3 && seen.iter().all(|entry| entry.value == seen[0].value), "{seen:?}");
                ensure!(seen.iter().all(|entry| entry.mod_revision <= listing.revision));
                distinct.insert(seen[0].value.clone());
            }
            done.store(true, Ordering::Relaxed);
            anyhow::Ok(distinct.len())
        };
        let (rounds, distinct) = tokio::try_join!(write, read)?;
        ensure!(rounds > 20 && distinct > 1, "the writer wrote {rounds} rounds, {distinct} of them were seen");
        Ok(())
    });
}

/// The ends of a chain are read by themselves, and all of it page by page.
#[test]
fn a_chain_is_read_from_either_end_and_in_pages() {
    check(async |etcd| {
        const RECORDS: u64 = 1203;
        let (store, leadership) = lead(&etcd).await?;
        let (web, other) = (Chain::Resource(host("web")), Chain::Resource(host("web2")));
        let keys: Vec<Key> = (1..=RECORDS).map(|number| Key::Audit(web.clone(), RecordNumber(number))).collect();
        for keys in keys.chunks(MOST_WRITES) {
            let writes: Vec<Write> = keys.iter().map(|key| Write::put(key.clone(), "x")).collect();
            store.commit(&leadership, &writes).await?;
        }
        store.commit(&leadership, &[Write::put(Key::Audit(other, RecordNumber(1)), "y")]).await?;
        let named = |entries: Vec<Entry>| entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>();
        let scope = Scope::chain(&web);
        ensure!(store.last(&scope, 2).await? == [keys[1202].clone(), keys[1201].clone()]);
        ensure!(named(store.first(&scope, 2).await?) == keys[..2]);
        let (mut seen, mut pages) = (Vec::new(), 0);
        store
            .each_page(&scope, |entries| {
                pages += 1;
                seen.extend(named(entries));
                Ok::<_, ReadError>(())
            })
            .await?;
        ensure!(seen == keys && pages > 1, "{} in {pages} pages", seen.len());
        Ok(())
    });
}

#[test]
fn pages_of_large_values_shrink() {
    check(async |etcd| {
        let store = connect(&etcd).await?;
        // 75 MB in one page, more than is taken at once.
        for number in 0..300 {
            store.declare(&host(&format!("h{number:03}")), vec![b'x'; 250 << 10]).await?;
        }
        let listing = store.list(&Scope::section(Section::Declared)).await?;
        ensure!(listing.entries.len() == 300);
        let mirror = Mirror::of(store.follow(Scope::everything())).await?;
        ensure!(mirror.entries.len() == 300);
        Ok(())
    });
}

#[test]
fn garbage_keys_are_listed_followed_and_deleted() {
    check(async |etcd| {
        let (store, leadership) = lead(&etcd).await?;
        let mut mirror = Mirror::of(store.follow(Scope::state())).await?;
        let paths: [&[u8]; 6] = [
            b"/windlass/",
            b"/windlass/declared/services/UPPER/case",
            b"/windlass/declared/hosts/a/b/c",
            b"/windlass/nowhere",
            b"/windlass/\xff\xfe\x01",
            b"/windlass/revisions/default/web/007",
        ];
        for path in paths {
            let mut put = etcd.etcdctl_command();
            ensure!(put.arg("put").arg(OsStr::from_bytes(path)).arg("?").output()?.status.success());
        }
        for path in ["/windlass2/declared/hosts/a", "/windlass", "/other"] {
            etcd.etcdctl(&["put", path, "?"])?;
        }
        let unknown = |key: &&Key| matches!(key, Key::Unknown(_));
        mirror.until("all garbage", |mirror| mirror.entries.keys().filter(unknown).count() == paths.len()).await?;
        let listing = store.list(&Scope::everything()).await?;
        let garbage: Vec<Key> =
            listing.entries.into_iter().map(|entry| entry.key).filter(|key| unknown(&key)).collect();
        for path in paths {
            let found = garbage.iter().any(|key| key.path(store.prefix()) == path);
            ensure!(found, "{} is missing in {garbage:?}", path.escape_ascii());
        }
        let writes: Vec<Write> = garbage.into_iter().map(Write::delete).collect();
        store.commit(&leadership, &writes).await?;
        mirror.until("no garbage", |mirror| !mirror.entries.keys().any(|key| unknown(&key))).await?;
        Ok(())
    });
}

#[test]
fn scopes_list_what_they_name() {
    check(async |etcd| {
        let store = connect(&etcd).await?;
        for path in
            ["declared/hosts/a", "declared/hosts/b", "events/1", "audit/1", "status/hosts/a", "control/sequence"]
        {
            etcd.etcdctl(&["put", &format!("/windlass/{path}"), "0"])?;
        }
        for (scope, expected) in [
            (Scope::everything(), 6),
            (Scope::state(), 4),
            (Scope::section(Section::Declared), 2),
            (Scope::sections(&[Section::Status, Section::Audit, Section::Status]), 2),
            (Scope::sections(&[]), 0),
            (Scope::key(&Key::Declared(host("a"))), 1),
            (Scope::key(&Key::Declared(host("c"))), 0),
        ] {
            let listing = store.list(&scope).await?;
            ensure!(listing.entries.len() == expected, "{scope:?} holds {listing:?}");
            ensure!(listing.revision == store.revision().await?);
        }
        Ok(())
    });
}
