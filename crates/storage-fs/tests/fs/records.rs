//! Records and messages as files that people look at and change.

use std::time::Duration;

use serde_json::json;
use storage_core::{
    Batch, Clock, ErrorKind, Expect, Key, NewMessage, Query, QueueBackend as _, QueueSpec, Receive, RecordBackend as _, Version,
    fields, message::dead,
};

use storage_fs::{FsOptions, FsStore};

use crate::{Fixture, open};

#[tokio::test]
async fn a_record_is_a_file_that_a_person_can_read_and_change() {
    let fixture = Fixture::new().await;
    let (records, notes) = fixture.notes().await;
    let put = |text: &str| Batch::new().put(&notes, "Alice", fields(json!({"text": text})), Expect::Anything);
    records.commit(put("hello")).await.unwrap();
    let file = fixture.path("records/notes/!a!lice.json");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"id\": \"Alice\"") && text.contains("\"text\": \"hello\"") && text.ends_with("}\n"), "{text}");

    std::fs::write(&file, text.replace("hello", "changed by hand")).unwrap();
    let found = records.get(&notes, &["Alice".into()]).await.unwrap().remove(0).unwrap();
    assert_eq!((found.version, &found.fields["text"]), (Version(1), &json!("changed by hand")));
    assert_eq!(records.commit(put("again")).await.unwrap(), [Version(2)]);

    // A file that is put there is a record; one that is taken away is none.
    let bob = text.replace("Alice", "bob");
    std::fs::write(fixture.path("records/notes/bob.json"), bob).unwrap();
    assert_eq!(records.count(&Query::table("Notes").unwrap()).await.unwrap(), 2);
    std::fs::remove_file(&file).unwrap();
    assert_eq!(records.get(&notes, &["Alice".into()]).await.unwrap(), [None]);
}

#[tokio::test]
async fn the_same_record_is_always_the_same_bytes() {
    let fixture = Fixture::new().await;
    let (records, notes) = fixture.notes().await;
    let put = |fields| Batch::new().put(&notes, "a", fields, Expect::Anything);
    records.commit(put(fields(json!({"z": 1, "a": {"y": 1, "b": 2}})))).await.unwrap();
    let text = std::fs::read_to_string(fixture.path("records/notes/a.json")).unwrap();
    let places: Vec<usize> = ["\"key\"", "\"version\"", "\"updated_at\"", "\"fields\"", "\"a\":", "\"b\"", "\"y\"", "\"z\""]
        .iter()
        .map(|part| text.find(part).unwrap())
        .collect();
    assert!(places.is_sorted(), "{text}");
}

