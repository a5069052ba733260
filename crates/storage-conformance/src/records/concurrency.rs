//! Many at once, and calls that are given up.

use std::time::Duration;

use serde_json::json;
use storage_core::{Batch, ErrorKind, Expect, Query, RecordStore, TableName, Version, fields};

use super::batch::{key, partitioned, several_records};
use super::table::Table;
use crate::check::refused;
use crate::{CaseResult, Flavor, Harness};

#[doc(hidden)]
pub const FLAVOR: Flavor = Flavor::Threaded;

/// Five times ten increments by version, among eight writers of whom three only get in the way, come to exactly 50.
pub async fn version_preconditions_lose_no_update(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    t.put("counter", json!({"n": 0})).await?;
    let increment = |store: RecordStore, name: TableName| async move {
        for _ in 0..10 {
            loop {
                let record = store.get(&name, "counter").await?.expect("the counter");
                let next = record.fields["n"].as_i64().expect("a number") + 1;
                let expect = Expect::Version(record.version);
                match store.update(&name, "counter", fields(json!({"n": next})), expect).await {
                    Ok(version) => break assert_eq!(version, record.version.next()),
                    Err(error) if error.kind() == ErrorKind::Conflict => tokio::task::yield_now().await,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    };
    let meddle = |store: RecordStore, name: TableName| async move {
        for _ in 0..10 {
            // Stale by intention, so always refused; and a write elsewhere.
            let stale = Expect::Version(Version(100_000));
            refused(ErrorKind::Conflict, store.update(&name, "counter", fields(json!({"n": -1})), stale).await);
            store.upsert(&name, "other", fields(json!({}))).await?;
        }
        Ok(())
    };
    let writers = (0..5).map(|_| tokio::spawn(increment(t.store.clone(), t.name.clone())));
    let meddlers = (0..3).map(|_| tokio::spawn(meddle(t.store.clone(), t.name.clone())));
    let all: Vec<_> = writers.chain(meddlers).collect();
    for outcome in futures::future::try_join_all(all).await? {
        outcome?;
    }
    assert_eq!((t.value("counter").await?, t.version("counter").await?), (json!({"n": 50}), Version(51)));
    assert_eq!(t.version("other").await?, Version(30));
    Ok(())
}

/// Of eight who insert the same key at once, one succeeds, and the record is that one's.
pub async fn one_of_many_inserts_succeeds(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    for round in 0..5 {
        let insert = |n: usize| {
            let (store, name, key) = (t.store.clone(), t.name.clone(), format!("k{round}"));
            tokio::spawn(async move { (n, store.insert(&name, key, fields(json!({"by": n}))).await) })
        };
        let outcomes = futures::future::try_join_all((0..8).map(insert)).await?;
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|(_, outcome)| outcome.is_ok());
        assert_eq!(won.len(), 1, "{won:?}");
        lost.into_iter().for_each(|(_, outcome)| drop(refused(ErrorKind::AlreadyExists, outcome)));
        assert_eq!(t.value(format!("k{round}")).await?, json!({"by": won[0].0}));
    }
    Ok(())
}

/// Concurrent writes without preconditions all count: as many versions as writes.
pub async fn every_write_counts(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    t.put("a", json!({})).await?;
    let write = |n: usize| {
        let (store, name) = (t.store.clone(), t.name.clone());
        tokio::spawn(async move {
            let mut versions = Vec::new();
            for round in 0..10 {
                let change = fields(json!({ format!("f{n}-{round}"): n }));
                versions.push(store.update(&name, "a", change, Expect::Present).await?);
            }
            Ok::<_, storage_core::Error>(versions)
        })
    };
    let mut versions = Vec::new();
    for outcome in futures::future::try_join_all((0..8).map(write)).await? {
        versions.extend(outcome?);
    }
    versions.sort_unstable();
    assert_eq!(versions, (2..=81).map(Version).collect::<Vec<_>>(), "each write has a version of its own");
    let record = t.get("a").await?.expect("a record");
    assert_eq!((record.version, record.fields.len()), (Version(81), 80), "no merge was lost");
    Ok(())
}

/// Batches are seen whole or not at all: a reader of two records that are always written together never sees one without the other.
pub async fn batches_are_seen_whole(h: &dyn Harness) -> CaseResult {
    let t = partitioned(h).await?;
    if !several_records(&t).await? {
        return Ok(());
    }
    let both = |n: usize| {
        Batch::new().put(&t.name, key("a"), fields(json!({"n": n})), Expect::Anything).put(
            &t.name,
            key("b"),
            fields(json!({"n": n})),
            Expect::Anything,
        )
    };
    t.commit(both(0)).await?;
    let (store, name) = (t.store.clone(), t.name.clone());
    let reader = tokio::spawn(async move {
        let mut last = json!(0);
        while last != json!(40) {
            let by_key = store.get_many(&name, &[key("a"), key("b")]).await?;
            let numbers: Vec<_> = by_key.into_iter().flatten().map(|r| r.fields["n"].clone()).collect();
            assert_eq!(numbers.len(), 2);
            assert_eq!(numbers[0], numbers[1], "by keys");
            let page = store.scan(&Query::table(name.clone())?).await?;
            let numbers: Vec<_> = page.records.into_iter().map(|r| r.fields["n"].clone()).collect();
            assert_eq!(numbers[0], numbers[1], "by query");
            last = numbers[0].clone();
            tokio::task::yield_now().await;
        }
        Ok::<_, storage_core::Error>(())
    });
    for n in 1..=40 {
        t.commit(both(n)).await?;
    }
    reader.await??;
    Ok(())
}

/// A `commit` whose future is dropped at any moment took effect wholly or not at all, and the store goes on working.
pub async fn a_cancelled_commit_is_whole_or_nothing(h: &dyn Harness) -> CaseResult {
    let t = partitioned(h).await?;
    let several = several_records(&t).await?;
    let ids: &[&str] = if several { &["a", "b", "c", "d"] } else { &["a"] };
    let mut state = 88_172_645_463_325_252_u64;
    for round in 0..60_u64 {
        let batch =
            ids.iter().fold(Batch::new(), |batch, id| batch.put(&t.name, key(id), fields(json!({"n": round})), Expect::Anything));
        // From not polled at all, over some polls, to some time.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let commit = t.commit(batch);
        match round % 3 {
            0 => drop(commit),
            1 => {
                let mut commit = Box::pin(commit);
                for _ in 0..state % 4 {
                    if futures::poll!(&mut commit).is_ready() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
            _ => drop(tokio::time::timeout(Duration::from_micros(state % 3_000), commit).await),
        }
        let keys: Vec<_> = ids.iter().map(|id| key(id)).collect();
        let found = t.store.get_many(&t.name, &keys).await?;
        let states: Vec<_> = found.iter().map(|r| r.as_ref().map(|r| (r.version, r.fields["n"].clone()))).collect();
        assert!(states.windows(2).all(|w| w[0] == w[1]), "half of batch {round}: {states:?}");
    }
    // Whatever was still under way is over now, and nothing is locked.
    let commit =
        ids.iter().fold(Batch::new(), |batch, id| batch.put(&t.name, key(id), fields(json!({"n": "end"})), Expect::Anything));
    t.commit(commit).await?;
    for id in ids {
        assert_eq!(t.value(key(id)).await?, json!({"n": "end"}));
    }
    Ok(())
}

/// Reads that are given up leave nothing behind that keeps others from writing.
pub async fn cancelled_reads_hold_nothing(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    t.put_all((0..200).map(|n| (format!("{n}"), json!({"n": n})))).await?;
    for round in 0..50_u64 {
        let limit = Duration::from_micros(round * 20);
        let (scan, get) = (t.query().limit(150).descending("id")?, t.get("7"));
        drop(tokio::time::timeout(limit, t.store.scan(&scan)).await);
        drop(tokio::time::timeout(limit, get).await);
        // A stream that is dropped after its first page.
        let mut stream = t.store.stream(t.query().limit(10));
        assert!(futures::StreamExt::next(&mut stream).await.is_some());
        drop(stream);
        t.put("7", json!({"round": round})).await?;
    }
    assert_eq!(t.version("7").await?, Version(51));
    Ok(())
}

/// Many tasks read, write, scan and count side by side without an error reaching any of them.
pub async fn a_mixed_load_goes_without_errors(h: &dyn Harness) -> CaseResult {
    let t = Table::open(h).await?;
    let work = |n: usize| {
        let (store, name) = (t.store.clone(), t.name.clone());
        tokio::spawn(async move {
            for round in 0..12 {
                let key = format!("{n}-{round}");
                store.upsert(&name, key.as_str(), fields(json!({"n": n}))).await?;
                let all = store.count(&Query::table(name.clone())?.filter(storage_core::Filter::eq("n", n)?)).await?;
                assert_eq!(all, round + 1, "a task sees all of its own writes");
                assert!(store.get(&name, key.as_str()).await?.is_some());
                store.scan(&Query::table(name.clone())?.limit(20)).await?;
            }
            Ok::<_, storage_core::Error>(())
        })
    };
    for outcome in futures::future::try_join_all((0..8).map(work)).await? {
        outcome?;
    }
    assert_eq!(t.count().await?, 96);
    Ok(())
}
