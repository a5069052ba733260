//! A Cluster whose slots move.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::server::{Server, can_start, free_port};
use common::{PATIENCE, Store, apart, cli, number, open, open_impatient, queue, shared, until};
use storage_core::{Batch, ColumnType, ErrorKind, Expect, Filter, NewMessage, Query, QueueSpec, Receive, TableName, TableSchema};

fn ports(address: &str) -> Vec<u16> {
    let hosts = address.trim_start_matches("redis+cluster://").split('?').next().unwrap();
    hosts.split(',').map(|host| host.rsplit(':').next().unwrap().parse().unwrap()).collect()
}

/// Queues lie on all nodes, and each is on one.
#[tokio::test]
async fn queues_are_spread() {
    let Ok(address) = shared("XTASK_TEST_REDIS_CLUSTER") else {
        return storage_conformance::skip("no Redis Cluster: `cargo xtask test --backend redis` starts it");
    };
    let url = apart(&address);
    let store = open(&url).await.unwrap();
    let prefix = store.info().location.split("prefix=").nth(1).unwrap().to_owned();
    let mut names = Vec::new();
    for n in 0..20 {
        let name = queue(&store, &format!("q{n}")).await;
        store.send(&name, NewMessage::new(n.to_string())).await.unwrap();
        names.push(name);
    }
    let mut listed = store.queues().await.unwrap();
    listed.sort();
    names.sort();
    assert_eq!(listed, names);
    let holds = |port: &u16| cli(*port, &["KEYS", &format!("{prefix}:*:meta")]).lines().filter(|line| !line.is_empty()).count();
    let counts: Vec<usize> = ports(&address).iter().map(holds).collect();
    assert!(counts.iter().all(|count| *count > 0) && counts.iter().sum::<usize>() == 20, "{counts:?}");
}

/// A slot moves to another node, key by key, while messages are sent and received: every call goes well, and nothing is lost or doubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_moves_under_load() {
    let Ok(address) = shared("XTASK_TEST_REDIS_CLUSTER") else {
        return storage_conformance::skip("no Redis Cluster: `cargo xtask test --backend redis` starts it");
    };
    let store = open(&apart(&address)).await.unwrap();
    // A name of its own: its slot is nobody else's.
    let name = queue(&store, &format!("moving{}", storage_conformance::process_mark())).await;
    store.create_queue(&"other".parse().unwrap(), &QueueSpec::default()).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let worker = {
        let (store, name, stop) = (store.clone(), name.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let (mut sent, mut received) = (0_usize, 0_usize);
            while !stop.load(Ordering::Relaxed) || received < sent {
                if !stop.load(Ordering::Relaxed) {
                    store.send_all(&name, ["a", "b"].map(NewMessage::new).into()).await?;
                    sent += 2;
                }
                let taken = store.receive(&name, &Receive::up_to(10)).await?;
                received += taken.len();
                let receipts: Vec<_> = taken.into_iter().map(|d| d.receipt).collect();
                for outcome in store.delete_all(&name, &receipts).await? {
                    outcome?;
                }
            }
            Ok::<_, storage_core::Error>((sent, received))
        })
    };
    let (ports, slot) = (ports(&address), cli(ports(&address)[0], &["CLUSTER", "KEYSLOT", name.as_str()]));
    tokio::task::spawn_blocking(move || move_slot(&ports, &slot)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let (sent, received) = worker.await.unwrap().unwrap();
    assert_eq!(sent, received);
    assert!(sent > 10, "{sent} messages went through");
}

