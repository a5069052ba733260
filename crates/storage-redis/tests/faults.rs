//! Servers that die, hang, forget, fill up; connections that break; consumers that vanish.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::server::{Server, can_start, free_port};
use common::{PATIENCE, apart, cli, open, open_impatient, port, queue, single_or_skip, until};
use storage_conformance::proxy::{Harm, Proxy};
use storage_core::{Error, ErrorKind, MessageUpdate, NewMessage, QueueName, QueueStore, Receive};

const LONG: Duration = Duration::from_secs(120);

/// What became of numbered messages.
#[derive(Default)]
struct Ledger {
    acknowledged: Mutex<BTreeSet<usize>>,
    delivered: Mutex<BTreeMap<usize, usize>>,
    /// Messages of sends whose outcome was not known, and which were sent again: each may be there twice.
    uncertain: AtomicUsize,
}

impl Ledger {
    fn acknowledged(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    fn all_delivered(&self) -> bool {
        let delivered = self.delivered.lock().unwrap();
        self.acknowledged.lock().unwrap().iter().all(|n| delivered.contains_key(n))
    }
}

/// True where nothing was sent, or the server did nothing.
fn was_refused(error: &Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<std::io::Error>());
    source.is_some_and(|source| source.kind() == std::io::ErrorKind::ConnectionRefused)
}

