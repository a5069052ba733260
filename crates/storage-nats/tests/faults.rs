//! Servers that are killed, connections that break, consumers that vanish, limits that are reached.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Server, fresh, open, q};
use storage_conformance::proxy::{Harm, Proxy};
use storage_core::{
    Consumer, ConsumerOptions, ErrorKind, Message, MessageUpdate, NewMessage, Outcome, QueueSpec, QueueStore, Receive, Result,
};

/// How often each body was handled.
#[derive(Clone, Default)]
struct Handled(Arc<Mutex<BTreeMap<Vec<u8>, usize>>>);

impl Handled {
    fn count(&self, message: &Message) {
        *self.0.lock().unwrap().entry(message.body.to_vec()).or_default() += 1;
    }

    fn different(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn twice(&self) -> usize {
        self.0.lock().unwrap().values().map(|times| times - 1).sum()
    }
}

fn options(visibility: Duration) -> ConsumerOptions {
    ConsumerOptions { concurrency: 16, prefetch: 64, visibility, ..ConsumerOptions::default() }
}

/// Runs a consumer until all of `count` bodies were handled.
async fn consume(store: QueueStore, handled: Handled, count: usize, visibility: Duration) -> Result<()> {
    let seen = handled.clone();
    let handler = move |message: Message| {
        handled.count(&message);
        async { Outcome::Done }
    };
    let all = async move {
        while seen.different() < count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    Consumer::new(&store, &q(), options(visibility))?.run(handler, all).await.map(drop)
}

/// Until the queue holds nothing more.
async fn drained(store: &QueueStore) {
    let started = Instant::now();
    loop {
        let stats = store.stats(&q()).await.unwrap();
        let left = [stats.ready, stats.delayed, stats.leased].map(|n| n.value().unwrap());
        if left == [0; 3] {
            return;
        }
        for delivery in store.receive(&q(), &Receive::up_to(1000)).await.unwrap() {
            store.delete(&q(), &delivery.receipt).await.unwrap();
        }
        assert!(started.elapsed() < Duration::from_secs(60), "still there: {stats:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_twice_keeps_what_it_acknowledged() {
    const COUNT: usize = 10_000;
    const PRODUCERS: usize = 4;
    let Some(mut server) = Server::or_skip("").await else { return };
    let url = fresh(&server.address());
    let store = open(&url).await.unwrap();
    store.create_queue(&q(), &QueueSpec::default().max_deliveries(None)).await.unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let handled = Handled::default();
    let mut producers = tokio::task::JoinSet::new();
    for producer in 0..PRODUCERS {
        let (url, sent) = (url.clone(), Arc::clone(&sent));
        producers.spawn(async move {
            let store = open(&url).await.unwrap();
            let numbers: Vec<usize> = (producer..COUNT).step_by(PRODUCERS).collect();
            for numbers in numbers.chunks(10) {
                let batch = || numbers.iter().map(|n| NewMessage::new(n.to_string())).collect::<Vec<_>>();
                // What is not acknowledged is sent again, and may be there twice then.
                while let Err(error) = store.send_all(&q(), batch()).await {
                    assert!(error.is_retryable(), "{error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                sent.fetch_add(numbers.len(), Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
    }
    let mut consumers = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let store = open(&url).await.unwrap();
        consumers.spawn(consume(store, handled.clone(), COUNT, Duration::from_secs(3)));
    }
    for share in [COUNT / 3, COUNT / 2] {
        while sent.load(Ordering::SeqCst) < share {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.start().await;
    }
    let both = async {
        while let Some(ended) = producers.join_next().await {
            ended.unwrap();
        }
        while let Some(ended) = consumers.join_next().await {
            ended.unwrap().unwrap();
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(150), both).await;
    assert!(ended.is_ok(), "{} of {COUNT} handled, {} sent", handled.different(), sent.load(Ordering::SeqCst));
    assert_eq!(handled.different(), COUNT);
    println!("killed twice: {COUNT} messages, {} duplicates", handled.twice());
    // The window of what is in flight at a kill, of all consumers and producers together.
    assert!(handled.twice() < COUNT / 10, "{} duplicates", handled.twice());
    drained(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_messages_of_a_consumer_that_vanishes_come_back_in_time() {
    let Some(server) = Server::or_skip("").await else { return };
    let url = fresh(&server.address());
    let store = open(&url).await.unwrap();
    store.create_queue(&q(), &QueueSpec::default()).await.unwrap();
    store.send_all(&q(), (0..100).map(|n| NewMessage::new(n.to_string())).collect()).await.unwrap();
    let proxy = Proxy::start(server.port()).await;
    let vanishing = open(&url.replace(&server.address(), &format!("nats://{}", proxy.address()))).await.unwrap();
    let visibility = Duration::from_secs(4);
    let started = Instant::now();
    let mut taken = BTreeSet::new();
    while taken.len() < 100 {
        let batch = vanishing.receive(&q(), &Receive::up_to(100).visibility(visibility)).await.unwrap();
        taken.extend(batch.into_iter().map(|delivery| delivery.message.id));
    }
    let all_taken = started.elapsed();
    proxy.vanish();
    let mut back = BTreeMap::new();
    while back.len() < 100 {
        let request = Receive::up_to(100).visibility(Duration::from_secs(120)).wait(Duration::from_millis(500));
        for delivery in store.receive(&q(), &request).await.unwrap() {
            assert!(started.elapsed() >= visibility, "{} came back after {:?}", delivery.message.id, started.elapsed());
            assert_eq!(delivery.message.deliveries, 2);
            assert!(back.insert(delivery.message.id.clone(), started.elapsed()).is_none(), "{} came twice", delivery.message.id);
        }
        assert!(started.elapsed() < visibility + all_taken + Duration::from_secs(5), "{} of 100 came back", back.len());
    }
    assert_eq!(back.into_keys().collect::<BTreeSet<_>>(), taken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_in_the_middle_of_publishing_loses_nothing() {
    const COUNT: usize = 2_000;
    let Some(server) = Server::or_skip("").await else { return };
    let url = fresh(&server.address());
    let direct = open(&url).await.unwrap();
    direct.create_queue(&q(), &QueueSpec::default()).await.unwrap();
    let proxy = Proxy::start(server.port()).await;
    let proxied = open(&url.replace(&server.address(), &format!("nats://{}", proxy.address()))).await.unwrap();
    let message = |n: usize| NewMessage::new(format!("{n:0>200}")).dedup_id(n.to_string());
    proxy.harm(Harm::CutRequest(COUNT * 100));
    let mut tries = 0;
    while let Err(error) = proxied.send_all(&q(), (0..COUNT).map(message).collect()).await {
        assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable), "{error}");
        tries += 1;
        assert!(tries < 5, "{error}");
    }
    assert!(proxy.is_done() && tries > 0, "it was not cut");
    let mut bodies = BTreeSet::new();
    while bodies.len() < COUNT {
        let taken = direct.receive(&q(), &Receive::up_to(1000).visibility(Duration::from_secs(100))).await.unwrap();
        assert!(!taken.is_empty(), "{} of {COUNT}", bodies.len());
        for delivery in taken {
            assert!(bodies.insert(delivery.message.body), "by their ids, each is there once");
        }
    }
    assert!(direct.receive(&q(), &Receive::up_to(10)).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_in_the_middle_of_acknowledging_removes_what_it_says() {
    const COUNT: u32 = 1_000;
    let Some(server) = Server::or_skip("").await else { return };
    let url = fresh(&server.address());
    let direct = open(&url).await.unwrap();
    direct.create_queue(&q(), &QueueSpec::default()).await.unwrap();
    direct.send_all(&q(), (0..COUNT).map(|n| NewMessage::new(n.to_string())).collect()).await.unwrap();
    let proxy = Proxy::start(server.port()).await;
    let proxied = open(&url.replace(&server.address(), &format!("nats://{}", proxy.address()))).await.unwrap();
    let mut receipts = Vec::new();
    while receipts.len() < COUNT as usize {
        let batch = proxied.receive(&q(), &Receive::up_to(COUNT).visibility(Duration::from_secs(100))).await.unwrap();
        receipts.extend(batch.into_iter().map(|delivery| delivery.receipt));
    }
    proxy.harm(Harm::CutRequest(30_000));
    let mut tries = 0;
    loop {
        let outcomes = proxied.delete_all(&q(), &receipts).await;
        let failed = outcomes.map_or(receipts.len(), |outcomes| outcomes.iter().filter(|outcome| outcome.is_err()).count());
        if failed == 0 {
            break;
        }
        tries += 1;
        assert!(tries < 5, "{failed} can't be removed");
    }
    assert!(proxy.is_done(), "it was not cut");
    // Every one that was said to be removed is.
    assert_eq!(direct.purge(&q()).await.unwrap(), 0);
    // And a receive through a connection that was made again works.
    direct.send(&q(), NewMessage::new("after")).await.unwrap();
    let request = Receive::default().wait(Duration::from_secs(10));
    assert_eq!(proxied.receive(&q(), &request).await.unwrap()[0].message.body, "after");
}

async fn four_workers(count: usize) {
    let Some(address) = common::or_skip() else { return };
    let url = fresh(&address);
    let store = open(&url).await.unwrap();
    store.create_queue(&q(), &QueueSpec::default()).await.unwrap();
    let (handled, started) = (Handled::default(), Instant::now());
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        workers.spawn(consume(open(&url).await.unwrap(), handled.clone(), count, Duration::from_secs(30)));
    }
    for first in (0..count).step_by(1_000) {
        let last = count.min(first + 1_000);
        store.send_all(&q(), (first..last).map(|n| NewMessage::new(n.to_string())).collect()).await.unwrap();
    }
    while let Some(ended) = workers.join_next().await {
        ended.unwrap().unwrap();
    }
    assert_eq!(handled.different(), count);
    println!("four workers: {count} messages in {:?}, {} duplicates", started.elapsed(), handled.twice());
    assert_eq!(handled.twice(), 0, "nothing was killed: each goes to one");
    drained(&store).await;
    store.delete_queue(&q()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn four_workers_lose_nothing() {
    four_workers(4_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn four_workers_lose_nothing_soak() {
    four_workers(50_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delays_are_looked_after_by_any_receiver() {
    let Some(address) = common::or_skip() else { return };
    let url = fresh(&address);
    let (one, other) = (open(&url).await.unwrap(), open(&url).await.unwrap());
    one.create_queue(&q(), &QueueSpec::default()).await.unwrap();
    let started = Instant::now();
    let delayed: Vec<_> = (1..=20_u64).map(|n| NewMessage::new(n.to_string()).delay(Duration::from_millis(n * 50))).collect();
    let sent = one.send_all(&q(), delayed).await.unwrap();
    assert_eq!(one.stats(&q()).await.unwrap().delayed.value(), Some(20));
    let mut received = 0;
    while received < 20 {
        let request = Receive::up_to(5).wait(Duration::from_secs(5));
        let receiver = if received % 2 == 0 { &other } else { &one };
        let batch = receiver.receive(&q(), &request).await.unwrap();
        assert!(!batch.is_empty(), "{received} of 20");
        for delivery in batch {
            let n: usize = std::str::from_utf8(&delivery.message.body).unwrap().parse().unwrap();
            assert!(started.elapsed() >= Duration::from_millis(n as u64 * 50), "{n} came after {:?}", started.elapsed());
            assert_eq!((&delivery.message.id, delivery.message.deliveries), (&sent[n - 1].id, 1));
            received += 1;
        }
    }
}

/// A server that meets a question of somebody who has gone, when a message is due again, delivers it with a wrong count, or after another ack wait (see `pull.rs`).
#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_was_given_up_is_in_nobodys_way() {
    let Some(address) = common::or_skip() else { return };
    let url = fresh(&address);
    let (one, other) = (open(&url).await.unwrap(), open(&url).await.unwrap());
    one.create_queue(&q(), &QueueSpec::default().max_deliveries(None)).await.unwrap();
    one.send(&q(), NewMessage::new("a")).await.unwrap();
    let visibility = Duration::from_millis(300);
    for round in 1..=10 {
        let started = Instant::now();
        let request = Receive::default().visibility(visibility).wait(Duration::from_secs(10));
        let taken = one.receive(&q(), &request).await.unwrap();
        assert_eq!(taken[0].message.deliveries, round);
        assert!(started.elapsed() < Duration::from_secs(5), "round {round}: it came after {:?}", started.elapsed());
        let given_up = tokio::time::timeout(Duration::from_millis(100), other.receive(&q(), &request)).await;
        assert!(given_up.is_err(), "it is leased");
        // Nobody waits when the lease ends.
        tokio::time::sleep((visibility + Duration::from_millis(50)).saturating_sub(started.elapsed())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_works_where_it_was_received_alone() {
    let Some(address) = common::or_skip() else { return };
    let url = fresh(&address);
    let (one, other) = (open(&url).await.unwrap(), open(&url).await.unwrap());
    one.create_queue(&q(), &QueueSpec::default()).await.unwrap();
    one.send(&q(), NewMessage::new("a")).await.unwrap();
    let taken = one.receive(&q(), &Receive::default()).await.unwrap().remove(0);
    assert_eq!(other.delete(&q(), &taken.receipt).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    let change = MessageUpdate::visibility(Duration::ZERO);
    assert_eq!(other.update(&q(), &taken.receipt, &change).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    // A queue of that name that was made anew has a message at the same place, which an old receipt does not touch.
    one.delete_queue(&q()).await.unwrap();
    other.create_queue(&q(), &QueueSpec::default()).await.unwrap();
    other.send(&q(), NewMessage::new("b")).await.unwrap();
    let new = other.receive(&q(), &Receive::default()).await.unwrap().remove(0);
    assert_eq!(new.message.id, taken.message.id);
    assert_eq!(one.delete(&q(), &taken.receipt).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    other.update(&q(), &new.receipt, &change).await.unwrap();
    // The first store goes on with the new queue.
    assert_eq!(one.receive(&q(), &Receive::default()).await.unwrap()[0].message.body, "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_jetstream_there_are_no_queues() {
    let Some(server) = Server::or_skip("jetstream: disabled\n").await else { return };
    let store = open(&server.address()).await.unwrap();
    let error = store.create_queue(&q(), &QueueSpec::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("JetStream"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_large_keeps_all_back() {
    let Some(address) = common::or_skip() else { return };
    let store = open(&fresh(&address)).await.unwrap();
    store.create_queue(&q(), &QueueSpec::default()).await.unwrap();
    let max = store.capabilities().max_body_bytes;
    let large = NewMessage::new(vec![b'x'; max]).attribute("a", "y".repeat(1000));
    let error = store.send_all(&q(), vec![NewMessage::new("small"), large]).await.unwrap_err();
    assert_eq!((error.kind(), error.failed_write()), (ErrorKind::InvalidInput, Some(1)), "{error}");
    assert!(store.receive(&q(), &Receive::default()).await.unwrap().is_empty());
    // The largest can die, with the longest of reasons.
    store.send(&q(), NewMessage::new(vec![b'x'; max])).await.unwrap();
    let taken = store.receive(&q(), &Receive::default()).await.unwrap().remove(0);
    store.dead_letter(&q(), &taken.receipt, &"\u{1}".repeat(4096)).await.unwrap();
    let letter = store.receive(&q().dead_letter().unwrap(), &Receive::default()).await.unwrap().remove(0);
    assert_eq!((letter.message.body.len(), letter.message.attributes["storage-dead-reason"].len()), (max, 4096));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_throttles() {
    let Some(address) = common::or_skip() else { return };
    let store = open(&format!("{}&max_messages=5", fresh(&address))).await.unwrap();
    store.create_queue(&q(), &QueueSpec::default()).await.unwrap();
    let message = |n: usize| NewMessage::new(n.to_string());
    store.send_all(&q(), (0..4).map(message).collect()).await.unwrap();
    let error = store.send_all(&q(), (4..7).map(message).collect()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Throttled, "{error}");
    assert!(error.message().contains("1 of 3"), "{error}");
    let taken = store.receive(&q(), &Receive::up_to(10)).await.unwrap();
    assert_eq!(taken.len(), 5, "what was there stays, in order");
    assert_eq!(taken[0].message.body, "0");
    store.delete(&q(), &taken[0].receipt).await.unwrap();
    store.send(&q(), message(7)).await.unwrap();
    // What moves finds room in a full queue.
    store.send(&q(), message(8).delay(Duration::from_millis(50))).await.unwrap();
    store.dead_letter(&q(), &taken[1].receipt, "test").await.unwrap();
    store.send(&q(), message(9)).await.unwrap();
    assert_eq!(store.redrive(&q(), 10).await.unwrap(), 1);
    let mut bodies = BTreeSet::new();
    while bodies.len() < 4 {
        let request = Receive::up_to(10).wait(Duration::from_secs(10));
        bodies.extend(store.receive(&q(), &request).await.unwrap().into_iter().map(|delivery| delivery.message.body));
    }
    assert_eq!(bodies.into_iter().collect::<Vec<_>>(), ["1", "7", "8", "9"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_throttles() {
    let folder = tempfile::tempdir().unwrap();
    let limits =
        format!("jetstream {{ store_dir: \"{}\", max_file_store: 2MB, max_memory_store: 1MB }}\n", folder.path().display());
    let Some(server) = Server::or_skip(&limits).await else { return };
    let store = open(&server.address()).await.unwrap();
    store.create_queue(&q(), &QueueSpec::default()).await.unwrap();
    let mut stored = 0;
    let error = loop {
        match store.send(&q(), NewMessage::new(vec![b'x'; 100_000])).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "it is never full");
    };
    assert_eq!(error.kind(), ErrorKind::Throttled, "{error}");
    let mut found = 0;
    while let Some(delivery) = store.receive(&q(), &Receive::default()).await.unwrap().pop() {
        store.delete(&q(), &delivery.receipt).await.unwrap();
        found += 1;
    }
    assert_eq!(found, stored);
    store.send(&q(), NewMessage::new("again")).await.unwrap();
}

/// Somebody who tidies up consumers takes the queue's away, while another program has one of its own on the stream: ours are made again.
#[tokio::test(flavor = "multi_thread")]
async fn consumers_that_were_removed_are_made_again() {
    let Some(address) = common::or_skip() else { return };
    let url = fresh(&address);
    let store = open(&url).await.unwrap();
    store.create_queue(&q(), &QueueSpec::default()).await.unwrap();
    let prefix = url.split_once("prefix=").unwrap().1;
    let client = async_nats::jetstream::new(async_nats::connect(&address).await.unwrap());
    let stream = client.get_stream(format!("{prefix}-q")).await.unwrap();
    for n in 0..3 {
        let filter_subject = format!("{prefix}.q.theirs.{n}");
        let config = async_nats::jetstream::consumer::pull::Config {
            filter_subject,
            durable_name: Some(format!("theirs{n}")),
            ..Default::default()
        };
        stream.create_consumer(config).await.unwrap();
    }
    store.send(&q(), NewMessage::new("a")).await.unwrap();
    let remove_ours = async || {
        let names: Vec<String> = futures::TryStreamExt::try_collect(stream.consumer_names()).await.unwrap();
        for name in names.iter().filter(|name| !name.starts_with("theirs")) {
            stream.delete_consumer(name).await.unwrap();
        }
    };
    remove_ours().await;
    let taken = store.receive(&q(), &Receive::default().wait(Duration::from_secs(10))).await.unwrap();
    assert_eq!(taken[0].message.body, "a");
    remove_ours().await;
    // Also for another store, which knows nothing yet, and for whoever counts.
    let other = open(&url).await.unwrap();
    assert_eq!(other.stats(&q()).await.unwrap().ready.value(), Some(1));
    let taken = other.receive(&q(), &Receive::default()).await.unwrap();
    other.delete(&q(), &taken[0].receipt).await.unwrap();
    drained(&store).await;
}

/// An account that may not have as many consumers as a queue needs: nothing is left of the attempt.
#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_room_for_a_queue_has_no_half_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let accounts = format!(
        "jetstream {{ store_dir: \"{}\" }}\naccounts {{ A {{ jetstream {{ max_mem: 1M, max_file: 10M, max_streams: 10, max_consumers: 2 }}, \
         users [{{ user: joe, password: x }}] }} }}\n",
        folder.path().display()
    );
    let Some(server) = Server::or_skip(&accounts).await else { return };
    let store = open(&server.address().replace("nats://", "nats://joe:x@")).await.unwrap();
    for _ in 0..2 {
        let error = store.create_queue(&q(), &QueueSpec::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Throttled, "{error}");
        assert!(store.queues().await.unwrap().is_empty());
    }
}

/// A closed handle says so, in a way that nobody tries again.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_handle_is_not_tried_again() {
    let Some(address) = common::or_skip() else { return };
    let store = open(&fresh(&address)).await.unwrap();
    store.close().await.unwrap();
    let error = store.queues().await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, false), "{error}");
}
