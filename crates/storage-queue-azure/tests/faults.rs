//! What happens when the service or the network fails. Tests that break an emulator start one of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::server::Server;
use storage_conformance::proxy::{Harm, Proxy};
use storage_core::{
    Consumer, ConsumerOptions, DriverConfig, ErrorKind, Message, MessageUpdate, NewMessage, Outcome, QueueName, QueueSpec,
    QueueStore, Receipt, Receive,
};
use storage_queue_azure::AzureQueue;

const PATIENCE: Duration = Duration::from_secs(120);

fn queue() -> QueueName {
    "work".parse().unwrap()
}

fn uncapped() -> QueueSpec {
    QueueSpec::default().max_deliveries(None)
}

/// How often each message was handled.
type Seen = Arc<Mutex<BTreeMap<usize, usize>>>;

fn number(message: &Message) -> usize {
    String::from_utf8_lossy(&message.body).parse().expect("a number")
}

fn numbers(range: std::ops::Range<usize>) -> Vec<NewMessage> {
    range.map(|n| NewMessage::new(n.to_string())).collect()
}

/// Runs a consumer until it is told to stop.
fn consume(
    store: &QueueStore,
    seen: &Seen,
    visibility: Duration,
    stop: &tokio::sync::watch::Receiver<bool>,
) -> tokio::task::JoinHandle<()> {
    let (store, seen, mut stop) = (store.clone(), Arc::clone(seen), stop.clone());
    tokio::spawn(async move {
        let options = ConsumerOptions { concurrency: 32, prefetch: 32, visibility, ..ConsumerOptions::default() };
        let consumer = Consumer::new(&store, &queue(), options).expect("it can work");
        let handler = move |message: Message| {
            *seen.lock().expect("not poisoned").entry(number(&message)).or_default() += 1;
            async { Outcome::Done }
        };
        let report = consumer.run(handler, async move { drop(stop.wait_for(|stop| *stop).await) }).await;
        report.expect("a consumer outlives a restart of its service");
    })
}