/// Sends the numbers, twenty at a time, each batch until it is acknowledged.
async fn produce(store: QueueStore, name: QueueName, numbers: std::ops::Range<usize>, ledger: Arc<Ledger>) {
    let numbers: Vec<usize> = numbers.collect();
    for batch in numbers.chunks(20) {
        loop {
            match store.send_all(&name, batch.iter().map(|n| NewMessage::new(n.to_string())).collect()).await {
                Ok(_) => break ledger.acknowledged.lock().unwrap().extend(batch),
                Err(error) => {
                    assert!(error.is_retryable(), "{error}");
                    if !was_refused(&error) {
                        ledger.uncertain.fetch_add(batch.len(), Ordering::Relaxed);
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
}

/// Receives and deletes until it is stopped.
async fn consume(store: QueueStore, name: QueueName, ledger: Arc<Ledger>, stop: Arc<AtomicBool>) {
    let request = Receive::up_to(50).visibility(Duration::from_secs(2)).wait(Duration::from_millis(500));
    while !stop.load(Ordering::Relaxed) {
        let deliveries = match store.receive(&name, &request).await {
            Ok(deliveries) => deliveries,
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        for delivery in &deliveries {
            let number: usize = std::str::from_utf8(&delivery.message.body).unwrap().parse().unwrap();
            *ledger.delivered.lock().unwrap().entry(number).or_default() += 1;
        }
        let receipts: Vec<_> = deliveries.into_iter().map(|d| d.receipt).collect();
        if let Err(error) = store.delete_all(&name, &receipts).await {
            assert!(error.is_retryable(), "{error}");
        }
    }
}

/// The server is killed and comes back when a third, and when half of 10,000 messages were sent, while four producers and four consumers work.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_loses_nothing() {
    const MESSAGES: usize = 10_000;
    if !can_start() {
        return;
    }
    let mut server = Server::durable();
    let store = open_impatient(&server.url(), Duration::from_secs(5)).await.unwrap();
    assert!(store.capabilities().durable);
    let name = queue(&store, "work").await;
    let (ledger, stop) = (Arc::<Ledger>::default(), Arc::new(AtomicBool::new(false)));
    let part = MESSAGES / 4;
    let producers: Vec<_> = (0..4)
        .map(|n| tokio::spawn(produce(store.clone(), name.clone(), n * part..(n + 1) * part, Arc::clone(&ledger))))
        .collect();
    let consumers: Vec<_> =
        (0..4).map(|_| tokio::spawn(consume(store.clone(), name.clone(), Arc::clone(&ledger), Arc::clone(&stop)))).collect();
    for at in [MESSAGES / 3, MESSAGES / 2] {
        until("messages are sent", async || (ledger.acknowledged() >= at).then_some(())).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        tokio::task::block_in_place(|| server.restart());
    }
    futures::future::try_join_all(producers).await.unwrap();
    assert_eq!(ledger.acknowledged(), MESSAGES);
    until("all are delivered", async || ledger.all_delivered().then_some(())).await;
    let empty = async || {
        let stats = store.stats(&name).await.ok()?;
        (stats.ready.value() == Some(0) && stats.leased.value() == Some(0)).then_some(())
    };
    until("the queue is empty", empty).await;
    stop.store(true, Ordering::Relaxed);
    futures::future::try_join_all(consumers).await.unwrap();
    let delivered = ledger.delivered.lock().unwrap().clone();
    let twice = delivered.values().filter(|times| **times > 1).count();
    let uncertain = ledger.uncertain.load(Ordering::Relaxed);
    println!(
        "{MESSAGES} messages, server killed twice: {twice} delivered more than once, {uncertain} sent again for want of an answer"
    );
    assert_eq!(delivered.len(), MESSAGES);
    // Those, and what four consumers were about to delete when the server died.
    assert!(uncertain <= 2 * 4 * 20, "{uncertain} sends were under way");
    assert!(twice <= uncertain + 2 * 4 * 50, "{twice} duplicates");
}

/// A consumer that vanishes, connection and all, with 100 leased messages: all come back when the leases end, none sooner.
#[tokio::test]
async fn a_vanished_consumers_messages_come_back() {
    const VISIBILITY: Duration = Duration::from_millis(1_500);
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let store = open(&url).await.unwrap();
    let name = queue(&store, "work").await;
    store.send_all(&name, (0..100).map(|n| NewMessage::new(n.to_string())).collect()).await.unwrap();
    let proxy = Proxy::start(port(&address)).await;
    let vanishing = open(&url.replace(&address, &format!("redis://{}", proxy.address()))).await.unwrap();
    let started = Instant::now();
    let taken = vanishing.receive(&name, &Receive::up_to(100).visibility(VISIBILITY)).await.unwrap();
    assert_eq!(taken.len(), 100);
    drop((proxy, vanishing));
    let mut back = BTreeSet::new();
    while back.len() < 100 {
        let request = Receive::up_to(100).visibility(LONG).wait(PATIENCE);
        let received = store.receive(&name, &request).await.unwrap();
        assert!(started.elapsed() >= VISIBILITY, "back after {:?}", started.elapsed());
        assert!(!received.is_empty(), "{} of 100 came back", back.len());
        assert!(received.iter().all(|d| d.message.deliveries == 2));
        back.extend(received.into_iter().map(|d| d.message.id));
    }
}

/// A connection that breaks in the middle of a send: the caller is told, nothing of the message is there, and the next call goes well.
#[tokio::test]
async fn a_connection_cut_in_a_send() {
    let Some(address) = single_or_skip() else { return };
    let proxy = Proxy::start(port(&address)).await;
    let store = open(&apart(&format!("redis://{}", proxy.address()))).await.unwrap();
    let name = queue(&store, "work").await;
    store.send(&name, NewMessage::new("first")).await.unwrap();
    let large = || (0..10).map(|_| NewMessage::new(vec![b'x'; 100_000])).collect();
    proxy.harm(Harm::CutRequest(500_000));
    let error = store.send_all(&name, large()).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
    assert!(proxy.is_done());
    assert_eq!(store.stats(&name).await.unwrap().ready.value(), Some(1));
    assert_eq!(store.send_all(&name, large()).await.unwrap().len(), 10);
    // The answer is lost: the messages are there, once, and the caller does not know.
    proxy.harm(Harm::LoseAnswer);
    let error = store.send_all(&name, large()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(store.stats(&name).await.unwrap().ready.value(), Some(21));
    // With a dedup id the caller may say it again.
    let once = || NewMessage::new("once").dedup_id("a");
    proxy.harm(Harm::LoseAnswer);
    store.send(&name, once()).await.unwrap_err();
    assert!(store.send(&name, once()).await.unwrap().duplicate);
}

/// A connection that breaks while messages are deleted: said again, it is done, whether it was done the first time or not.
#[tokio::test]
async fn a_connection_cut_in_a_delete() {
    let Some(address) = single_or_skip() else { return };
    let proxy = Proxy::start(port(&address)).await;
    let store = open(&apart(&format!("redis://{}", proxy.address()))).await.unwrap();
    let name = queue(&store, "work").await;
    store.send_all(&name, (0..40).map(|n| NewMessage::new(n.to_string())).collect()).await.unwrap();
    for harm in [Harm::CutRequest(40), Harm::LoseAnswer] {
        let taken = store.receive(&name, &Receive::up_to(20).visibility(LONG)).await.unwrap();
        let receipts: Vec<_> = taken.into_iter().map(|d| d.receipt).collect();
        let leased = async || store.stats(&name).await.unwrap().leased.value().unwrap();
        proxy.harm(harm);
        let error = store.delete_all(&name, &receipts).await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert_eq!(leased().await, if harm == Harm::LoseAnswer { 0 } else { 20 });
        assert!(store.delete_all(&name, &receipts).await.unwrap().iter().all(Result::is_ok));
        assert_eq!(leased().await, 0);
    }
}

/// A server that hangs keeps nobody for longer than the timeout, and is used again when it goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hanging_server_keeps_nobody() {
    if !can_start() {
        return;
    }
    let server = Server::start(free_port(), &["--pidfile", "pid"]);
    let store = open_impatient(&format!("{}?connect_timeout=1", server.url()), Duration::from_secs(1)).await.unwrap();
    assert!(!store.capabilities().durable, "nothing is written down");
    let name = queue(&store, "work").await;
    server.signal("STOP");
    let call = || async { store.send(&name, NewMessage::new("a")).await.map(drop).map_err(|e| e.kind()) };
    let outcomes = tokio::time::timeout(PATIENCE, futures::future::join_all((0..50).map(|_| call()))).await.unwrap();
    assert!(outcomes.iter().all(|outcome| *outcome == Err(ErrorKind::Timeout)), "{outcomes:?}");
    // No connection either.
    let outcomes = tokio::time::timeout(PATIENCE, futures::future::join_all((0..50).map(|_| call()))).await.unwrap();
    assert!(outcomes.iter().all(Result::is_err), "{outcomes:?}");
    server.signal("CONT");
    until("it is used again", async || store.ping().await.ok()).await;
    store.send(&name, NewMessage::new("b")).await.unwrap();
}

/// While the server is away calls fail soon; when it is back everything goes on, news included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_is_listened_to_again() {
    if !can_start() {
        return;
    }
    let mut server = Server::durable();
    let store = open(&server.url()).await.unwrap();
    let name = queue(&store, "work").await;
    let receive = || {
        let (store, name) = (store.clone(), name.clone());
        tokio::spawn(async move { store.receive(&name, &Receive::default().wait(LONG)).await })
    };
    let listeners = |port| cli(port, &["PUBSUB", "NUMSUB", "storage:{work}:news"]).ends_with('1').then_some(());
    let waiting = receive();
    until("somebody listens", async || listeners(server.port())).await;
    server.kill();
    // A waiting receive ends with an error, or goes on where it did not notice.
    let noticed = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap();
    assert_eq!(noticed.unwrap_err().kind(), ErrorKind::Unavailable);
    let error = store.send(&name, NewMessage::new("a")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
    tokio::task::block_in_place(|| server.restart());
    let waiting = receive();
    until("somebody listens again", async || listeners(server.port())).await;
    let sent = store.send(&name, NewMessage::new("b")).await.unwrap();
    let received = tokio::time::timeout(PATIENCE, waiting).await.unwrap().unwrap().unwrap();
    assert_eq!(received[0].message.id, sent.id);
}

/// A server that has forgotten all scripts is given them again.
#[tokio::test]
async fn scripts_are_sent_again() {
    if !can_start() {
        return;
    }
    let server = Server::start(free_port(), &[]);
    let store = open(&server.url()).await.unwrap();
    let name = queue(&store, "work").await;
    for _ in 0..3 {
        store.send(&name, NewMessage::new("a")).await.unwrap();
        assert_eq!(cli(server.port(), &["SCRIPT", "FLUSH"]), "OK");
        let taken = store.receive(&name, &Receive::default()).await.unwrap();
        store.delete(&name, &taken[0].receipt).await.unwrap();
    }
}

/// A full server refuses what takes memory, wholly, and lets consumers work: they make room.
#[tokio::test]
async fn a_full_server_is_throttled() {
    if !can_start() {
        return;
    }
    let server = Server::start(free_port(), &["--maxmemory", "24mb", "--maxmemory-policy", "noeviction"]);
    let store = open(&server.url()).await.unwrap();
    let name = queue(&store, "work").await;
    let batch = || (0..10).map(|_| NewMessage::new(vec![b'x'; 100_000])).collect();
    let mut sent = 0;
    let error = loop {
        match store.send_all(&name, batch()).await {
            Ok(batch) => sent += batch.len() as u64,
            Err(error) => break error,
        }
        assert!(sent < 1_000, "it is never full");
    };
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Throttled, true), "{error}");
    assert!(error.message().contains("maxmemory"), "{error}");
    assert_eq!(store.stats(&name).await.unwrap().ready.value(), Some(sent), "all or none");
    let taken = store.receive(&name, &Receive::up_to(5)).await.unwrap();
    let renewed = store.update(&name, &taken[0].receipt, &MessageUpdate::visibility(LONG)).await.unwrap();
    store.update(&name, &taken[1].receipt, &MessageUpdate::visibility(Duration::ZERO)).await.unwrap();
    store.dead_letter(&name, &taken[2].receipt, "test").await.unwrap();
    store.delete(&name, &renewed).await.unwrap();
    assert_eq!(store.redrive(&name, 10).await.unwrap(), 1);
    assert_eq!(store.purge(&name).await.unwrap(), sent - 1);
    let room = async || store.send(&name, NewMessage::new("again")).await.ok();
    until("there is room again", room).await;
}

/// Wrong passwords are `Unauthorized`, at once, and shown nowhere; right ones work, with a user too.
#[tokio::test]
async fn credentials() {
    if !can_start() {
        return;
    }
    let server = Server::start(free_port(), &["--requirepass", "hunter2"]);
    let at = |credentials: &str| format!("redis://{credentials}127.0.0.1:{}", server.port());
    for wrong in ["", ":hunter3@", "joe:hunter2@"] {
        let error = open(&at(wrong)).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unauthorized, false), "{error}");
        let mut shown = format!("{error} {error:?}");
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            shown = format!("{shown} {cause} {cause:?}");
            source = cause.source();
        }
        assert!(!shown.contains("hunter"), "{shown}");
    }
    let store = open(&at(":hunter2@")).await.unwrap();
    queue(&store, "work").await;
    let acl = [
        "-a",
        "hunter2",
        "--no-auth-warning",
        "ACL",
        "SETUSER",
        "app",
        "on",
        ">p@ss/word",
        "~shop:*",
        "resetchannels",
        "&shop:*",
        "+@all",
        "-@dangerous",
    ];
    assert_eq!(cli(server.port(), &acl), "OK");
    let limited = open(&format!("{}?prefix=shop", at("app:p%40ss%2Fword@"))).await.unwrap();
    assert!(!limited.capabilities().durable, "it may not ask");
    let name = queue(&limited, "work").await;
    limited.send(&name, NewMessage::new("a")).await.unwrap();
    assert_eq!(limited.receive(&name, &Receive::default().wait(PATIENCE)).await.unwrap().len(), 1);
    // Out of its prefix.
    let elsewhere = open(&at("app:p%40ss%2Fword@")).await.unwrap();
    let error = elsewhere.send(&"work".parse().unwrap(), NewMessage::new("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
}

/// More messages than one script call moves become due at once: all do, in order.
#[tokio::test]
async fn many_messages_become_due_at_once() {
    const MESSAGES: usize = 5_000;
    let Some(address) = single_or_skip() else { return };
    let store = open(&apart(&address)).await.unwrap();
    let name = queue(&store, "work").await;
    const DELAY: Duration = Duration::from_secs(2);
    let delayed = |n: usize| NewMessage::new(n.to_string()).delay(DELAY);
    store.send_all(&name, (0..MESSAGES).map(delayed).collect()).await.unwrap();
    assert_eq!(store.stats(&name).await.unwrap().delayed.value(), Some(MESSAGES as u64));
    tokio::time::sleep(DELAY + Duration::from_millis(100)).await;
    assert_eq!(store.stats(&name).await.unwrap().ready.value(), Some(MESSAGES as u64));
    let taken = store.receive(&name, &Receive::up_to(10_000).visibility(LONG)).await.unwrap();
    let order: Vec<usize> = taken.iter().map(|d| std::str::from_utf8(&d.message.body).unwrap().parse().unwrap()).collect();
    assert_eq!(order, (0..MESSAGES).collect::<Vec<_>>());
    let receipts: Vec<_> = taken.into_iter().map(|d| d.receipt).collect();
    assert!(store.delete_all(&name, &receipts).await.unwrap().iter().all(Result::is_ok));
}

/// What does not fit into one script call is refused, and the bound is named.
#[tokio::test]
async fn a_send_has_a_bound() {
    let Some(address) = single_or_skip() else { return };
    let store = open(&apart(&address)).await.unwrap();
    let name = queue(&store, "work").await;
    let body = bytes::Bytes::from(vec![0; 48 << 20]);
    let error = store.send_all(&name, (0..3).map(|_| NewMessage::new(body.clone())).collect()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.message().contains("134217728"), "{error}");
    assert_eq!(store.stats(&name).await.unwrap().ready.value(), Some(0));
}