/// The same for a table: pages, batches and looks by key go well, and every record is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tables_slot_moves_under_load() {
    let Ok(address) = shared("XTASK_TEST_REDIS_CLUSTER") else {
        return storage_conformance::skip("no Redis Cluster: `cargo xtask test --backend redis` starts it");
    };
    let store = Store::open(&apart(&address)).await.unwrap();
    let name: TableName = format!("wandering{}", storage_conformance::process_mark()).parse().unwrap();
    let built = TableSchema::builder(name.as_str()).column("n", ColumnType::Integer).unique().index("by_n", ["n"]);
    store.records.create_table(&built.build().unwrap()).await.unwrap();
    let batch = (0..500).fold(Batch::new(), |batch, n| batch.put(&name, format!("{n:04}"), number(n), Expect::Absent));
    store.records.commit(batch).await.unwrap();
    let (stop, store) = (Arc::new(AtomicBool::new(false)), Arc::new(store));
    let worker = {
        let (store, name, stop) = (Arc::clone(&store), name.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            let (mut rounds, mut written) = (0, 500);
            while !stop.load(Ordering::Relaxed) {
                let puts =
                    (written..written + 3).fold(Batch::new(), |b, n| b.put(&name, format!("{n:04}"), number(n), Expect::Absent));
                store.records.commit(puts).await?;
                written += 3;
                let page = store.records.scan(&Query::table(name.clone())?.limit(10_000)).await?;
                assert_eq!(i64::try_from(page.records.len()).unwrap(), written);
                let by_index = Query::table(name.clone())?.filter(Filter::lt("n", 100)?).limit(1_000);
                assert_eq!(store.records.scan(&by_index).await?.records.len(), 100);
                assert!(store.records.get(&name, "0007").await?.is_some());
                let taken = store.records.insert(&name, "x", number(5)).await.unwrap_err();
                assert_eq!(taken.kind(), ErrorKind::AlreadyExists, "{taken}");
                rounds += 1;
            }
            Ok::<_, storage_core::Error>(rounds)
        })
    };
    let (ports, slot) = (ports(&address), cli(ports(&address)[0], &["CLUSTER", "KEYSLOT", name.as_str()]));
    tokio::task::spawn_blocking(move || move_slot(&ports, &slot)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let rounds = worker.await.unwrap().unwrap();
    assert!(rounds > 3, "{rounds} rounds");
}

fn move_slot(ports: &[u16], slot: &str) {
    let has = |port: u16| {
        let number: u32 = slot.parse().unwrap();
        let slots = cli(port, &["CLUSTER", "NODES"]);
        let own = slots.lines().find(|line| line.contains("myself")).unwrap().to_owned();
        let ranges = own.split(' ').skip(8).filter(|range| !range.starts_with('[')).map(str::to_owned).collect::<Vec<_>>();
        ranges.iter().any(|range| {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            (from.parse::<u32>().unwrap()..=to.parse::<u32>().unwrap()).contains(&number)
        })
    };
    let from = *ports.iter().find(|port| has(**port)).unwrap();
    let to = *ports.iter().find(|port| **port != from).unwrap();
    let (from_id, to_id) = (cli(from, &["CLUSTER", "MYID"]), cli(to, &["CLUSTER", "MYID"]));
    assert_eq!(cli(to, &["CLUSTER", "SETSLOT", slot, "IMPORTING", &from_id]), "OK");
    assert_eq!(cli(from, &["CLUSTER", "SETSLOT", slot, "MIGRATING", &to_id]), "OK");
    std::thread::sleep(Duration::from_millis(50));
    loop {
        let keys = cli(from, &["--raw", "CLUSTER", "GETKEYSINSLOT", slot, "100"]);
        let keys: Vec<&str> = keys.lines().filter(|key| !key.is_empty()).collect();
        if keys.is_empty() {
            break;
        }
        let to = to.to_string();
        let migrate = [&["MIGRATE", "127.0.0.1", &to, "", "0", "5000", "KEYS"][..], &keys].concat();
        let answer = cli(from, &migrate);
        assert!(answer == "OK" || answer == "NOKEY", "{answer}");
    }
    for port in [to, from] {
        assert_eq!(cli(port, &["CLUSTER", "SETSLOT", slot, "NODE", &to_id]), "OK");
    }
}

