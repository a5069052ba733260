//! A cluster of three, and queues, records and blobs that all three keep: any of them may die in the middle of the work.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Server, open, q};
use serde_json::json;
use storage_core::{
    Batch, BlobPath, BlobStore, Consumer, ConsumerOptions, DriverConfig, ErrorKind, Expect, GetOptions, Message, NewMessage,
    Outcome, PutMode, PutOptions, QueueSpec, QueueStore, Receive, RecordStore, TableName, TableSchema, Version, fields,
};

/// Longer than any of them takes to choose another leader.
const PATIENCE: Duration = Duration::from_secs(120);

/// Three servers that know each other. Skips the test where there is no program.
async fn cluster() -> Option<Vec<Server>> {
    let listeners: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
    drop(listeners);
    let routes = ports.iter().map(|port| format!("\"nats://127.0.0.1:{port}\"")).collect::<Vec<_>>().join(", ");
    let mut servers = Vec::new();
    for (n, port) in ports.iter().enumerate() {
        let config = format!("server_name: n{n}\ncluster {{ name: c, listen: \"127.0.0.1:{port}\", routes: [{routes}] }}\n");
        servers.push(Server::or_skip(&config).await?);
    }
    Some(servers)
}

/// A store that knows all three; three copies of each queue.
fn url(servers: &[Server]) -> String {
    let hosts: Vec<_> = servers.iter().map(|server| server.address().replace("nats://", "")).collect();
    format!("nats://{}?replicas=3", hosts.join(","))
}

