//! Blobs when servers die, writes are given up, and bytes are damaged.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::Stream;
use bytes::Bytes;
use common::{Server, blobs, fresh};
use futures::{StreamExt as _, TryStreamExt as _};
use storage_conformance::proxy::{Harm, Proxy};
use storage_core::{BlobBody, BlobPath, BlobStore, Driver as _, DriverConfig, ErrorKind, PutMode, PutOptions};
use storage_nats::NatsDriver;

const PATIENCE: Duration = Duration::from_secs(120);

fn path(path: &str) -> BlobPath {
    BlobPath::new(path).unwrap()
}

async fn opened(url: &str) -> BlobStore {
    let store = blobs(url).await.unwrap();
    store.create_container().await.unwrap();
    store
}

/// The stream of a store.
async fn stream(address: &str, prefix: &str) -> (async_nats::jetstream::Context, Stream) {
    let client = async_nats::jetstream::new(async_nats::connect(address).await.unwrap());
    let stream = client.get_stream(format!("OBJ_{prefix}")).await.unwrap();
    (client, stream)
}

/// Bytes that say of themselves which write they are of.
fn body(n: usize) -> Bytes {
    Bytes::from(n.to_le_bytes().repeat(50_000))
}

/// Waits until the stream holds so many messages: what nobody needs is removed in the background.
async fn holds(stream: &mut Stream, messages: u64) {
    let started = Instant::now();
    loop {
        let found = stream.info().await.unwrap().state.messages;
        if found == messages {
            return;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "{found} messages, not {messages}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A server that is killed in the middle of writes: what was acknowledged is there, and nothing is there by half.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_killed_twice_keeps_what_it_acknowledged() {
    const COUNT: usize = 120;
    let Some(mut server) = Server::or_skip("").await else { return };
    let store = opened(&server.address()).await;
    let (done, mut finished) = tokio::sync::watch::channel(0);
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            let (mut failed, mut last) = (0, BTreeMap::new());
            for n in 0..COUNT {
                let (at, started) = (path(&format!("b{}", n % 7)), Instant::now());
                while let Err(error) = store.put(&at, body(n)).await {
                    assert!(error.is_retryable(), "{error:?}");
                    assert!(started.elapsed() < PATIENCE, "the server is back, but: {error:?}");
                    failed += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                last.insert(at, n);
                done.send_replace(n + 1);
            }
            (failed, last)
        }
    });
    for part in [COUNT / 4, COUNT / 2] {
        finished.wait_for(|done| *done >= part).await.unwrap();
        server.kill();
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.start().await;
    }
    let (failed, last) = writer.await.unwrap();
    println!("{failed} puts failed");
    assert!(failed > 0, "nobody noticed");
    for (at, n) in &last {
        assert!(store.get(at).await.unwrap() == body(*n), "{at} is not what was written last");
    }
    assert_eq!(store.list_all(None).try_collect::<Vec<_>>().await.unwrap().len(), last.len());
}