#[tokio::test]
async fn a_damaged_file_is_named_and_the_others_go_on() {
    let fixture = Fixture::new().await;
    let (records, notes) = fixture.notes().await;
    let batch =
        ["a", "b", "c"].into_iter().fold(Batch::new(), |b, key| b.put(&notes, key, fields(json!({"n": 1})), Expect::Absent));
    records.commit(batch).await.unwrap();
    let all = Query::table("Notes").unwrap();
    for damage in ["", "{", "[]", "{\"key\": {\"id\": \"b\"}}", "\u{0}\u{0}"] {
        std::fs::write(fixture.path("records/notes/b.json"), damage).unwrap();
        for error in [
            records.get(&notes, &["b".into()]).await.unwrap_err(),
            records.get(&notes, &["a".into(), "b".into()]).await.unwrap_err(),
            records.scan(&all).await.unwrap_err(),
            records.commit(Batch::new().merge(&notes, "b", fields(json!({"n": 2})), Expect::Present)).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{damage:?}: {error}");
            assert!(error.to_string().contains("records/notes/b.json"), "{error}");
        }
        assert!(records.get(&notes, &["a".into()]).await.unwrap()[0].is_some());
        records.commit(Batch::new().put(&notes, "c", fields(json!({"n": 2})), Expect::Present)).await.unwrap();
    }
    // A copy under another name would be a record twice.
    std::fs::copy(fixture.path("records/notes/a.json"), fixture.path("records/notes/b.json")).unwrap();
    assert!(records.get(&notes, &["b".into()]).await.unwrap_err().message().contains("named after"));
    std::fs::remove_file(fixture.path("records/notes/b.json")).unwrap();
    assert_eq!(records.scan(&all).await.unwrap().records.len(), 2);
    // What editors leave is no record; a file that looks like one and can't be one is told of.
    std::fs::write(fixture.path("records/notes/a.json~"), "").unwrap();
    assert_eq!(records.count(&all).await.unwrap(), 2);
    std::fs::write(fixture.path("records/notes/My Note.json"), "{}").unwrap();
    assert_eq!(records.count(&all).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn hostile_keys_make_good_file_names() {
    let fixture = Fixture::new().await;
    let (records, notes) = fixture.notes().await;
    let long = "x".repeat(512);
    let longer = format!("{}y", "x".repeat(511));
    let keys = [
        "a",
        "A",
        "..",
        "../a",
        "/etc/passwd",
        "CON",
        "con",
        "nul.txt",
        "a.",
        "a ",
        ".hidden",
        "_schema",
        "_history",
        "a\\b",
        "a:b",
        "*?<>|\"",
        "%41",
        "ü",
        "Ü",
        "a,b",
        "!",
        "~",
        "-rf",
        "ﬁ",
        &long,
        &longer,
    ];
    for (n, key) in keys.iter().enumerate() {
        records.commit(Batch::new().put(&notes, *key, fields(json!({"n": n})), Expect::Absent)).await.unwrap();
    }
    let mut sorted: Vec<Key> = keys.iter().map(|key| Key::from(*key)).collect();
    sorted.sort();
    // Of a fresh handle, which knows nothing but the files.
    let records = open(fixture.folder.path()).await.records();
    let listed = records.scan(&Query::table("Notes").unwrap()).await.unwrap().records;
    assert_eq!(listed.into_iter().map(|r| r.key).collect::<Vec<_>>(), sorted);
    for (n, key) in keys.iter().enumerate() {
        let found = records.get(&notes, &[Key::from(*key)]).await.unwrap().remove(0).unwrap();
        assert_eq!(found.fields["n"], json!(n), "{key}");
    }
    let names: Vec<String> = std::fs::read_dir(fixture.path("records/notes"))
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    let lower: std::collections::HashSet<String> = names.iter().map(|name| name.to_lowercase()).collect();
    assert_eq!((names.len(), lower.len()), (keys.len() + 1, keys.len() + 1), "names that differ by case alone: {names:?}");
}

#[tokio::test]
async fn a_message_is_a_file_and_a_damaged_one_becomes_a_dead_letter() {
    let fixture = Fixture::new().await;
    let (queue, mail) = (fixture.store.queue(), "mail".parse().unwrap());
    queue.create_queue(&mail, &QueueSpec::default()).await.unwrap();
    queue.send(&mail, vec![NewMessage::new("one\ntwo"), NewMessage::new("three").attribute("k", "v")]).await.unwrap();
    let mut files: Vec<_> =
        std::fs::read_dir(fixture.path("queues/mail/ready")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(std::fs::read_to_string(&files[0]).unwrap().ends_with("}\none\ntwo"));
    std::fs::write(&files[0], "garbage").unwrap();

    let got = queue.receive(&mail, &Receive::up_to(10)).await.unwrap();
    assert_eq!(got.len(), 1);
    assert_eq!((&*got[0].message.body, got[0].message.attributes["k"].as_str()), (&b"three"[..], "v"));
    let letters = queue.peek(&mail.dead_letter().unwrap(), 10).await.unwrap();
    assert_eq!(&*letters[0].body, b"garbage");
    assert!(letters[0].attributes[dead::REASON].starts_with("damaged"));
    assert!(fixture.path("queues/mail/leased").read_dir().unwrap().count() == 1);
}

#[tokio::test]
async fn many_dead_letters_go_home_in_several_steps() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Clock::manual();
    let store = FsStore::open(folder.path(), FsOptions::default(), clock.clone()).await.unwrap();
    let (queue, mail) = (store.queue(), "mail".parse().unwrap());
    queue.create_queue(&mail, &QueueSpec::default().max_deliveries(1)).await.unwrap();
    queue.send(&mail, (0..600).map(|n| NewMessage::new(n.to_string())).collect()).await.unwrap();
    assert_eq!(queue.receive(&mail, &Receive::up_to(1000)).await.unwrap().len(), 600);
    clock.advance(Duration::from_secs(31));
    assert_eq!(queue.stats(&mail).await.unwrap().dead.value(), Some(600));
    assert_eq!(queue.redrive(&mail, 500).await.unwrap(), 500);
    assert_eq!(queue.redrive(&mail, u32::MAX).await.unwrap(), 100);
    let bodies: Vec<_> = queue.receive(&mail, &Receive::up_to(1000)).await.unwrap().into_iter().map(|d| d.message.body).collect();
    assert_eq!(bodies, (0..600).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_dropped_call_holds_nothing_up() {
    let fixture = Fixture::new().await;
    let (records, notes) = fixture.notes().await;
    let (queue, mail) = (fixture.store.queue(), "mail".parse().unwrap());
    queue.create_queue(&mail, &QueueSpec::default()).await.unwrap();
    for n in 0..200_u64 {
        let put = records.commit(Batch::new().put(&notes, "a", fields(json!({"n": n})), Expect::Anything));
        let request = Receive::default().wait(Duration::from_secs(600));
        let receive = queue.receive(&mail, &request);
        let _ = tokio::time::timeout(Duration::from_micros(n * 5), async { tokio::join!(put, receive) }).await;
    }
    let before = records.get(&notes, &["a".into()]).await.unwrap().remove(0).map_or(0, |record| record.version.0);
    let after = records.commit(Batch::new().put(&notes, "a", fields(json!({})), Expect::Anything)).await.unwrap();
    assert!(after[0].0 > before && before <= 200);
    let other = open(fixture.folder.path()).await;
    other.records().commit(Batch::new().delete(&notes, "a", Expect::Present)).await.unwrap();
}
