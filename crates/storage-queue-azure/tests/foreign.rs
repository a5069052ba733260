//! Python's azure-storage-queue reads what we send, and the other way round.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use storage_core::message::dead;
use storage_core::{ErrorKind, MessageUpdate, NewMessage, QueueName, Receive};

/// Another program at a queue; skips the test where it is not installed.
struct Peer {
    address: String,
    queue: String,
}

impl Peer {
    fn or_skip(address: &str, queue: &str) -> Option<Self> {
        let found = Command::new("python3").args(["-c", "import azure.storage.queue"]).stderr(Stdio::null()).status();
        if !found.is_ok_and(|status| status.success()) {
            storage_conformance::skip(
                "no azure.storage.queue in `python3`: `cargo xtask test --backend queue-azure --all` installs it",
            );
            return None;
        }
        Some(Self { address: address.to_owned(), queue: queue.to_owned() })
    }

    fn ask(&self, calls: &[Value]) -> Vec<Value> {
        let account = storage_azure::EMULATOR_ACCOUNT;
        let asked = json!({
            "endpoint": format!("{}/{account}", self.address), "account": account, "key": storage_azure::EMULATOR_KEY,
            "queue": self.queue, "calls": calls,
        });
        // Blocked, the runtime would not see that a server closes an idle connection.
        tokio::task::block_in_place(|| {
            let mut python = Command::new("python3");
            python.args(["-c", include_str!("peer.py")]).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut python = python.spawn().unwrap();
            python.stdin.take().unwrap().write_all(&serde_json::to_vec(&asked).unwrap()).unwrap();
            let output = python.wait_with_output().unwrap();
            assert!(output.status.success(), "the script failed, see above");
            serde_json::from_slice(&output.stdout).unwrap()
        })
    }

    fn send(&self, policy: &str, bodies: &[&[u8]]) {
        let send = |body: &&[u8]| json!({"do": "send", "policy": policy, "body": BASE64_STANDARD.encode(body)});
        self.ask(&bodies.iter().map(send).collect::<Vec<_>>());
    }

    /// Receives and deletes all; ids and bodies in the order of the bodies.
    fn receive(&self, policy: &str) -> Vec<(Vec<u8>, String)> {
        let answer = self.ask(&[json!({"do": "receive", "policy": policy})]).remove(0);
        let mut found: Vec<_> = answer
            .as_array()
            .unwrap()
            .iter()
            .map(|m| (BASE64_STANDARD.decode(m["body"].as_str().unwrap()).unwrap(), m["id"].as_str().unwrap().to_owned()))
            .collect();
        found.sort();
        found
    }
}

const BODIES: [&[u8]; 5] = [b"", b"<a>&amp; \xc3\xbc\n</a>", b"\x00\xff\r\n", b"hello", b"{\"n\": 1}"];

