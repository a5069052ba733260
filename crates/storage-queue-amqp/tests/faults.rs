//! What happens when the broker or the network fails. Tests that break a broker start one of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::broker::Broker;
use storage_conformance::proxy::{Harm, Proxy};
use storage_core::{
    Consumer, ConsumerOptions, ErrorKind, Message, MessageUpdate, NewMessage, Outcome, QueueName, QueueSpec, QueueStore, Receive,
};

const PATIENCE: Duration = Duration::from_secs(120);

fn queue() -> QueueName {
    "work".parse().expect("a name")
}

fn uncapped() -> QueueSpec {
    QueueSpec::default().max_deliveries(None)
}

/// How often each message was handled.
type Seen = Arc<Mutex<BTreeMap<usize, usize>>>;

fn number(message: &Message) -> usize {
    String::from_utf8_lossy(&message.body).parse().expect("a number")
}

/// Runs a consumer until it is told to stop.
fn consume(store: &QueueStore, seen: &Seen, stop: &tokio::sync::watch::Receiver<bool>) -> tokio::task::JoinHandle<u64> {
    let (store, seen, mut stop) = (store.clone(), Arc::clone(seen), stop.clone());
    tokio::spawn(async move {
        let options = ConsumerOptions { concurrency: 32, prefetch: 64, ..ConsumerOptions::default() };
        let consumer = Consumer::new(&store, &queue(), options).expect("it can work");
        let handler = move |message: Message| {
            *seen.lock().expect("not poisoned").entry(number(&message)).or_default() += 1;
            async { Outcome::Done }
        };
        let report = consumer.run(handler, async move { drop(stop.wait_for(|stop| *stop).await) }).await;
        report.expect("a consumer outlives its broker's restart").lost
    })
}