/// Sends these numbers by tens, each ten until it is acknowledged. Answers how many calls failed.
async fn produce(store: &QueueStore, range: std::ops::Range<usize>, acknowledged: &AtomicUsize) -> usize {
    let mut failed = 0;
    for start in range.clone().step_by(10) {
        let ten = start..range.end.min(start + 10);
        let started = Instant::now();
        while let Err(error) = store.send_all(&queue(), numbers(ten.clone())).await {
            assert!(error.is_retryable(), "{error:?}");
            assert!(started.elapsed() < PATIENCE, "the service is back, but: {error:?}");
            failed += 1;
            println!("sent again: {error}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        acknowledged.fetch_add(ten.len(), Ordering::SeqCst);
    }
    failed
}

/// Waits until all numbers below `count` have been seen; answers how many were seen more than once.
async fn until_seen(seen: &Seen, count: usize) -> usize {
    let mut last = (0, Instant::now());
    loop {
        let (distinct, more) = {
            let seen = seen.lock().expect("not poisoned");
            (seen.len(), seen.values().filter(|times| **times > 1).count())
        };
        if distinct == count {
            return more;
        }
        if distinct > last.0 {
            last = (distinct, Instant::now());
        }
        assert!(last.1.elapsed() < PATIENCE, "{} of {count} acknowledged messages never came", count - distinct);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The service is stopped and started again at one third and at one half of 10,000 messages: all that it acknowledged is delivered.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_restarted_loses_nothing() {
    const COUNT: usize = 10_000;
    let Some(mut server) = Server::start_or_skip("queue", &[]) else { return };
    // An emulator that is told to end goes on until its last connection is closed.
    let proxy = Proxy::start(server.port()).await;
    let url = common::url(&format!("http://127.0.0.1:{}", proxy.port()), "");
    let (producer, consumer) = (common::open(&url), common::open(&url));
    producer.create_queue(&queue(), &uncapped()).await.unwrap();
    let (seen, acknowledged) = (Seen::default(), Arc::new(AtomicUsize::new(0)));
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let consumers = [&consumer, &producer].map(|store| consume(store, &seen, Duration::from_secs(10), &stopped));
    let producers: Vec<_> = (0..4)
        .map(|part| {
            let (store, acknowledged) = (producer.clone(), Arc::clone(&acknowledged));
            let range = part * COUNT / 4..(part + 1) * COUNT / 4;
            tokio::spawn(async move { produce(&store, range, &acknowledged).await })
        })
        .collect();
    for share in [COUNT / 3, COUNT / 2] {
        while acknowledged.load(Ordering::SeqCst) < share {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        proxy.vanish();
        let restarted = tokio::task::spawn_blocking(move || {
            server.stop();
            server.start();
            server
        });
        server = restarted.await.unwrap();
        proxy.come_back();
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
    // A call that failed had ten messages at most in flight, a consumer 64 in hand, at each of two ends.
    assert!(more <= failed * 10 + 4 * 64, "{more} duplicates");
}

/// Connections that break in the middle of sends, of what is received, and of deletes lose nothing.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_lose_nothing() {
    const COUNT: usize = 1_000;
    let Some(address) = common::address_or_skip() else { return };
    let port = address.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap();
    let proxy = Proxy::start(port).await;
    let through = common::open(&common::url(&format!("http://127.0.0.1:{}", proxy.port()), &common::prefix()));
    through.create_queue(&queue(), &uncapped()).await.unwrap();
    // Mid-send: more than a few requests, less than all.
    proxy.harm(Harm::CutRequest(60_000));
    let failed = produce(&through, 0..COUNT, &AtomicUsize::new(0)).await;
    assert!(proxy.is_done() && failed >= 1, "a call that was cut has failed");
    let held = Seen::default();
    let visibility = Duration::from_secs(3);
    // Mid-answer: what was leased in vain comes back, and not before its time.
    proxy.harm(Harm::CutAnswer(30_000));
    let started = Instant::now();
    let (mut cut, mut receipts, mut deletes_cut) = (0, Vec::new(), false);
    while held.lock().unwrap().len() < COUNT {
        match through.receive(&queue(), &Receive::up_to(100).visibility(visibility).wait(Duration::from_secs(1))).await {
            Ok(deliveries) => {
                let mut held = held.lock().unwrap();
                for delivery in deliveries {
                    let early = started.elapsed() < visibility && delivery.message.deliveries > 1;
                    assert!(!early, "{:?} came back too soon", delivery.message);
                    *held.entry(number(&delivery.message)).or_default() += 1;
                    receipts.push(delivery.receipt);
                }
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error:?}");
                cut += 1;
            }
        }
        // Mid-delete.
        if !deletes_cut && proxy.is_done() && held.lock().unwrap().len() > COUNT / 2 {
            deletes_cut = true;
            proxy.harm(Harm::CutRequest(4_000));
        }
        for (outcome, receipt) in through.delete_all(&queue(), &receipts).await.unwrap().into_iter().zip(receipts.split_off(0)) {
            match outcome {
                Err(error) if error.is_retryable() => receipts.push(receipt),
                // Its lease ended meanwhile.
                Err(error) => assert_eq!(error.kind(), ErrorKind::LeaseLost, "{error:?}"),
                Ok(()) => {}
            }
        }
        assert!(started.elapsed() < PATIENCE);
    }
    println!("{failed} sends and {cut} receives failed");
    assert!(deletes_cut && proxy.is_done(), "it was not cut");
}

/// A consumer that vanishes with 100 messages: all of them come back when their leases end, and none sooner.
#[test]
fn what_a_vanished_consumer_had_comes_back() {
    const VISIBILITY: Duration = Duration::from_secs(6);
    let Some(address) = common::address_or_skip() else { return };
    let url = common::url(&address, &common::prefix());
    let vanishing = tokio::runtime::Runtime::new().unwrap();
    let (first, last) = vanishing.block_on(async {
        let store = common::open(&url);
        store.create_queue(&queue(), &uncapped()).await.unwrap();
        store.send_all(&queue(), numbers(0..100)).await.unwrap();
        let first = Instant::now();
        let mut taken = 0;
        while taken < 100 {
            let request = Receive::up_to(100).visibility(VISIBILITY).wait(Duration::from_secs(1));
            taken += store.receive(&queue(), &request).await.unwrap().len();
        }
        std::mem::forget(store);
        (first, Instant::now())
    });
    assert!(last - first < VISIBILITY, "too slow a machine for this test");
    // With its sockets, and without a word.
    vanishing.shutdown_background();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = common::open(&url);
        let mut back = Vec::new();
        while back.len() < 100 {
            assert!(last.elapsed() < PATIENCE, "{} of 100 came back", back.len());
            let received = store.receive(&queue(), &Receive::up_to(100).wait(Duration::from_millis(200))).await.unwrap();
            assert!(received.is_empty() || first.elapsed() >= VISIBILITY, "back after {:?}", first.elapsed());
            back.extend(received);
        }
        let numbers: std::collections::BTreeSet<usize> = back.iter().map(|d| number(&d.message)).collect();
        assert_eq!(numbers.len(), 100);
        assert!(back.iter().all(|d| d.message.deliveries == 2), "each was delivered twice");
    });
}

/// A service that does not answer holds nobody longer than the time that is set.
#[tokio::test]
async fn a_service_that_hangs_is_a_timeout() {
    let Some(server) = Server::start_or_skip("queue", &["--inMemoryPersistence"]) else { return };
    let mut config = DriverConfig::from_url(&common::url(&server.address(), ""));
    config.timeout = Some(Duration::from_secs(2));
    let store = QueueStore::new(Arc::new(AzureQueue::open(&config).unwrap()));
    store.create_queue(&queue(), &uncapped()).await.unwrap();
    assert!(server.signal("-STOP"));
    let started = Instant::now();
    for error in [
        store.send(&queue(), NewMessage::new("a")).await.unwrap_err(),
        store.receive(&queue(), &Receive::default()).await.unwrap_err(),
        store.ping().await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Timeout, true), "{error:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(15), "it took {:?}", started.elapsed());
    assert!(server.signal("-CONT"));
}

/// Wrong keys, accounts and signatures are refused as such, and nothing says them.
#[tokio::test]
async fn wrong_credentials_are_unauthorized() {
    let Some(address) = common::address_or_skip() else { return };
    // `hunter2hunter2hu`, as keys are written.
    let key = "aHVudGVyMmh1bnRlcjJodQ==";
    for (name, value) in [("account_key", key), ("sas", "sv=2020-12-06&ss=q&srt=sco&sp=rl&se=2999-01-01&sig=hunter2")] {
        let at = format!("azure-queue://devstoreaccount1?endpoint={address}/devstoreaccount1");
        let mut config = DriverConfig::from_url(&at);
        config.options.insert(name.into(), value.into());
        let store = QueueStore::new(Arc::new(AzureQueue::open(&config).unwrap()));
        for error in [
            store.ping().await.unwrap_err(),
            store.send(&queue(), NewMessage::new("a")).await.unwrap_err(),
            store.receive(&queue(), &Receive::default()).await.unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unauthorized, false), "{error:?}");
            assert!(!format!("{error:?} {store:?}").contains("hunter2"), "{error:?}");
            assert!(!format!("{error:?} {store:?}").contains(key), "{error:?}");
        }
    }
}

