//! `queue`.

use serde_json::json;

use crate::support::Sandbox;

fn with_queue(args: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.ok(&[&["queue", "create", "q"], args].concat());
    sandbox
}

#[test]
fn a_message_is_sent_received_and_removed() {
    let sandbox = with_queue(&[]);
    assert_eq!(sandbox.json1(&["queue", "create", "q"]), json!({"queue": "q", "created": false}));
    sandbox.fails(4, &["queue", "create", "q", "--max-deliveries", "3"]);
    let sent = sandbox.json1(&["queue", "send", "q", "hello", "-a", "tenant=acme", "--content-type", "text/plain"]);
    assert_eq!(sent["duplicate"], false);
    let received = sandbox.json1(&["queue", "receive", "q"]);
    assert_eq!((&received["id"], &received["body"], &received["deliveries"]), (&sent["id"], &json!("hello"), &json!(1)));
    assert_eq!((&received["attributes"]["tenant"], &received["content_type"]), (&json!("acme"), &json!("text/plain")));
    assert_eq!(sandbox.json(&["queue", "receive", "q"]).len(), 0, "it is leased");
    let stats = sandbox.json1(&["queue", "stats", "q"]);
    assert_eq!((&stats["ready"], &stats["leased"], &stats["max_deliveries"]), (&json!(0), &json!(1), &json!(10)));

    let receipt = received["receipt"].as_str().unwrap();
    let newer = sandbox.ok(&["queue", "update", "q", receipt, "--visibility", "1m", "--body", "changed"]);
    let newer = newer.trim();
    assert!(sandbox.fails(4, &["queue", "delete", "q", receipt]).contains("lease-lost"));
    sandbox.ok(&["queue", "update", "q", newer, "--visibility", "0s"]);
    let again = sandbox.json1(&["queue", "receive", "q"]);
    assert_eq!((&again["body"], &again["deliveries"]), (&json!("changed"), &json!(2)));
    sandbox.ok(&["queue", "delete", "q", again["receipt"].as_str().unwrap()]);
    assert_eq!(sandbox.json1(&["queue", "stats", "q"])["leased"], 0);

    let text = sandbox.ok(&["queue", "ls"]);
    assert!(text.contains("READY") && text.contains('q'), "{text}");
    sandbox.fails(3, &["queue", "send", "gone", "x"]);
    sandbox.fails(3, &["queue", "receive", "gone"]);
    sandbox.fails(3, &["queue", "stats", "gone"]);
    sandbox.ok(&["queue", "drop", "q"]);
    sandbox.fails(3, &["queue", "drop", "q"]);
    sandbox.ok(&["queue", "drop", "q", "--missing-ok"]);
}

#[test]
fn lines_become_messages_in_order() {
    let sandbox = with_queue(&[]);
    let lines: Vec<String> = (0..2500).map(|n| format!("line {n}")).collect();
    let said = sandbox.run_with(&["queue", "send", "q", "-"], lines.join("\n").as_bytes()).ok();
    assert_eq!(said, "sent 2,500 messages\n");
    let received = sandbox.ok(&["queue", "receive", "q", "--max", "5000", "--delete"]);
    assert_eq!(received.lines().collect::<Vec<_>>(), lines);
    assert_eq!(sandbox.json1(&["queue", "stats", "q"])["ready"], 0, "removed as they were printed");
    let sent = sandbox.run_with(&["queue", "send", "q", "-", "--json"], b"a\r\n\nb").json();
    assert_eq!(sent.len(), 3);
    let bodies: Vec<_> = sandbox.json(&["queue", "peek", "q"]).iter().map(|m| m["body"].clone()).collect();
    assert_eq!(bodies, ["a", "", "b"]);
    assert_eq!(sandbox.json1(&["queue", "purge", "q"]), json!({"queue": "q", "purged": 3}));
}

#[test]
fn bodies_may_be_any_bytes() {
    let sandbox = with_queue(&[]);
    let bytes: Vec<u8> = (0..=255).collect();
    sandbox.run_with(&["queue", "send", "q", "--whole"], &bytes).ok();
    let received = sandbox.json1(&["queue", "receive", "q", "--visibility", "1s"]);
    let base64 = received["body_base64"].as_str().unwrap();
    assert!(base64.starts_with("AAECAwQF") && received.get("body").is_none(), "{received}");
    sandbox.ok(&["queue", "update", "q", received["receipt"].as_str().unwrap(), "--visibility", "0s"]);
    let raw = sandbox.run(&["queue", "receive", "q", "--delete"]);
    assert_eq!(raw.stdout, [&bytes[..], b"\n"].concat());
}

#[test]
fn priorities_delays_and_duplicates() {
    let sandbox = with_queue(&[]);
    sandbox.ok(&["queue", "send", "q", "low"]);
    sandbox.ok(&["queue", "send", "q", "high", "--priority", "9"]);
    sandbox.ok(&["queue", "send", "q", "later", "--delay", "1h"]);
    assert_eq!(sandbox.ok(&["queue", "receive", "q", "--max", "5", "--delete"]), "high\nlow\n");
    assert_eq!(sandbox.json1(&["queue", "stats", "q"])["delayed"], 1);
    let first = sandbox.json1(&["queue", "send", "q", "once", "--dedup-id", "d"]);
    let second = sandbox.json1(&["queue", "send", "q", "twice", "--dedup-id", "d"]);
    assert_eq!((&second["id"], &second["duplicate"]), (&first["id"], &json!(true)));
    assert!(sandbox.ok(&["queue", "send", "q", "thrice", "--dedup-id", "d"]).contains("not sent"));
    sandbox.fails(2, &["queue", "send", "q", "x", "--priority", "10"]);
    sandbox.fails(2, &["queue", "send", "q", "-", "--dedup-id", "d"]);
    assert_eq!(sandbox.run(&["queue", "send", "q"]).code, Some(2), "neither a body nor -");
}

#[test]
fn dead_letters_are_shown_and_sent_home() {
    let sandbox = with_queue(&["--max-deliveries", "1"]);
    sandbox.ok(&["queue", "send", "q", "poison"]);
    let received = sandbox.json1(&["queue", "receive", "q"]);
    sandbox.ok(&["queue", "update", "q", received["receipt"].as_str().unwrap(), "--visibility", "0s"]);
    assert_eq!(sandbox.json(&["queue", "receive", "q"]).len(), 0, "delivered as often as may be");
    let dead = sandbox.json1(&["queue", "dead", "q"]);
    assert_eq!((&dead["body"], &dead["attributes"]["storage-dead-reason"]), (&json!("poison"), &json!("max-deliveries")));
    let text = sandbox.ok(&["queue", "dead", "q"]);
    assert!(text.contains("max-deliveries") && text.contains("poison"), "{text}");
    assert_eq!(sandbox.json1(&["queue", "redrive", "q"]), json!({"queue": "q", "redriven": 1}));
    assert_eq!(sandbox.ok(&["queue", "receive", "q", "--delete"]), "poison\n");
}