/// Three primaries, and a replica of the first, once all know each other.
async fn own_cluster() -> Vec<Server> {
    let start = |_| {
        let bus = free_port().to_string();
        let server = [
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--cluster-node-timeout",
            "1500",
            "--repl-diskless-sync-delay",
            "0",
        ];
        (Server::start(free_port(), &server), bus)
    };
    let nodes: Vec<(Server, String)> = (0..4).map(start).collect();
    for ((node, _), slots) in nodes.iter().zip([("0", "5460"), ("5461", "10921"), ("10922", "16383")]) {
        assert_eq!(cli(node.port(), &["CLUSTER", "ADDSLOTSRANGE", slots.0, slots.1]), "OK");
    }
    for (node, bus) in &nodes[1..] {
        assert_eq!(cli(nodes[0].0.port(), &["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), bus]), "OK");
    }
    let (first, replica) = (nodes[0].0.port(), nodes[3].0.port());
    let id = cli(first, &["CLUSTER", "MYID"]);
    until("they know each other", async || (cli(replica, &["CLUSTER", "REPLICATE", &id]) == "OK").then_some(())).await;
    let ready = async || {
        let well = nodes.iter().all(|(node, _)| cli(node.port(), &["CLUSTER", "INFO"]).contains("cluster_state:ok"));
        (well && cli(replica, &["INFO", "replication"]).contains("master_link_status:up")).then_some(())
    };
    until("the cluster is up", ready).await;
    nodes.into_iter().map(|(server, _)| server).collect()
}

/// A primary dies in mid-load: calls fail for now, then its replica takes over and they go on. What was accepted is there, but for what the primary had
/// not passed on yet, in its last moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_takes_over_under_load() {
    const MOMENT: Duration = Duration::from_secs(1);
    if !can_start() {
        return;
    }
    let mut nodes = own_cluster().await;
    // The seed that dies comes first.
    let hosts: Vec<String> = nodes[..3].iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    let store = open_impatient(&format!("redis+cluster://{}", hosts.join(",")), Duration::from_secs(2)).await.unwrap();
    assert!(!store.capabilities().durable, "one has a replica");
    let slot = |name: &str| cli(nodes[0].port(), &["CLUSTER", "KEYSLOT", name]).parse::<u32>().unwrap();
    let on_first = (0..).map(|n| format!("q{n}")).find(|name| slot(name) <= 5460).unwrap();
    let on_third = (0..).map(|n| format!("q{n}")).find(|name| slot(name) > 10921).unwrap();
    let (name, elsewhere) = (queue(&store, &on_first).await, queue(&store, &on_third).await);
    let (mut accepted, mut killed, mut after, mut n) = (BTreeMap::new(), None, 0, 0_usize);
    let started = Instant::now();
    while after < 500 {
        assert!(started.elapsed() < PATIENCE, "{after} after the takeover");
        match store.send(&name, NewMessage::new(n.to_string())).await {
            Ok(_) => {
                accepted.insert(n, Instant::now());
                after += usize::from(killed.is_some());
            }
            Err(error) => {
                assert!(error.is_retryable() && killed.is_some(), "{error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        n += 1;
        if n == 500 {
            nodes[0].kill();
            killed = Some(Instant::now());
        }
    }
    store.send(&elsewhere, NewMessage::new("x")).await.unwrap();
    let mut found = BTreeSet::new();
    while found.len() < n {
        let taken = store.receive(&name, &Receive::up_to(1_000).visibility(PATIENCE * 4)).await.unwrap();
        if taken.is_empty() {
            break;
        }
        found.extend(taken.iter().map(|d| std::str::from_utf8(&d.message.body).unwrap().parse::<usize>().unwrap()));
    }
    let killed = killed.unwrap();
    for (n, at) in accepted.iter().filter(|(n, _)| !found.contains(n)) {
        assert!(
            *at <= killed && killed - *at < MOMENT,
            "{n} was lost, accepted {:?} before",
            killed.saturating_duration_since(*at)
        );
    }
}