/// Until the servers have found each other.
async fn created(url: &str) -> QueueStore {
    let started = Instant::now();
    let store = open(url).await.unwrap();
    while let Err(error) = store.create_queue(&q(), &QueueSpec::default().max_deliveries(None)).await {
        assert!(started.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    store
}

async fn produce(url: String, numbers: Vec<usize>, sent: Arc<AtomicUsize>) {
    let store = open(&url).await.unwrap();
    for numbers in numbers.chunks(10) {
        let batch = || numbers.iter().map(|n| NewMessage::new(n.to_string()).dedup_id(n.to_string())).collect::<Vec<_>>();
        // By their ids, what is sent again is there once.
        while let Err(error) = store.send_all(&q(), batch()).await {
            assert!(error.is_retryable(), "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        sent.fetch_add(numbers.len(), Ordering::SeqCst);
    }
}

/// Each server dies in its turn, the leader among them, and comes back. Producers and consumers go on, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn any_server_may_die() {
    const COUNT: usize = 3_000;
    let Some(mut servers) = cluster().await else { return };
    let url = url(&servers);
    let store = created(&url).await;
    let (sent, handled) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(BTreeMap::<Vec<u8>, usize>::new())));
    let mut work = tokio::task::JoinSet::new();
    for producer in 0..2 {
        work.spawn(produce(url.clone(), (producer..COUNT).step_by(2).collect(), Arc::clone(&sent)));
    }
    for _ in 0..2 {
        let (store, handled) = (open(&url).await.unwrap(), Arc::clone(&handled));
        let options =
            ConsumerOptions { concurrency: 16, prefetch: 64, visibility: Duration::from_secs(5), ..ConsumerOptions::default() };
        let seen = Arc::clone(&handled);
        let handler = move |message: Message| {
            *handled.lock().unwrap().entry(message.body.to_vec()).or_default() += 1;
            async { Outcome::Done }
        };
        let all = async move {
            while seen.lock().unwrap().len() < COUNT {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // A consumer that gives up ends this test.
        work.spawn(async move { Consumer::new(&store, &q(), options).unwrap().run(handler, all).await.map(drop).unwrap() });
    }
    for (n, server) in servers.iter_mut().enumerate() {
        while sent.load(Ordering::SeqCst) < COUNT * (n + 1) / 5 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.kill();
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.start().await;
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    let all = async {
        while let Some(ended) = work.join_next().await {
            ended.unwrap();
        }
    };
    let ended = tokio::time::timeout(PATIENCE, all).await;
    let different = handled.lock().unwrap().len();
    assert!(ended.is_ok(), "{different} of {COUNT} handled, {} sent", sent.load(Ordering::SeqCst));
    let twice: usize = handled.lock().unwrap().values().map(|times| times - 1).sum();
    println!("three servers killed in turn: {COUNT} messages, {twice} duplicates");
    assert_eq!(different, COUNT);
    assert!(twice < COUNT / 5, "{twice} duplicates");
    let started = Instant::now();
    while let Ok([_, ..]) = store.receive(&q(), &Receive::up_to(1_000).visibility(PATIENCE)).await.as_deref() {
        assert!(started.elapsed() < PATIENCE, "there is always more");
    }
}

/// Two of three are gone: nobody can decide anything. Calls fail for now, none says that the queue is gone, and all go well when one is back.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_majority_calls_fail_for_now() {
    let Some(mut servers) = cluster().await else { return };
    let url = url(&servers);
    created(&url).await;
    let config = DriverConfig { timeout: Some(Duration::from_secs(1)), ..DriverConfig::from_url(&url) };
    let store = QueueStore::new(storage_nats::NatsStore::open(&config).await.unwrap().backends().queue.unwrap());
    store.send_all(&q(), ["a", "b"].map(NewMessage::new).into()).await.unwrap();
    let request = Receive::default().visibility(PATIENCE).wait(Duration::from_secs(10));
    let taken = store.receive(&q(), &request).await.unwrap().remove(0);
    servers[0].kill();
    servers[1].kill();
    let started = Instant::now();
    let mut refused = 0;
    // Leaders step down when they have heard nobody for some seconds; before that they answer, or nobody does.
    while started.elapsed() < Duration::from_secs(15) {
        let outcomes = [
            store.receive(&q(), &Receive::default().visibility(PATIENCE)).await.map(|taken| assert!(taken.len() < 2)),
            store.stats(&q()).await.map(drop),
            store.redrive(&q(), 1).await.map(drop),
            store.queue_spec(&q()).await.map(drop),
        ];
        for error in outcomes.into_iter().filter_map(Result::err) {
            assert!(error.is_retryable() && error.kind() != ErrorKind::NotFound, "{error}");
            refused += 1;
        }
    }
    assert!(refused > 0, "one of three can't have decided all that");
    servers[0].start().await;
    let started = Instant::now();
    while let Err(error) = store.delete(&q(), &taken.receipt).await {
        assert!(error.is_retryable() && started.elapsed() < PATIENCE, "{error}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Conditions of writes hold whichever server is asked: of many who count one record up, and one blob, none undoes what another did.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_hold_in_a_cluster() {
    const WRITERS: usize = 8;
    const COUNT: usize = 40;
    let Some(servers) = cluster().await else { return };
    created(&url(&servers)).await;
    // Each writer by a server of its own, so that two may be at different ones at the same moment.
    let by = |n: usize| format!("{}?replicas=3", servers[n % servers.len()].address());
    let store = common::records(&by(0)).await.unwrap();
    let name: TableName = "counts".parse().unwrap();
    store.create_table(&TableSchema::builder("counts").keep_undeclared().build().unwrap()).await.unwrap();
    common::blobs(&by(0)).await.unwrap().put(&path(), "0").await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let (records, blobs) = (common::records(&by(writer)).await.unwrap(), common::blobs(&by(writer)).await.unwrap());
        let name = name.clone();
        writers.spawn(async move {
            for _ in 0..COUNT {
                count_record(&records, &name).await;
                count_blob(&blobs).await;
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    let found = store.get(&name, "n").await.unwrap().unwrap();
    assert_eq!((found.fields["n"].as_u64(), found.version), (Some((WRITERS * COUNT) as u64), Version((WRITERS * COUNT) as u64)));
    let blob = common::blobs(&by(1)).await.unwrap().get_text(&path()).await.unwrap();
    assert_eq!(blob, (WRITERS * COUNT).to_string());
}

fn path() -> BlobPath {
    BlobPath::new("n").unwrap()
}

/// Counts up; where another came first, once more.
async fn count_record(store: &RecordStore, table: &TableName) {
    loop {
        let found = store.get(table, "n").await.unwrap();
        let n = found.as_ref().map_or(0, |record| record.fields["n"].as_u64().unwrap());
        let expect = Expect::Version(found.map_or(Version::NONE, |record| record.version));
        match store.commit(Batch::new().put(table, "n", fields(json!({"n": n + 1})), expect)).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
}

async fn count_blob(store: &BlobStore) {
    loop {
        let etag = store.head(&path()).await.unwrap().etag;
        let read = match store.get_with(&path(), &GetOptions::default().if_match(etag.clone())).await {
            Ok(read) => read.bytes().await,
            Err(error) => Err(error),
        };
        let n: usize = match read {
            Ok(bytes) => std::str::from_utf8(&bytes).unwrap().parse().unwrap(),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Conflict | ErrorKind::Unavailable), "{error}");
                continue;
            }
        };
        let options = PutOptions::default().mode(PutMode::Update(etag.unwrap()));
        match store.put_with(&path(), (n + 1).to_string(), &options).await {
            Ok(_) => return,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error}"),
        }
    }
}