/// What was replaced, removed, refused or given up leaves no bytes behind.
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_nobodys_are_removed() {
    let Some(address) = common::or_skip() else { return };
    let url = fresh(&address);
    let store = opened(&url).await;
    let (_client, mut stream) = stream(&address, url.split_once("prefix=").unwrap().1).await;
    // Four chunks, and what describes them.
    store.put(&path("a"), body(1)).await.unwrap();
    holds(&mut stream, 5).await;
    store.put(&path("a"), body(2)).await.unwrap();
    holds(&mut stream, 5).await;
    let create = PutOptions::default().mode(PutMode::Create);
    assert_eq!(store.put_with(&path("a"), body(3), &create).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    holds(&mut stream, 5).await;
    let stuck = futures::stream::iter([Ok(body(4))]).chain(futures::stream::pending()).boxed();
    let at = path("a");
    let put = store.put(&at, BlobBody::Stream { stream: stuck, size: None });
    assert!(tokio::time::timeout(Duration::from_millis(500), put).await.is_err());
    holds(&mut stream, 5).await;
    assert!(store.get(&path("a")).await.unwrap() == body(2));
    assert!(store.delete(&path("a")).await.unwrap());
    // That it is gone is said for a while.
    holds(&mut stream, 1).await;
}

/// A connection that breaks anywhere in a put, or in the answer to it: all of the blob is there or nothing of it, and what was there stays.
#[tokio::test(flavor = "multi_thread")]
async fn puts_that_are_cut_are_whole_or_nothing() {
    let Some(address) = common::or_skip() else { return };
    let url = fresh(&address);
    let direct = opened(&url).await;
    let proxy = Proxy::start(address.rsplit(':').next().unwrap().parse().unwrap()).await;
    let through = opened(&url.replace(&address, &format!("nats://{}", proxy.address()))).await;
    let (mut written, mut lost) = (0, 0);
    let harms = [100, 100_000, 300_000, 399_000].map(Harm::CutRequest);
    let harms = harms.into_iter().chain([1, 300, 600, 900].map(Harm::CutAnswer));
    for (round, harm) in harms.enumerate() {
        direct.put(&path("a"), body(1_000 + round)).await.unwrap();
        proxy.harm(harm);
        let outcome = through.put(&path("a"), body(round)).await;
        let there = direct.get(&path("a")).await.unwrap();
        let is_new = there == body(round);
        assert!(is_new || there == body(1_000 + round), "{harm:?}: neither the old nor the new one");
        match outcome {
            Ok(_) => assert!(is_new, "{harm:?}"),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{harm:?}: {error:?}");
                lost += usize::from(is_new);
            }
        }
        written += usize::from(is_new);
    }
    println!("{written} written, of which {lost} without an answer");
    assert!(written < 8, "nothing was cut");
}

/// Bytes that are not those that were written are not handed out as if they were.
#[tokio::test(flavor = "multi_thread")]
async fn damaged_bytes_are_noticed() {
    let Some(address) = common::or_skip() else { return };
    let url = fresh(&address);
    let prefix = url.split_once("prefix=").unwrap().1;
    let store = opened(&url).await;
    let (client, mut stream) = stream(&address, prefix).await;
    for size in [10, 500_000] {
        store.put(&path("a"), vec![b'x'; size]).await.unwrap();
        let last = stream.info().await.unwrap().state.last_sequence;
        let info = stream.get_raw_message(last).await.unwrap();
        let info: serde_json::Value = serde_json::from_slice(&info.payload).unwrap();
        let chunks = format!("$O.{prefix}.C.{}", info["nuid"].as_str().unwrap());
        // One chunk is lost, another one comes in its place.
        let lost = stream.get_last_raw_message_by_subject(&chunks).await.unwrap();
        stream.delete_message(lost.sequence).await.unwrap();
        let error = store.get(&path("a")).await.unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Conflict | ErrorKind::Corrupt), "{error:?}");
        let other = vec![b'y'; lost.payload.len()];
        client.publish(chunks, other.into()).await.unwrap().await.unwrap();
        assert_eq!(store.get(&path("a")).await.unwrap_err().kind(), ErrorKind::Corrupt);
        store.put(&path("a"), "good again").await.unwrap();
        assert_eq!(store.get(&path("a")).await.unwrap(), "good again");
    }
}

/// Without its stream there is no container, and that is said.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_is_not_there_is_not_found() {
    let Some(address) = common::or_skip() else { return };
    let config = DriverConfig { auto_create: false, ..DriverConfig::from_url(&fresh(&address)) };
    let store = BlobStore::new(NatsDriver.open(&config).await.unwrap().blobs.unwrap());
    let errors = [
        store.put(&path("a"), "x").await.map(drop).unwrap_err(),
        store.get(&path("a")).await.map(drop).unwrap_err(),
        store.delete(&path("a")).await.map(drop).unwrap_err(),
        store.list_all(None).try_collect::<Vec<_>>().await.map(drop).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
        assert!(error.message().contains("container"), "{error}");
    }
    assert!(store.create_container().await.unwrap());
    assert!(!store.create_container().await.unwrap());
    store.put(&path("a"), "x").await.unwrap();
    // Where it may, the first use creates it.
    let other = blobs(&fresh(&address)).await.unwrap();
    other.put(&path("a"), "x").await.unwrap();
    assert!(!other.create_container().await.unwrap());
}
