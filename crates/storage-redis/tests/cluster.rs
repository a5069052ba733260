//! A Cluster whose slots move.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{apart, cli, open, queue, shared};
use storage_core::{NewMessage, QueueSpec, Receive};

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
    let name = queue(&store, &format!("moving{}", std::process::id())).await;
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
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let (sent, received) = worker.await.unwrap().unwrap();
    assert_eq!(sent, received);
    assert!(sent > 10, "{sent} messages went through");
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
    std::thread::sleep(std::time::Duration::from_millis(50));
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
