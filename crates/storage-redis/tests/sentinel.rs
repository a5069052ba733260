//! A primary, its replica and a sentinel: promises hold, and go on holding after the replica has taken over.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::time::Duration;

use common::server::{Server, can_start, free_port};
use common::{PATIENCE, apart, cli, harness, open_impatient, queue, until};
use storage_conformance::{Case, Harness};
use storage_core::{ErrorKind, NewMessage, Receive};

/// The servers, once the sentinel knows the replica and the replica has caught up.
async fn servers() -> (Server, Server, Server) {
    let primary = Server::durable();
    let replica =
        Server::start(free_port(), &["--replicaof", "127.0.0.1", &primary.port().to_string(), "--repl-diskless-sync-delay", "0"]);
    let sentinel = Server::sentinel(primary.port());
    let caught_up = async || cli(replica.port(), &["INFO", "replication"]).contains("master_link_status:up").then_some(());
    until("the replica catches up", caught_up).await;
    let known = async || cli(sentinel.port(), &["SENTINEL", "MASTER", "main"]).contains("num-slaves\n1").then_some(());
    until("the sentinel knows the replica", known).await;
    (primary, replica, sentinel)
}

fn url(sentinel: &Server) -> String {
    apart(&format!("redis+sentinel://127.0.0.1:1,127.0.0.1:{}/main", sentinel.port()))
}

/// A case of the suites on these servers.
macro_rules! cases {
    ($($suite:ident::$theme:ident::$case:ident),* $(,)?) => {
        [$((stringify!($case), (|h| Box::pin(storage_conformance::$suite::$theme::$case(h))) as Case)),*]
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promises_hold() {
    if !can_start() {
        return;
    }
    let (_primary, _replica, sentinel) = servers().await;
    let harness =
        harness(Ok(format!("redis+sentinel://127.0.0.1:{}/main", sentinel.port())), "redis+sentinel://127.0.0.1:1/main");
    let cases = cases![
        queues::admin::create_is_idempotent,
        queues::admin::stats_follow_the_messages,
        queues::content::bodies_are_bytes,
        queues::content::many_messages_in_one_call,
        queues::dead_letter::redrive_sends_home,
        queues::dedup::a_duplicate_is_not_sent,
        queues::delay::a_delayed_message_comes_later,
        queues::handles::a_broken_place_gives_errors,
        queues::handles::a_second_handle_shares_the_queue,
        queues::lease::a_message_comes_back_when_its_lease_ends,
        queues::lease::a_stale_receipt_is_refused,
        queues::order::higher_priorities_come_first,
        queues::receive::a_waiting_receive_gets_what_is_sent,
        records::batch::all_writes_or_none,
        records::batch::the_error_names_the_failed_write,
        records::concurrency::version_preconditions_lose_no_update,
        records::expiry::expired_records_are_not_read,
        records::paging::pages_are_complete_and_disjoint,
        records::schema::rename_column,
        records::unique::one_of_many_gets_the_value,
        transactions::isolation::write_skew_is_caught,
        transactions::outbox::a_message_arrives_with_its_records,
    ];
    // Cases need not be sent between threads: they run on this one.
    let local = tokio::task::LocalSet::new();
    for (name, case) in cases {
        local.run_until(case(&harness as &dyn Harness)).await.unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
    }
}

/// The primary dies: calls fail soon, and go well again when the replica has taken over. What it had replicated is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_over() {
    if !can_start() {
        return;
    }
    let (mut primary, replica, sentinel) = servers().await;
    let store = open_impatient(&url(&sentinel), Duration::from_secs(2)).await.unwrap();
    assert!(!store.capabilities().durable, "a replica that takes over may lack the last messages");
    let name = queue(&store, "work").await;
    store.send_all(&name, (0..100).map(|n| NewMessage::new(n.to_string())).collect()).await.unwrap();
    let replicated = async || {
        let offset = |port| {
            cli(port, &["INFO", "replication"]).lines().find_map(|l| l.strip_prefix("master_repl_offset:").map(str::to_owned))
        };
        (offset(primary.port()) == offset(replica.port())).then_some(())
    };
    until("everything is replicated", replicated).await;
    let waiting = {
        let (store, name) = (store.clone(), name.clone());
        let dead = name.dead_letter().unwrap();
        tokio::spawn(async move { store.receive(&dead, &Receive::default().wait(PATIENCE * 4)).await })
    };
    tokio::time::sleep(Duration::from_millis(100)).await;
    primary.kill();
    let error = store.send(&name, NewMessage::new("lost")).await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) && error.is_retryable(), "{error}");
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::Unavailable);
    until("the replica takes over", async || store.send(&name, NewMessage::new("100")).await.ok()).await;
    let taken = store.receive(&name, &Receive::up_to(1_000)).await.unwrap();
    assert_eq!(taken.len(), 101);
    let receipts: Vec<_> = taken.into_iter().map(|d| d.receipt).collect();
    assert!(store.delete_all(&name, &receipts).await.unwrap().iter().all(Result::is_ok));
    // News come from the new primary.
    let listening = {
        let (store, name) = (store.clone(), name.clone());
        tokio::spawn(async move { store.receive(&name, &Receive::default().wait(PATIENCE * 4)).await })
    };
    let channel = format!("{}:{{work}}:news", store.info().location.split("prefix=").nth(1).unwrap());
    let heard = async || cli(replica.port(), &["PUBSUB", "NUMSUB", &channel]).ends_with('1').then_some(());
    until("somebody listens at the new primary", heard).await;
    let sent = store.send(&name, NewMessage::new("news")).await.unwrap();
    let received = tokio::time::timeout(PATIENCE, listening).await.unwrap().unwrap().unwrap();
    assert_eq!(received[0].message.id, sent.id);
    // The old primary comes back as a replica: nobody writes to it.
    tokio::task::block_in_place(|| primary.restart());
    let demoted = async || cli(primary.port(), &["INFO", "replication"]).contains("role:slave").then_some(());
    until("the old primary is a replica", demoted).await;
    store.send(&name, NewMessage::new("after")).await.unwrap();
}

/// A name that sentinels don't know is an error that says so.
#[tokio::test]
async fn an_unknown_primary() {
    if !can_start() {
        return;
    }
    let primary = Server::start(free_port(), &[]);
    let sentinel = Server::sentinel(primary.port());
    let error = open_impatient(&format!("redis+sentinel://127.0.0.1:{}/other", sentinel.port()), PATIENCE).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.message().contains("other"), "{error}");
}

/// Sentinels that accept connections and say nothing keep nobody from one that answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_sentinels_keep_nobody() {
    if !can_start() {
        return;
    }
    let primary = Server::start(free_port(), &[]);
    let sentinel = Server::sentinel(primary.port());
    let silent: Vec<_> = (0..5).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let hosts: Vec<_> = silent.iter().map(|listener| listener.local_addr().unwrap().to_string()).collect();
    let url = format!("redis+sentinel://{},127.0.0.1:{}/main?connect_timeout=10", hosts.join(","), sentinel.port());
    let started = std::time::Instant::now();
    open_impatient(&url, PATIENCE).await.unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "after {:?}", started.elapsed());
    // Where none answers, that ends after one's time, not all of them's.
    let url = format!("redis+sentinel://{}/main?connect_timeout=2", hosts.join(","));
    let started = std::time::Instant::now();
    let error = open_impatient(&url, PATIENCE).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5), "after {:?}", started.elapsed());
}
