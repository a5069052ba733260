//! Load for tests in which servers end and callers go away: pairs of records with a message, money that moves, duties that two may not both leave.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use storage_core::{
    Backends, Batch, ColumnType, ErrorKind, Expect, Fields, Filter, History, Key, NewMessage, Query, QueueName, QueueSpec,
    QueueStore, Receive, Record, RecordStore, TableName, TableSchema, fields,
};
use tokio::task::JoinHandle;

#[cfg(unix)]
use crate::server::{Mortal, until};

/// What a call may answer whose server or connection went away.
pub fn is_loss(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout)
}

/// The table `t`, with an indexed number `n`.
pub fn schema() -> TableSchema {
    TableSchema::builder("t").column("n", ColumnType::Integer).index("by_n", ["n"]).build().unwrap()
}

/// Its name.
pub fn table() -> TableName {
    "t".parse().unwrap()
}

/// A record of it.
pub fn number(n: i64) -> Fields {
    fields(json!({ "n": n }))
}

/// The queue `q`.
pub fn queue() -> QueueName {
    QueueName::new("q").unwrap()
}

/// Two records and a message, in one batch.
pub fn pair(name: &str) -> Batch {
    Batch::new()
        .put(&table(), format!("{name}a"), number(1), Expect::Absent)
        .put(&table(), format!("{name}b"), number(1), Expect::Absent)
        .enqueue(&queue(), NewMessage::new(name.to_owned()))
}

/// An open store, and its records and queues as a program holds them.
#[derive(Debug)]
pub struct Opened<S> {
    /// The store.
    pub store: S,
    /// Its records.
    pub records: RecordStore,
    /// Its queues.
    pub queue: QueueStore,
}

impl<S> Opened<S> {
    /// `backends` are the store's.
    pub fn new(store: S, backends: Backends) -> Self {
        Self { store, records: crate::opened::records(&backends), queue: crate::opened::queues(&backends) }
    }

    /// Closes records and queues; the store is still to be closed.
    pub async fn close(self) -> S {
        self.records.backend().close().await.unwrap();
        self.queue.backend().close().await.unwrap();
        self.store
    }

    /// Makes table and queue for [`Pairs`].
    pub async fn pairs(&self) -> Pairs {
        Pairs::new(&self.records, &self.queue).await
    }
}

/// Table and queue of one store, for pairs.
#[derive(Clone, Debug)]
pub struct Pairs {
    records: RecordStore,
    queues: QueueStore,
}

impl Pairs {
    /// Makes them.
    pub async fn new(records: &RecordStore, queues: &QueueStore) -> Self {
        records.create_table(&schema()).await.unwrap();
        queues.create_queue(&queue(), &QueueSpec::default().max_deliveries(None)).await.unwrap();
        Self { records: records.clone(), queues: queues.clone() }
    }

    /// So many writers, each of which writes pairs until told to stop. They answer which were acknowledged.
    pub fn writers(&self, count: usize, stop: &Arc<AtomicBool>) -> Vec<JoinHandle<Vec<String>>> {
        (0..count).map(|number| self.writer(number, stop)).collect()
    }

    fn writer(&self, number: usize, stop: &Arc<AtomicBool>) -> JoinHandle<Vec<String>> {
        let (records, stop) = (self.records.clone(), Arc::clone(stop));
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for round in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let name = format!("{number}-{round}");
                match records.commit(pair(&name)).await {
                    Ok(_) => acknowledged.push(name),
                    Err(error) => {
                        assert!(is_loss(error.kind()), "{error:?}");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            }
            acknowledged
        })
    }

    /// What these writers were told is written, once they are told to stop.
    pub async fn acknowledged(writers: Vec<JoinHandle<Vec<String>>>, stop: &AtomicBool) -> Vec<String> {
        stop.store(true, Ordering::SeqCst);
        let mut acknowledged = Vec::new();
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
        acknowledged
    }

    /// Every acknowledged pair is there with its message, and no pair is half.
    pub async fn nothing_is_lost_or_half(&self, acknowledged: &[String]) {
        let mut sent = BTreeSet::new();
        loop {
            let receive = Receive::up_to(1_000).visibility(Duration::from_secs(600));
            let received = self.queues.receive(&queue(), &receive).await.unwrap();
            if received.is_empty() {
                break;
            }
            sent.extend(received.into_iter().map(|delivery| String::from_utf8(delivery.message.body.to_vec()).unwrap()));
        }
        for name in acknowledged {
            assert!(sent.contains(name), "the message of {name} was acknowledged");
        }
        let there = self.keys().await;
        assert_eq!(there.len(), 2 * sent.len(), "records and messages come together");
        for name in &sent {
            assert!(there.contains(&format!("{name}a")) && there.contains(&format!("{name}b")), "{name} is half");
        }
    }

    /// Of each pair, both or none: `a` alone may have been written by a transaction of its own.
    pub async fn nothing_is_half(&self) {
        let keys = self.keys().await;
        for key in keys.iter().filter(|key| key.ends_with('b')) {
            assert!(keys.contains(&key.replace('b', "a")), "{key} is half");
        }
    }

    async fn keys(&self) -> BTreeSet<String> {
        let (mut keys, mut query) = (BTreeSet::new(), Query::table("t").unwrap().limit(10_000));
        loop {
            let page = self.records.scan(&query).await.unwrap();
            keys.extend(page.records.iter().map(|record| record.key.to_string()));
            match page.next {
                Some(next) => query.after = Some(next),
                None => return keys,
            }
        }
    }

    /// Three hundred callers that begin something and go away at some moment.
    pub async fn callers_that_go_away(&self) {
        for round in 0..300_u64 {
            let (records, queues) = (self.records.clone(), self.queues.clone());
            let task = tokio::spawn(async move {
                let name = round.to_string();
                let key = Key::from(format!("{name}a"));
                match round % 4 {
                    0 => drop(records.commit(pair(&name)).await),
                    1 => drop(records.scan(&Query::table("t")?).await),
                    2 => drop(queues.receive(&queue(), &Receive::up_to(3).visibility(Duration::from_millis(5))).await),
                    _ => {
                        let change = records.transaction(async |tx| {
                            let _ = tx.get(&table(), key.clone()).await?;
                            tx.put(&table(), key.clone(), number(2)).await
                        });
                        drop(change.await);
                    }
                }
                Ok::<_, storage_core::Error>(())
            });
            tokio::time::sleep(Duration::from_micros(round * 37 % 4_000)).await;
            task.abort();
        }
    }
}