fn sorted(bodies: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut bodies: Vec<_> = bodies.iter().map(|body| body.to_vec()).collect();
    bodies.sort();
    bodies
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_reads_what_we_send() {
    let Some(address) = common::address_or_skip() else { return };
    let prefix = common::prefix();
    let Some(peer) = Peer::or_skip(&address, &format!("{prefix}mail")) else { return };
    let queue: QueueName = "mail".parse().unwrap();
    let texts = [BODIES[1], BODIES[3], BODIES[4]];
    for (encoding, policy, bodies) in [("base64", "binary", &BODIES[..]), ("base64", "text", &texts), ("text", "none", &texts)] {
        let store = common::open(&format!("{}&encoding={encoding}", common::url(&address, &prefix)));
        store.ensure_queue(&queue, &store.default_spec()).await.unwrap();
        let messages = bodies.iter().map(|body| NewMessage::new(body.to_vec())).collect();
        let sent = store.send_all(&queue, messages).await.unwrap();
        let (read, mut ids): (Vec<_>, Vec<_>) = peer.receive(policy).into_iter().unzip();
        assert_eq!(read, sorted(bodies), "{encoding}");
        ids.sort();
        let mut ours: Vec<_> = sent.into_iter().map(|sent| sent.id.0).collect();
        ours.sort();
        assert_eq!(ids, ours);
    }
    // With attributes it is an envelope, which can be opened: a line of JSON, then the body.
    let store = common::open(&common::url(&address, &prefix));
    store.send(&queue, NewMessage::new("body").attribute("tenant", "acme").content_type("text/plain")).await.unwrap();
    let envelope = peer.receive("binary").remove(0).0;
    let end = envelope.iter().position(|byte| *byte == b'\n').unwrap();
    let head: Value = serde_json::from_slice(envelope[..end].strip_prefix(b"storage-message/1 ").unwrap()).unwrap();
    assert_eq!(head, json!({"attributes": {"tenant": "acme"}, "content_type": "text/plain"}));
    assert_eq!(&envelope[end + 1..], b"body");
    let metadata = peer.ask(&[json!({"do": "metadata"})]).remove(0);
    let ours: Value = serde_json::from_str(metadata["storage_queue"].as_str().unwrap()).unwrap();
    assert_eq!((&ours["name"], &ours["max_deliveries"]), (&json!("mail"), &json!(10)));
}

#[tokio::test(flavor = "multi_thread")]
async fn we_read_what_a_peer_sends() {
    let Some(address) = common::address_or_skip() else { return };
    let prefix = common::prefix();
    let Some(peer) = Peer::or_skip(&address, &format!("{prefix}theirs")) else { return };
    // A queue of theirs is no less a queue: listed, without a cap, with dead letters as soon as there are some.
    peer.ask(&[json!({"do": "create"})]);
    let store = common::open(&common::url(&address, &prefix));
    let as_text = common::open(&format!("{}&encoding=text", common::url(&address, &prefix)));
    let queue: QueueName = "theirs".parse().unwrap();
    let dead_letters = queue.dead_letter().unwrap();
    assert_eq!(store.queues().await.unwrap(), std::slice::from_ref(&queue));
    assert_eq!(store.queue_spec(&queue).await.unwrap().max_deliveries, None);
    assert_eq!(store.stats(&dead_letters).await.unwrap().ready.value(), Some(0));
    let texts = [BODIES[1], BODIES[3], BODIES[4]];
    // Of texts as they are, those that are no base64 are known for what they are without being told.
    let not_base64 = [BODIES[1], BODIES[4]];
    for (policy, store, bodies) in
        [("binary", &store, &BODIES[..]), ("text", &store, &texts), ("none", &store, &not_base64), ("none", &as_text, &texts)]
    {
        peer.send(policy, bodies);
        let mut read = Vec::new();
        while read.len() < bodies.len() {
            let request = Receive::up_to(32).wait(Duration::from_secs(10));
            for delivery in store.receive(&queue, &request).await.unwrap() {
                assert!(delivery.message.attributes.is_empty() && delivery.message.content_type.is_none());
                store.delete(&queue, &delivery.receipt).await.unwrap();
                read.push(delivery.message.body.to_vec());
            }
        }
        read.sort();
        assert_eq!(read, sorted(bodies), "{policy}");
    }
    peer.send("text", &[b"poison"]);
    let taken = store.receive(&queue, &Receive::default()).await.unwrap().remove(0);
    let zero = MessageUpdate::visibility(Duration::ZERO);
    store.update(&queue, &taken.receipt, &zero).await.unwrap();
    let taken = store.receive(&queue, &Receive::default()).await.unwrap().remove(0);
    assert_eq!(taken.message.deliveries, 2);
    store.dead_letter(&queue, &taken.receipt, "no").await.unwrap();
    let letter = store.peek(&dead_letters, 1).await.unwrap().remove(0);
    assert_eq!((&letter.id, &letter.attributes[dead::DELIVERIES][..]), (&taken.message.id, "2"));
    let created = store.create_queue(&queue, &store.default_spec()).await.unwrap_err();
    assert_eq!(created.kind(), ErrorKind::AlreadyExists, "{created:?}");
}

/// The largest text of another program that is no base64: as a dead letter it has no room for a reason, and is kept all the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_texts_of_others_are_kept() {
    let Some(address) = common::address_or_skip() else { return };
    let prefix = common::prefix();
    let Some(peer) = Peer::or_skip(&address, &format!("{prefix}theirs")) else { return };
    peer.ask(&[json!({"do": "create"})]);
    let large = "{}".repeat(32 << 10);
    let queue: QueueName = "theirs".parse().unwrap();
    for encoding in ["base64", "text"] {
        let store = common::open(&format!("{}&encoding={encoding}", common::url(&address, &prefix)));
        peer.send("none", &[large.as_bytes()]);
        let taken = store.receive(&queue, &Receive::default()).await.unwrap().remove(0);
        assert_eq!(taken.message.body, large);
        store.dead_letter(&queue, &taken.receipt, "no").await.unwrap();
        assert_eq!(store.peek(&queue.dead_letter().unwrap(), 1).await.unwrap()[0].body, large);
        assert_eq!(store.redrive(&queue, 1).await.unwrap(), 1);
        let taken = store.receive(&queue, &Receive::default()).await.unwrap().remove(0);
        assert_eq!(taken.message.body, large);
        store.delete(&queue, &taken.receipt).await.unwrap();
    }
}
