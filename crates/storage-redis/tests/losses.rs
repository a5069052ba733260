//! What servers lose, or may lose: keys that were evicted or removed by hand, files that are not synced; and what must not pile up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::time::Duration;

use common::server::{Server, can_start, free_port};
use common::{apart, cli, open, port, prefix, queue, single_or_skip};
use storage_core::{ErrorKind, NewMessage, QueueSpec, Receive};

const LONG: Duration = Duration::from_secs(120);

/// Keys that hold what somebody else wrote are an error that says so, not a crash.
#[tokio::test]
async fn foreign_keys_are_corrupt() {
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let store = open(&url).await.unwrap();
    let name = queue(&store, "work").await;
    cli(port(&address), &["SET", &format!("{}:{{work}}:ready", prefix(&url)), "mine"]);
    let error = store.receive(&name, &Receive::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

/// A message whose body is gone is not delivered with an empty one: it is a dead letter that says so, and the others go on.
#[tokio::test]
async fn a_lost_body_is_told() {
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let store = open(&url).await.unwrap();
    let name = queue(&store, "work").await;
    store.send_all(&name, ["a", "b", "c"].map(NewMessage::new).into()).await.unwrap();
    let bodies = format!("{}:{{work}}:body", prefix(&url));
    assert_eq!(cli(port(&address), &["HDEL", &bodies, "1", "3"]), "2");
    let peeked: Vec<_> = store.peek(&name, 10).await.unwrap().into_iter().map(|message| message.body).collect();
    assert_eq!(peeked, ["b"]);
    // All of them, as an eviction takes them.
    store.send(&name, NewMessage::new("d").attribute("kept", "yes")).await.unwrap();
    assert_eq!(cli(port(&address), &["DEL", &bodies]), "1");
    store.send(&name, NewMessage::new("e")).await.unwrap();
    let taken = store.receive(&name, &Receive::up_to(10).wait(common::PATIENCE)).await.unwrap();
    assert_eq!(taken.into_iter().map(|d| d.message.body).collect::<Vec<_>>(), ["e"]);
    let letters = store.receive(&name.dead_letter().unwrap(), &Receive::up_to(10)).await.unwrap();
    let about = |d: &storage_core::Delivery| (d.message.id.0.clone(), d.message.attributes["storage-dead-reason"].clone());
    let expected = ["1", "2", "3", "4"].map(|id| (id.to_owned(), "body-lost".to_owned()));
    assert_eq!(letters.iter().map(about).collect::<Vec<_>>(), expected);
    assert_eq!(letters[3].message.attributes["kept"], "yes");
}

/// A queue whose first key is gone can be created again, and new messages don't take the places of those that are still there.
#[tokio::test]
async fn a_queue_that_was_lost_keeps_its_messages() {
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let store = open(&url).await.unwrap();
    let name = queue(&store, "work").await;
    store.send_all(&name, ["a", "b"].map(NewMessage::new).into()).await.unwrap();
    assert_eq!(cli(port(&address), &["DEL", &format!("{}:{{work}}:meta", prefix(&url))]), "1");
    let error = store.send(&name, NewMessage::new("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(store.queues().await.unwrap().is_empty());
    assert!(store.create_queue(&name, &QueueSpec::default()).await.unwrap());
    store.send(&name, NewMessage::new("c")).await.unwrap();
    let taken = store.receive(&name, &Receive::up_to(10)).await.unwrap();
    assert_eq!(taken.into_iter().map(|d| d.message.body).collect::<Vec<_>>(), ["a", "b", "c"]);
}

/// However often, and by however many at once, a queue was created: removed, it leaves nothing, not even its name in the list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_was_created_often_leaves_nothing() {
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let store = open(&url).await.unwrap();
    for round in 0..20 {
        let name = format!("q{round}").parse().unwrap();
        let spec = QueueSpec::default();
        let created = futures::future::join_all((0..8).map(|_| store.create_queue(&name, &spec))).await;
        assert_eq!(created.into_iter().filter(|created| *created.as_ref().unwrap()).count(), 1);
        store.ensure_queue(&name, &spec).await.unwrap();
        assert_eq!(store.queues().await.unwrap(), std::slice::from_ref(&name));
        assert!(store.delete_queue(&name).await.unwrap());
    }
    assert_eq!(cli(port(&address), &["KEYS", &format!("{}:*", prefix(&url))]), "");
}

/// Dedup ids whose window is over don't pile up where there is nothing but large sends.
#[tokio::test]
async fn dedup_ids_do_not_pile_up() {
    const BATCH: usize = 4_000;
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let store = open(&url).await.unwrap();
    let window = Duration::from_millis(20);
    let name = "work".parse().unwrap();
    store.create_queue(&name, &QueueSpec::default().dedup_window(window)).await.unwrap();
    for round in 0..10 {
        let message = |n: usize| NewMessage::new("").dedup_id(format!("{round}-{n}"));
        store.send_all(&name, (0..BATCH).map(message).collect()).await.unwrap();
        tokio::time::sleep(window * 2).await;
    }
    let known: usize = cli(port(&address), &["HLEN", &format!("{}:{{work}}:dedup", prefix(&url))]).parse().unwrap();
    assert_eq!(known, BATCH, "those of the last one");
}

/// `durable` is declared where the server syncs before it answers, always, and evicts nothing.
#[tokio::test]
async fn durable_is_what_the_server_does() {
    if !can_start() {
        return;
    }
    let always = ["--appendonly", "yes", "--appendfsync", "always"];
    for (more, durable) in [
        (&[][..], true),
        (&["--appendfsync", "everysec"][..], false),
        (&["--appendonly", "no"][..], false),
        // It rewrites its file by itself, and syncs nothing meanwhile.
        (&["--no-appendfsync-on-rewrite", "yes"][..], false),
        (&["--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"][..], false),
        // Ours have no time to live.
        (&["--maxmemory", "100mb", "--maxmemory-policy", "volatile-lru"][..], true),
    ] {
        let server = Server::start(free_port(), &[&always[..], more].concat());
        let store = open(&server.url()).await.unwrap();
        assert_eq!(store.capabilities().durable, durable, "{more:?}");
        // Who knows better is believed.
        let declared = open(&format!("{}?durable={}", server.url(), !durable)).await.unwrap();
        assert_eq!(declared.capabilities().durable, !durable, "{more:?}");
    }
}

/// A server that evicts whatever it likes loses messages, but nobody is told of one that is not there as it was sent.
#[tokio::test]
async fn eviction_loses_messages_not_their_meaning() {
    if !can_start() {
        return;
    }
    let limits = ["--maxmemory", "16mb", "--maxmemory-policy", "allkeys-random", "--maxmemory-samples", "1"];
    let server = Server::start(free_port(), &limits);
    let store = open(&server.url()).await.unwrap();
    let body = |n: usize| format!("{n:0>10000}");
    let mut sent = 0;
    for round in 0..40 {
        let name = format!("q{}", round % 4).parse().unwrap();
        store.ensure_queue(&name, &QueueSpec::default()).await.unwrap();
        let batch = (sent..sent + 100).map(|n| NewMessage::new(body(n))).collect();
        match store.send_all(&name, batch).await {
            Ok(_) => sent += 100,
            // The queue itself was evicted.
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{error}"),
        }
    }
    let evicted = cli(server.port(), &["INFO", "stats"]);
    assert!(!evicted.contains("evicted_keys:0\r"), "nothing was evicted");
    for round in 0..4 {
        let name = format!("q{round}").parse().unwrap();
        store.ensure_queue(&name, &QueueSpec::default()).await.unwrap();
        let taken = store.receive(&name, &Receive::up_to(10_000).visibility(LONG)).await.unwrap();
        for delivery in taken {
            let number: usize = std::str::from_utf8(&delivery.message.body).unwrap().parse().expect("a body as it was sent");
            assert_eq!(delivery.message.body, body(number));
        }
    }
}
