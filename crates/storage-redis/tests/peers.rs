//! What `redis-cli` sees of a queue, as `src/layout.rs` and docs/queues.md describe it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::collections::BTreeSet;
use std::time::Duration;

use common::{apart, cli, open, port, queue, single_or_skip};
use storage_core::{NewMessage, Receive};

/// The keys of a store as another client sees them.
struct Seen {
    port: u16,
    prefix: String,
}

impl Seen {
    fn key(&self, part: &str) -> String {
        format!("{}:{{mail}}:{part}", self.prefix)
    }

    fn cli(&self, arguments: &[&str]) -> String {
        cli(self.port, arguments)
    }

    fn keys(&self) -> BTreeSet<String> {
        let found = self.cli(&["--raw", "KEYS", &format!("{}:*", self.prefix)]);
        found.lines().map(|key| key.trim_start_matches(&format!("{}:", self.prefix)).to_owned()).collect()
    }
}

#[tokio::test]
async fn keys_are_as_documented() {
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let seen = Seen { port: port(&address), prefix: url.split("prefix=").nth(1).unwrap().trim_end_matches('&').to_owned() };
    let store = open(&url).await.unwrap();
    let name = queue(&store, "mail").await;
    let message = NewMessage::new("hello").attribute("to", "ü").content_type("text/plain; charset=utf-8").priority(3);
    store.send(&name, message.dedup_id("once").ttl(Duration::from_secs(3_600))).await.unwrap();
    store.send(&name, NewMessage::new("later").delay(Duration::from_secs(3_600))).await.unwrap();
    store.send(&name, NewMessage::new("poison").priority(9)).await.unwrap();
    store.send(&name, NewMessage::new("leased").priority(8)).await.unwrap();
    let taken = store.receive(&name, &Receive::up_to(2)).await.unwrap();
    store.dead_letter(&name, &taken[0].receipt, "not a letter").await.unwrap();

    assert_eq!(seen.cli(&["HKEYS", &format!("{}:queues", seen.prefix)]), "mail");
    assert_eq!(seen.cli(&["HGET", &seen.key("meta"), "seq"]), "4");
    assert_eq!(seen.cli(&["HGET", &seen.key("body"), "1"]), "hello");
    assert_eq!(seen.cli(&["--raw", "HGET", &seen.key("attributes"), "1"]), r#"{"to":"ü"}"#);
    let state = seen.cli(&["--raw", "HGET", &seen.key("state"), "1"]);
    let parts: Vec<&str> = state.splitn(7, ' ').collect();
    assert_eq!((parts[0], parts[3], parts[4], parts[5], parts[6]), ("3", "0", "5", "-", "text/plain; charset=utf-8"), "{state}");
    let sets = [
        ("age", "1\n2\n4"),
        ("ready", "1"),
        ("expiring", "1"),
        ("delayed", "2"),
        ("leased", "4"),
        ("dedup:until", "once"),
        ("dead:ready", "3"),
    ];
    for (part, members) in sets {
        assert_eq!(seen.cli(&["ZRANGE", &seen.key(part), "0", "-1"]), members, "{part}");
    }
    let state = seen.cli(&["--raw", "HGET", &seen.key("state"), "4"]);
    assert!(format!("4-{}", state.rsplit(' ').next().unwrap()) == taken[1].receipt.0, "the lease is the receipt's: {state}");
    assert_eq!(seen.cli(&["HGET", &seen.key("dead:body"), "3"]), "poison");
    let info = seen.cli(&["--raw", "HGET", &seen.key("dead:info"), "3"]);
    assert!(info.starts_with("1 ") && info.ends_with(" not a letter"), "{info}");
    // One slot of a Cluster has them all.
    assert!(seen.keys().iter().all(|key| key == "queues" || key.starts_with("{mail}:")), "{:?}", seen.keys());
}

/// Nothing is left behind by messages that are gone, nor by a queue that is gone.
#[tokio::test]
async fn nothing_is_left_behind() {
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let seen = Seen { port: port(&address), prefix: url.split("prefix=").nth(1).unwrap().trim_end_matches('&').to_owned() };
    let store = open(&url).await.unwrap();
    let name = queue(&store, "mail").await;
    let messages = (0..10).map(|n| NewMessage::new("a").attribute("n", n.to_string()).ttl(Duration::from_secs(60)));
    store.send_all(&name, messages.collect()).await.unwrap();
    let taken = store.receive(&name, &Receive::up_to(10)).await.unwrap();
    for (n, delivery) in taken.iter().enumerate() {
        match n % 2 {
            0 => store.delete(&name, &delivery.receipt).await.unwrap(),
            _ => store.dead_letter(&name, &delivery.receipt, "test").await.unwrap(),
        }
    }
    assert_eq!(store.redrive(&name, 2).await.unwrap(), 2);
    for queue in [&name, &name.dead_letter().unwrap()] {
        for delivery in store.receive(queue, &Receive::up_to(10)).await.unwrap() {
            store.delete(queue, &delivery.receipt).await.unwrap();
        }
    }
    assert_eq!(seen.keys(), ["queues", "{mail}:meta"].map(str::to_owned).into());
    store.send(&name, NewMessage::new("a").dedup_id("x").attribute("a", "b")).await.unwrap();
    assert!(store.delete_queue(&name).await.unwrap());
    assert_eq!(seen.keys(), BTreeSet::new());
}

/// What somebody removed by hand is not in the way of the rest.
#[tokio::test]
async fn messages_removed_by_hand_are_not_in_the_way() {
    let Some(address) = single_or_skip() else { return };
    let url = apart(&address);
    let seen = Seen { port: port(&address), prefix: url.split("prefix=").nth(1).unwrap().trim_end_matches('&').to_owned() };
    let store = open(&url).await.unwrap();
    let name = queue(&store, "mail").await;
    store.send_all(&name, ["a", "b"].map(NewMessage::new).into()).await.unwrap();
    assert_eq!(seen.cli(&["HDEL", &seen.key("state"), "1"]), "1");
    let request = Receive::default().wait(common::PATIENCE);
    assert_eq!(store.receive(&name, &request).await.unwrap()[0].message.body, "b");
}