/// Sixteen writers move money between twelve accounts of the table `t`: its sum holds at every read.
pub async fn money_moves_and_the_sum_holds(records: &RecordStore) {
    const ACCOUNTS: usize = 12;
    let keys: Vec<Key> = (0..ACCOUNTS).map(|n| format!("{n:02}").into()).collect();
    for key in &keys {
        records.insert(&table(), key.clone(), number(100)).await.unwrap();
    }
    let done = Arc::new(AtomicBool::new(false));
    let writers = (0..16_usize).map(|writer| {
        let (records, keys) = (records.clone(), keys.clone());
        tokio::spawn(async move {
            for round in 0..20 {
                let (from, to) = (&keys[(writer * 5 + round) % ACCOUNTS], &keys[(writer + round * 7 + 1) % ACCOUNTS]);
                if from == to {
                    continue;
                }
                let transfer = records.transaction(async |tx| {
                    let (rich, poor) = (tx.get(&table(), from.clone()).await?, tx.get(&table(), to.clone()).await?);
                    let value = |record: Option<Record>| record.unwrap().fields["n"].as_i64().unwrap();
                    tx.update(&table(), from.clone(), number(value(rich) - 3)).await?;
                    tx.update(&table(), to.clone(), number(value(poor) + 3)).await
                });
                transfer.await.unwrap();
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    let reader = {
        let (records, keys, done) = (records.clone(), keys.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut reads = 0;
            while !done.load(Ordering::SeqCst) {
                let found = records.get_many(&table(), &keys).await.unwrap();
                let by_keys: i64 = found.into_iter().map(|record| record.unwrap().fields["n"].as_i64().unwrap()).sum();
                let page = records.scan(&Query::table("t").unwrap()).await.unwrap();
                let by_scan: i64 = page.records.iter().map(|record| record.fields["n"].as_i64().unwrap()).sum();
                assert_eq!((by_keys, by_scan), (1_200, 1_200));
                reads += 1;
            }
            reads
        })
    };
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    assert!(reader.await.unwrap() > 0);
}

/// Two who each insert unless the other has: by records that are not there, which no lock on a row can hold. The stores share no writer, as those of two
/// processes.
pub async fn write_skew_through_absent_records_is_caught(one: &RecordStore, two: &RecordStore) {
    for round in 0..60 {
        let on_call = |mine: &str, theirs: &str| {
            Batch::new().check(&table(), format!("{round}{theirs}"), Expect::Absent).put(
                &table(),
                format!("{round}{mine}"),
                number(1),
                Expect::Absent,
            )
        };
        let (a, b) = tokio::join!(one.commit(on_call("a", "b")), two.commit(on_call("b", "a")));
        assert!(a.is_ok() != b.is_ok(), "round {round}: {a:?} {b:?}");
        let error = a.and(b).unwrap_err();
        assert_eq!((error.kind(), error.failed_write()), (ErrorKind::AlreadyExists, Some(0)), "{error}");
    }
}

/// Versions, and messages, of what many callers write at once share transactions and still have each its own answer.
pub async fn callers_share_transactions_and_not_failures(records: &RecordStore, queues: &QueueStore) {
    let table = TableSchema::builder("t").column("n", ColumnType::Integer).history(History::Keep(2)).build().unwrap();
    records.create_table(&table).await.unwrap();
    let queue = QueueName::new("q").unwrap();
    queues.create_queue(&queue, &QueueSpec::default()).await.unwrap();
    let work = (0..200_i64).map(|n| {
        let (queue, name) = (&queue, &table.name);
        async move {
            match n % 4 {
                0 => records.insert(name, "same", number(n)).await.map(|version| version.0),
                1 => records.update(name, "nobody", number(n), Expect::Present).await.map(|version| version.0),
                2 => records.upsert(name, "counted", number(n)).await.map(|version| version.0),
                _ => queues
                    .send(queue, NewMessage::new("x").dedup_id(format!("{}", n % 3)))
                    .await
                    .map(|sent| u64::from(sent.duplicate)),
            }
        }
    });
    let outcomes = futures::future::join_all(work).await;
    let of = |kind: usize| outcomes.iter().skip(kind).step_by(4);
    assert_eq!(of(0).filter(|outcome| outcome.is_ok()).count(), 1);
    assert!(of(0).filter_map(|outcome| outcome.as_ref().err()).all(|error| error.kind() == ErrorKind::AlreadyExists));
    assert!(of(1).all(|outcome| outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)));
    let mut versions: Vec<u64> = of(2).map(|outcome| *outcome.as_ref().unwrap()).collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=50).collect::<Vec<_>>());
    assert_eq!(of(3).filter(|outcome| *outcome.as_ref().unwrap() == 0).count(), 3, "one message an id");
    let kept = records.history(&table.name, "counted").await.unwrap();
    assert_eq!(kept.iter().map(|record| record.version.0).collect::<Vec<_>>(), [50, 49]);
}

/// A server that is killed while eight write loses nothing that was acknowledged, and all goes on by itself when it is back.
#[cfg(unix)]
pub async fn a_killed_server_loses_nothing_that_was_acknowledged<S>(opened: &Opened<S>, server: &mut impl Mortal) {
    let (pairs, stop) = (opened.pairs().await, Arc::new(AtomicBool::new(false)));
    let writers = pairs.writers(8, &stop);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        tokio::task::block_in_place(|| {
            server.kill();
            std::thread::sleep(Duration::from_millis(200));
            server.start();
        });
    }
    until("a write goes through", async || opened.records.upsert(&table(), "after", number(1)).await.ok()).await;
    opened.records.delete(&table(), "after", Expect::Present).await.unwrap();
    let acknowledged = Pairs::acknowledged(writers, &stop).await;
    assert!(acknowledged.len() > 20, "{} pairs", acknowledged.len());
    pairs.nothing_is_lost_or_half(&acknowledged).await;
}

