//! Several handles on one folder: each has its own locks and memory, as another process has.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use storage_core::{
    Batch, BlobBackend as _, BlobBody, Column, ColumnType, ErrorKind, Expect, NewMessage, PutMode, PutOptions, Query,
    QueueBackend as _, QueueName, QueueSpec, Receive, RecordBackend as _, SchemaChange, TableSchema, Version, fields,
};

use crate::{Fixture, blob, open};

fn mail() -> QueueName {
    "mail".parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_lose_nothing_between_handles() {
    const HANDS: usize = 3;
    const TIMES: usize = 40;
    let fixture = Fixture::new().await;
    let (records, notes) = fixture.notes().await;
    records.commit(Batch::new().put(&notes, "n", fields(json!({"n": 0})), Expect::Absent)).await.unwrap();
    let mut hands = Vec::new();
    for _ in 0..HANDS {
        let (records, notes) = (open(fixture.folder.path()).await.records(), notes.clone());
        hands.push(tokio::spawn(async move {
            for _ in 0..TIMES {
                loop {
                    let found = records.get(&notes, &["n".into()]).await.unwrap().remove(0).unwrap();
                    let next = json!({"n": found.fields["n"].as_u64().unwrap() + 1});
                    let put = Batch::new().put(&notes, "n", fields(next), Expect::Version(found.version));
                    match records.commit(put).await {
                        Ok(_) => break,
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
                    }
                }
            }
        }));
    }
    for hand in hands {
        hand.await.unwrap();
    }
    let found = records.get(&notes, &["n".into()]).await.unwrap().remove(0).unwrap();
    assert_eq!(found.fields["n"], json!(HANDS * TIMES));
    assert_eq!(found.version, Version((HANDS * TIMES) as u64 + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_sees_half_a_batch() {
    let fixture = Fixture::new().await;
    let (records, notes) = fixture.notes().await;
    let keys: Vec<storage_core::Key> = (0..20).map(|n| format!("k{n:02}").into()).collect();
    let write =
        |n: u64| keys.iter().fold(Batch::new(), |b, key| b.put(&notes, key.clone(), fields(json!({"n": n})), Expect::Anything));
    records.commit(write(0)).await.unwrap();
    let other = open(fixture.folder.path()).await.records();
    let (reading_keys, reading_notes) = (keys.clone(), notes.clone());
    let reading = tokio::spawn(async move {
        let (mut last, mut seen) = (0, HashSet::new());
        while last < 60 {
            // A few keys take another way than many, a page yet another, and single keys must go on from where a batch was seen.
            let few = other.get(&reading_notes, &[reading_keys[0].clone(), reading_keys[19].clone()]).await.unwrap();
            let all = other.get(&reading_notes, &reading_keys).await.unwrap();
            let page = other.scan(&Query::table("Notes").unwrap()).await.unwrap().records.into_iter().map(Some).collect();
            let mut single = Vec::new();
            for key in &reading_keys {
                single.extend(other.get(&reading_notes, std::slice::from_ref(key)).await.unwrap());
            }
            let number = |record: &Option<storage_core::Record>| record.as_ref().unwrap().fields["n"].as_u64().unwrap();
            for found in [few, all, page] {
                let numbers: HashSet<u64> = found.iter().map(number).collect();
                assert_eq!(numbers.len(), 1, "half a batch: {numbers:?}");
                last = numbers.into_iter().next().unwrap();
                seen.insert(last);
            }
            assert!(single.iter().map(number).is_sorted(), "an older state after a newer one");
        }
        seen.len()
    });
    for n in 1..=60 {
        records.commit(write(n)).await.unwrap();
    }
    assert!(reading.await.unwrap() > 1);
}

#[tokio::test]
async fn changes_of_tables_are_seen_by_others() {
    let fixture = Fixture::new().await;
    let other = open(fixture.folder.path()).await.records();
    let (records, notes) = fixture.notes().await;
    other.commit(Batch::new().put(&notes, "a", fields(json!({})), Expect::Absent)).await.unwrap();
    let column = Column {
        name: "n".try_into().unwrap(),
        kind: ColumnType::Integer,
        required: false,
        unique: true,
        default: Some(json!(7)),
    };
    records.alter_table(&notes, &SchemaChange::AddColumn(column)).await.unwrap();
    assert_eq!(other.get(&notes, &["a".into()]).await.unwrap()[0].as_ref().unwrap().fields["n"], json!(7));
    let taken = Batch::new().put(&notes, "b", fields(json!({"n": 7})), Expect::Absent);
    assert_eq!(other.commit(taken).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(records.drop_table(&notes).await.unwrap());
    assert_eq!(other.get(&notes, &["a".into()]).await.unwrap_err().kind(), ErrorKind::NotFound);
    records.create_table(&TableSchema::builder("Notes").build().unwrap()).await.unwrap();
    assert_eq!(other.get(&notes, &["a".into()]).await.unwrap(), [None]);
}

#[tokio::test]
async fn queues_are_followed_across_handles() {
    let fixture = Fixture::new().await;
    let (one, two) = (fixture.store.queue(), open(fixture.folder.path()).await.queue());
    one.create_queue(&mail(), &QueueSpec::default()).await.unwrap();
    two.send(&mail(), vec![NewMessage::new("first")]).await.unwrap();
    let got = one.receive(&mail(), &Receive::default()).await.unwrap().remove(0);
    assert!(two.receive(&mail(), &Receive::default()).await.unwrap().is_empty());
    // A receipt is good in another process.
    two.delete(&mail(), &[got.receipt]).await.unwrap().remove(0).unwrap();
    assert_eq!(one.stats(&mail()).await.unwrap().leased.value(), Some(0));

    one.send(&mail(), vec![NewMessage::new("old")]).await.unwrap();
    assert_eq!(two.stats(&mail()).await.unwrap().ready.value(), Some(1));
    one.delete_queue(&mail()).await.unwrap();
    one.create_queue(&mail(), &QueueSpec::default()).await.unwrap();
    assert_eq!(two.stats(&mail()).await.unwrap().ready.value(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_receive_hears_of_another_handles_message() {
    let fixture = Fixture::new().await;
    let (one, two) = (Arc::new(fixture.store.queue()), open(fixture.folder.path()).await.queue());
    one.create_queue(&mail(), &QueueSpec::default()).await.unwrap();
    let receiver = Arc::clone(&one);
    let started = Instant::now();
    let waiting =
        tokio::spawn(async move { receiver.receive(&mail(), &Receive::default().wait(Duration::from_secs(60))).await.unwrap() });
    two.send(&mail(), vec![NewMessage::new("x")]).await.unwrap();
    assert_eq!(waiting.await.unwrap().len(), 1);
    assert!(started.elapsed() < Duration::from_secs(30));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_received_once_by_many_handles() {
    const COUNT: usize = 300;
    let fixture = Fixture::new().await;
    let queue = fixture.store.queue();
    queue.create_queue(&mail(), &QueueSpec::default()).await.unwrap();
    let messages = (0..COUNT).map(|n| NewMessage::new(n.to_string())).collect();
    queue.send(&mail(), messages).await.unwrap();
    let mut hands = Vec::new();
    for _ in 0..3 {
        let queue = open(fixture.folder.path()).await.queue();
        hands.push(tokio::spawn(async move {
            let mut bodies = Vec::new();
            loop {
                let got = queue.receive(&mail(), &Receive::up_to(7)).await.unwrap();
                if got.is_empty() {
                    return bodies;
                }
                let receipts: Vec<_> = got.iter().map(|delivery| delivery.receipt.clone()).collect();
                queue.delete(&mail(), &receipts).await.unwrap().into_iter().for_each(|done| done.unwrap());
                bodies.extend(got.into_iter().map(|delivery| delivery.message.body));
            }
        }));
    }
    let mut bodies = Vec::new();
    for hand in hands {
        bodies.extend(hand.await.unwrap());
    }
    let different: HashSet<_> = bodies.iter().collect();
    assert_eq!((bodies.len(), different.len()), (COUNT, COUNT));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_creates_wins() {
    let fixture = Fixture::new().await;
    let mut hands = Vec::new();
    for n in 0..6 {
        let blobs = open(fixture.folder.path()).await.blobs();
        hands.push(tokio::spawn(async move {
            let body: BlobBody = match n % 2 {
                0 => format!("{n}").into(),
                _ => {
                    let stream = futures::StreamExt::boxed(futures::stream::once(async move { Ok(format!("{n}").into()) }));
                    BlobBody::Stream { stream, size: None }
                }
            };
            blobs.put(&blob("a/b"), body, &PutOptions::default().mode(PutMode::Create)).await
        }));
    }
    let mut won = 0;
    for hand in hands {
        match hand.await.unwrap() {
            Ok(_) => won += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists),
        }
    }
    assert_eq!(won, 1);
}