/// Sends these numbers by tens, each ten until it is acknowledged. Answers how many calls failed.
async fn produce(store: &QueueStore, numbers: std::ops::Range<usize>, acknowledged: &AtomicUsize) -> usize {
    let mut failed = 0;
    let numbers: Vec<usize> = numbers.collect();
    for ten in numbers.chunks(10) {
        let started = Instant::now();
        while let Err(error) = store.send_all(&queue(), ten.iter().map(|n| NewMessage::new(n.to_string())).collect()).await {
            assert!(error.is_retryable(), "{error:?}");
            assert!(started.elapsed() < PATIENCE, "the broker is back, but: {error:?}");
            failed += 1;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        acknowledged.fetch_add(ten.len(), Ordering::SeqCst);
    }
    failed
}

/// Waits until all numbers below `count` have been seen; answers how many were seen more than once.
async fn until_seen(seen: &Seen, count: usize) -> usize {
    let started = Instant::now();
    loop {
        let (distinct, more) = {
            let seen = seen.lock().expect("not poisoned");
            (seen.len(), seen.values().filter(|times| **times > 1).count())
        };
        if distinct == count {
            return more;
        }
        assert!(started.elapsed() < PATIENCE, "{} of {count} acknowledged messages never came", count - distinct);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The broker is killed at one third and at one half of 10,000 messages: all that it acknowledged is delivered.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_loses_nothing() {
    const COUNT: usize = 10_000;
    let Some(mut broker) = Broker::start_or_skip() else { return };
    let (producer, consumer) = (broker.open("").await, broker.open("").await);
    producer.create_queue(&queue(), &uncapped()).await.unwrap();
    let (seen, acknowledged) = (Seen::default(), Arc::new(AtomicUsize::new(0)));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let consumers = [consume(&consumer, &seen, &stopped), consume(&producer, &seen, &stopped)];
    let producers: Vec<_> = (0..4)
        .map(|part| {
            let (store, acknowledged) = (producer.clone(), Arc::clone(&acknowledged));
            let numbers = part * COUNT / 4..(part + 1) * COUNT / 4;
            tokio::spawn(async move { produce(&store, numbers, &acknowledged).await })
        })
        .collect();
    for share in [COUNT / 3, COUNT / 2] {
        while acknowledged.load(Ordering::SeqCst) < share {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        broker = tokio::task::spawn_blocking(move || {
            broker.kill();
            broker.start();
            broker
        })
        .await
        .unwrap();
    }
    let mut failed = 0;
    for producer in producers {
        failed += producer.await.unwrap();
    }
    let more = until_seen(&seen, COUNT).await;
    stop.send_replace(true);
    for consumer in consumers {
        consumer.await.unwrap();
    }
    println!("{COUNT} messages, {failed} calls sent again, {more} messages came more than once");
    // A call that failed had ten messages at most in flight, a consumer 96 in hand, at each of two ends.
    assert!(more <= failed * 10 + 4 * 96, "{more} duplicates");
}

/// A connection that breaks in the middle of sends and of acknowledgements loses nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_loses_nothing() {
    const COUNT: usize = 2_000;
    let Some(address) = common::address_or_skip() else { return };
    let port = address.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::start(port).await;
    let prefix = common::prefix();
    let through = common::open(&format!("amqp://guest:guest@127.0.0.1:{}/?prefix={prefix}", proxy.port())).await;
    through.create_queue(&queue(), &uncapped()).await.unwrap();
    let acknowledged = AtomicUsize::new(0);
    // Mid-publish: more than the frames of a few messages, less than all.
    proxy.harm(Harm::CutRequest(30_000));
    let failed = produce(&through, 0..COUNT, &acknowledged).await;
    assert!(proxy.is_done());
    assert!(failed >= 1, "a call that was cut has failed");
    // Mid-ack: acknowledgements are a few bytes.
    let seen = Seen::default();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    proxy.harm(Harm::CutRequest(3_000));
    let consumer = consume(&through, &seen, &stopped);
    let more = until_seen(&seen, COUNT).await;
    // What was lost with the connection comes again: until nothing does.
    let started = Instant::now();
    while through.stats(&queue()).await.is_ok_and(|stats| stats.ready.value() != Some(0) || stats.leased.value() != Some(0)) {
        assert!(started.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    stop.send_replace(true);
    consumer.await.unwrap();
    assert!(proxy.is_done());
    println!("{COUNT} messages, {failed} calls sent again, {more} messages came more than once");
}

/// A consumer that vanishes with 100 messages: all of them come back, at once, counted as delivered once.
#[test]
fn what_a_vanished_consumer_had_comes_back() {
    let Some(address) = common::address_or_skip() else { return };
    let url = format!("{address}?prefix={}", common::prefix());
    let vanishing = tokio::runtime::Runtime::new().unwrap();
    vanishing.block_on(async {
        let store = common::open(&url).await;
        store.create_queue(&queue(), &uncapped()).await.unwrap();
        store.send_all(&queue(), (0..100).map(|n| NewMessage::new(n.to_string())).collect()).await.unwrap();
        let request = Receive::up_to(100).visibility(Duration::from_secs(600));
        assert_eq!(store.receive(&queue(), &request).await.unwrap().len(), 100);
        std::mem::forget(store);
    });
    // With its sockets, and without a word.
    vanishing.shutdown_background();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = common::open(&url).await;
        let mut back = Vec::new();
        let started = Instant::now();
        while back.len() < 100 {
            assert!(started.elapsed() < PATIENCE, "{} of 100 came back", back.len());
            back.extend(store.receive(&queue(), &Receive::up_to(100).wait(Duration::from_secs(1))).await.unwrap());
        }
        let numbers: std::collections::BTreeSet<usize> = back.iter().map(|d| number(&d.message)).collect();
        assert_eq!(numbers.len(), 100);
        assert!(back.iter().all(|d| d.message.deliveries == 2), "each was delivered twice");
    });
}

/// A broker without memory takes nothing: calls that send end, with an error that says so; consumers go on. Then all goes on as before.
#[tokio::test(flavor = "multi_thread")]
async fn a_memory_alarm_hangs_nobody() {
    let Some(broker) = Broker::start_or_skip() else { return };
    let mut config = storage_core::DriverConfig::from_url(&broker.url(""));
    config.timeout = Some(Duration::from_secs(3));
    let opened = storage_core::Driver::open(&storage_queue_amqp::AmqpDriver, &config).await.unwrap();
    let store = QueueStore::new(opened.queue.unwrap());
    store.create_queue(&queue(), &uncapped()).await.unwrap();
    store.send_all(&queue(), (0..50).map(|n| NewMessage::new(n.to_string())).collect()).await.unwrap();
    broker.control(&["set_vm_memory_high_watermark", "0.000001"]);
    let mut kinds = Vec::new();
    for n in 0..3 {
        let started = Instant::now();
        match store.send(&queue(), NewMessage::new((100 + n).to_string())).await {
            // The alarm may take a moment to reach the connection.
            Ok(_) => {}
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Throttled | ErrorKind::Timeout), "{error:?}");
                assert!(error.is_retryable());
                kinds.push(error.kind());
            }
        }
        assert!(started.elapsed() < Duration::from_secs(15), "it took {:?}", started.elapsed());
    }
    assert_eq!(kinds.last(), Some(&ErrorKind::Throttled), "{kinds:?}");
    let taken = store.receive(&queue(), &Receive::up_to(50).wait(Duration::from_secs(5))).await.unwrap();
    assert!(!taken.is_empty());
    for delivery in &taken {
        store.delete(&queue(), &delivery.receipt).await.unwrap();
    }
    broker.control(&["set_vm_memory_high_watermark", "0.8"]);
    let started = Instant::now();
    while let Err(error) = store.send(&queue(), NewMessage::new("999")).await {
        assert!(started.elapsed() < PATIENCE, "the alarm is over, but: {error:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let mut bodies = Vec::new();
    while !bodies.contains(&999) {
        assert!(started.elapsed() < PATIENCE, "{bodies:?}");
        let more = store.receive(&queue(), &Receive::up_to(100).wait(Duration::from_secs(1))).await.unwrap();
        bodies.extend(more.iter().map(|d| number(&d.message)));
    }
}

/// Wrong names and passwords are told apart, and nothing says the password.
#[tokio::test]
async fn wrong_credentials_are_unauthorized() {
    let Some(address) = common::address_or_skip() else { return };
    let at = address.split_once('@').unwrap().1.trim_end_matches('/');
    for url in [
        format!("amqp://guest:hunter2@{at}/"),
        format!("amqp://nobody:hunter2@{at}/"),
        format!("amqp://guest:guest@{at}/hunter2"),
    ] {
        let error = common::open(&url).await.ping().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
        let is_vhost = url.ends_with("hunter2");
        assert!(is_vhost || !format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

/// What can't be sent is refused before anything of it is.
#[tokio::test]
async fn bad_messages_are_refused() {
    let Some(address) = common::address_or_skip() else { return };
    let store = common::open(&format!("{address}?prefix={}", common::prefix())).await;
    let missing = store.send_all(&queue(), vec![NewMessage::new("a"), NewMessage::new("b")]).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing:?}");
    let later = NewMessage::new("a").delay(Duration::from_secs(5));
    assert_eq!(store.send(&queue(), later).await.unwrap_err().kind(), ErrorKind::NotFound);
    store.create_queue(&queue(), &store.default_spec()).await.unwrap();
    let bad = [
        NewMessage::new(vec![0; (16 << 20) + 1]),
        NewMessage::new("x").delay(Duration::from_secs(60 * 86_400)),
        (0..12_000).fold(NewMessage::new("x"), |message, n| message.attribute(format!("{n:05}"), "")),
    ];
    for bad in bad {
        let error = store.send_all(&queue(), vec![NewMessage::new("good"), bad]).await.unwrap_err();
        assert_eq!((error.kind(), error.failed_write()), (ErrorKind::InvalidInput, Some(1)), "{error:?}");
    }
    assert!(store.receive(&queue(), &Receive::default()).await.unwrap().is_empty());
}

/// Leases end before the broker ends them.
#[tokio::test]
async fn a_lease_lasts_as_long_as_the_broker_allows() {
    let Some(address) = common::address_or_skip() else { return };
    let store = common::open(&format!("{address}?prefix={}&max_lease=1", common::prefix())).await;
    store.create_queue(&queue(), &uncapped()).await.unwrap();
    store.send(&queue(), NewMessage::new("a")).await.unwrap();
    let request = Receive::default().visibility(Duration::from_secs(600));
    let taken = store.receive(&queue(), &request).await.unwrap().remove(0);
    assert!(taken.leased_until - chrono::Utc::now() <= chrono::TimeDelta::seconds(1));
    let renewed = store.update(&queue(), &taken.receipt, &MessageUpdate::visibility(Duration::from_secs(600))).await.unwrap();
    let again = store.receive(&queue(), &request.wait(Duration::from_secs(20))).await.unwrap().remove(0);
    assert_eq!(again.message.deliveries, 2);
    assert_eq!(store.delete(&queue(), &renewed).await.unwrap_err().kind(), ErrorKind::LeaseLost);
}

async fn share(address: &str, options: &str, count: usize) {
    let url = format!("{address}?prefix={}{options}", common::prefix());
    let store = common::open(&url).await;
    store.create_queue(&queue(), &uncapped()).await.unwrap();
    let (seen, acknowledged) = (Seen::default(), AtomicUsize::new(0));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let started = Instant::now();
    let mut consumers = Vec::new();
    for _ in 0..4 {
        consumers.push(consume(&common::open(&url).await, &seen, &stopped));
    }
    let part = count / 4;
    let producers = (0..4).map(|n| produce(&store, n * part..(n + 1) * part, &acknowledged));
    let failed: usize = futures::future::join_all(producers).await.into_iter().sum();
    let more = until_seen(&seen, count).await;
    stop.send_replace(true);
    for consumer in consumers {
        assert_eq!(consumer.await.unwrap(), 0, "a lease was lost");
    }
    println!("{count} messages, 4 workers{options}: {:?}, {failed} calls sent again, {more} duplicates", started.elapsed());
    assert_eq!((failed, more), (0, 0));
    assert!(store.receive(&queue(), &Receive::default()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn four_workers_share_messages() {
    let Some(address) = common::address_or_skip() else { return };
    share(&address, "", 8_000).await;
    share(&address, "&prefetch=200", 8_000).await;
    share(&address, "&queue_type=classic", 4_000).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs for minutes"]
async fn soak_four_workers_share_200_000_messages() {
    let Some(address) = common::address_or_skip() else { return };
    share(&address, "", 200_000).await;
    share(&address, "&prefetch=1000", 200_000).await;
}