/// Connections that somebody ends while six write are replaced. `end` ends those there are, and answers how many; it is given the round.
#[cfg(unix)]
pub async fn ended_connections_are_replaced<S>(opened: &Opened<S>, mut end: impl AsyncFnMut(usize) -> usize) {
    let (pairs, stop) = (opened.pairs().await, Arc::new(AtomicBool::new(false)));
    let writers = pairs.writers(6, &stop);
    let mut ended = 0;
    for round in 0..10 {
        tokio::time::sleep(Duration::from_millis(60)).await;
        ended += end(round).await;
    }
    let acknowledged = Pairs::acknowledged(writers, &stop).await;
    assert!(ended >= 10 && !acknowledged.is_empty(), "{ended} ended, {} written", acknowledged.len());
    until("it goes on", async || opened.records.ping().await.ok()).await;
    pairs.nothing_is_lost_or_half(&acknowledged).await;
}

/// While a server is away every call says so, as something that may be tried again; when it is back, so are all. The store has a short timeout.
#[cfg(unix)]
pub async fn a_server_that_is_away_is_unavailable_and_comes_back<S>(opened: &Opened<S>, server: &mut impl Mortal) {
    let (records, queues) = (&opened.records, &opened.queue);
    opened.pairs().await;
    records.upsert(&table(), "a", number(1)).await.unwrap();
    tokio::task::block_in_place(|| server.kill());
    for _ in 0..3 {
        for error in [
            records.get(&table(), "a").await.unwrap_err(),
            records.upsert(&table(), "a", number(2)).await.unwrap_err(),
            queues.send(&queue(), NewMessage::new("x")).await.unwrap_err(),
            queues.receive(&queue(), &Receive::default()).await.unwrap_err(),
        ] {
            assert!(is_loss(error.kind()) && error.is_retryable(), "{error:?}");
        }
    }
    tokio::task::block_in_place(|| server.start());
    until("it answers again", async || records.get(&table(), "a").await.ok()).await;
    records.upsert(&table(), "a", number(3)).await.unwrap();
    queues.send(&queue(), NewMessage::new("x")).await.unwrap();
    assert_eq!(queues.receive(&queue(), &Receive::default()).await.unwrap().len(), 1);
}

/// Who may read alone reads the record `a` of the table `t`, whose number is 1, and is refused as such what else it asks for.
pub async fn who_may_read_alone_is_refused_the_rest<S>(reader: &Opened<S>) {
    assert_eq!(reader.records.get(&table(), "a").await.unwrap().unwrap().fields, number(1));
    assert_eq!(reader.records.count(&Query::table("t").unwrap().filter(Filter::eq("n", 1).unwrap())).await.unwrap(), 1);
    for error in [
        reader.records.upsert(&table(), "a", number(2)).await.unwrap_err(),
        reader.records.create_table(&TableSchema::builder("more").build().unwrap()).await.unwrap_err(),
        reader.queue.create_queue(&queue(), &QueueSpec::default()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
    }
}