/// An address where nothing listens is told without the signature in it.
#[tokio::test]
async fn errors_do_not_show_signatures() {
    let mut config = DriverConfig::from_url("azure-queue://acme?endpoint=http://127.0.0.1:1/acme");
    config.options.insert("sas".into(), "sv=2020-12-06&sig=hunter2".into());
    let store = QueueStore::new(Arc::new(AzureQueue::open(&config).unwrap()));
    let error = store.ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(!format!("{error:?} {store:?} {config:?}").contains("hunter2"), "{error:?}");
}

/// What can't be sent or leased is refused before anything of it is.
#[tokio::test]
async fn what_the_service_can_not_do_is_refused() {
    let Some(address) = common::address_or_skip() else { return };
    let store = common::open(&common::url(&address, &common::prefix()));
    let missing = store.send_all(&queue(), numbers(0..2)).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing:?}");
    store.create_queue(&queue(), &uncapped()).await.unwrap();
    let week = Duration::from_secs(7 * 86_400);
    let full = 48 << 10;
    for (bad, what) in [
        (NewMessage::new(vec![0; full + 1]), "blob"),
        (NewMessage::new(vec![0; full]).attribute("a", "b"), "blob"),
        (NewMessage::new("x").attribute("a", "b".repeat(full)), "blob"),
        (NewMessage::new("x").delay(week + Duration::from_millis(1)), "7 days"),
    ] {
        let error = store.send_all(&queue(), vec![NewMessage::new("good"), bad]).await.unwrap_err();
        assert_eq!((error.kind(), error.failed_write()), (ErrorKind::InvalidInput, Some(1)), "{error:?}");
        assert!(error.message().contains(what), "{error:?}");
    }
    let long = Receive::default().visibility(week + Duration::from_secs(1));
    assert_eq!(store.receive(&queue(), &long).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(store.receive(&queue(), &Receive::default()).await.unwrap().is_empty(), "nothing of it was sent");
    store.send(&queue(), NewMessage::new(vec![0; full])).await.unwrap();
    let taken = store.receive(&queue(), &Receive::default().visibility(week)).await.unwrap().remove(0);
    let too_long = MessageUpdate::visibility(week + Duration::from_secs(1));
    assert_eq!(store.update(&queue(), &taken.receipt, &too_long).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    // The fullest message becomes a dead letter whole, with a reason that is cut to what there is room for.
    store.dead_letter(&queue(), &taken.receipt, &format!("{}the end", "long ".repeat(800))).await.unwrap();
    let letter = store.peek(&queue().dead_letter().unwrap(), 1).await.unwrap().remove(0);
    assert_eq!((letter.body.len(), &letter.id), (full, &taken.message.id));
    assert!(letter.attributes["storage-dead-reason"].ends_with("the end"));
    assert_eq!(store.redrive(&queue(), 10).await.unwrap(), 1);
    assert_eq!(store.peek(&queue(), 1).await.unwrap()[0].body, taken.message.body);
}

/// Another process can do with a message what the one can that received it, as long as it finds it; where it does not, it says so, and the lease goes on.
#[tokio::test]
async fn receipts_work_in_another_process() {
    let Some(address) = common::address_or_skip() else { return };
    let url = common::url(&address, &common::prefix());
    let (store, other) = (common::open(&url), common::open(&url));
    let wait = Receive::default().wait(Duration::from_secs(10));
    let zero = MessageUpdate::visibility(Duration::ZERO);
    store.create_queue(&queue(), &QueueSpec::default().max_deliveries(2)).await.unwrap();
    store.send(&queue(), NewMessage::new("a").attribute("b", "c")).await.unwrap();
    let taken = store.receive(&queue(), &wait).await.unwrap().remove(0);
    let change = MessageUpdate::visibility(Duration::ZERO).body("new");
    let receipt = other.update(&queue(), &taken.receipt, &change).await.unwrap();
    assert_eq!(store.delete(&queue(), &taken.receipt).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    let taken = store.receive(&queue(), &wait).await.unwrap().remove(0);
    assert_eq!((&taken.message.body[..], &taken.message.attributes["b"][..]), (&b"new"[..], "c"));
    assert_eq!(other.update(&queue(), &receipt, &zero).await.unwrap_err().kind(), ErrorKind::LeaseLost);
    // The last delivery, given back.
    other.update(&queue(), &taken.receipt, &zero).await.unwrap();
    let dead = queue().dead_letter().unwrap();
    assert_eq!(store.peek(&dead, 1).await.unwrap()[0].attributes["storage-dead-reason"], "max-deliveries");
    assert_eq!(other.redrive(&queue(), 1).await.unwrap(), 1);
    let taken = store.receive(&queue(), &wait).await.unwrap().remove(0);
    other.dead_letter(&queue(), &taken.receipt, "no").await.unwrap();
    assert_eq!(store.delete(&queue(), &taken.receipt).await.unwrap_err().kind(), ErrorKind::LeaseLost);

    store.send(&queue(), NewMessage::new("behind many")).await.unwrap();
    let taken = store.receive(&queue(), &wait).await.unwrap().remove(0);
    store.send_all(&queue(), numbers(0..40)).await.unwrap();
    let error = other.dead_letter(&queue(), &taken.receipt, "no").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    let others = store.receive(&queue(), &Receive::up_to(100)).await.unwrap();
    assert!(others.iter().all(|delivery| delivery.message.body != "behind many"), "its lease goes on");
    let nothing = other.update(&queue(), &Receipt("x|a|b|1|0|p".into()), &zero).await;
    assert_eq!(nothing.unwrap_err().kind(), ErrorKind::LeaseLost);
}

/// Four workers on four handles share messages: none is lost, and only what was sent twice comes twice.
#[tokio::test(flavor = "multi_thread")]
async fn four_workers_share_messages() {
    four_workers_share(2_000).await;
}

/// The same for long: five minutes on an emulator.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "soak"]
async fn soak_four_workers_share_fifty_thousand_messages() {
    four_workers_share(50_000).await;
}

async fn four_workers_share(count: usize) {
    let Some(address) = common::address_or_skip() else { return };
    let url = common::url(&address, &common::prefix());
    let store = common::open(&url);
    store.create_queue(&queue(), &uncapped()).await.unwrap();
    let seen = Seen::default();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let workers: Vec<_> = (0..4).map(|_| consume(&common::open(&url), &seen, PATIENCE, &stopped)).collect();
    let failed = produce(&store, 0..count, &AtomicUsize::new(0)).await;
    let more = until_seen(&seen, count).await;
    println!("{count} messages, {failed} calls sent again, {more} messages came more than once");
    assert!(more <= failed * 10, "{more} messages came more than once");
    stop.send_replace(true);
    for worker in workers {
        worker.await.unwrap();
    }
}
