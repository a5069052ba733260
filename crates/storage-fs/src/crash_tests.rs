//! The process dies after each file operation in turn, and nobody ever sees half a batch.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Value, json};
use storage_core::{
    Batch, BlobBackend as _, BlobPath, Clock, Column, ColumnType, Error, Expect, GetOptions, History, ListOptions, Message,
    MessageUpdate, NewMessage, PutOptions, Query, QueueBackend as _, QueueSpec, Receive, RecordBackend as _, Result,
    SchemaChange, TableSchema, fields,
};

use crate::crash;
use crate::{FsOptions, FsStore};

const ROOT: &str = "STORAGE_FS_TEST_ROOT";
/// Set: the child works on blobs.
const BLOBS: &str = "STORAGE_FS_TEST_BLOBS";

async fn open(root: &Path, fsync: bool) -> FsStore {
    FsStore::open(root, FsOptions { fsync, ..FsOptions::default() }, Clock::system()).await.unwrap()
}

/// Accounts whose cents are 100 in all, transfers with a unique number, and a queue.
async fn set_up(store: &FsStore) {
    let accounts = TableSchema::builder("accounts").column("cents", ColumnType::Integer).history(History::Keep(2)).build();
    let transfers = TableSchema::builder("transfers").column("number", ColumnType::Integer).unique().build();
    let records = store.records();
    records.create_table(&accounts.unwrap()).await.unwrap();
    records.create_table(&transfers.unwrap()).await.unwrap();
    store.queue().create_queue(&"mail".parse().unwrap(), &QueueSpec::default()).await.unwrap();
    let accounts = "accounts".parse().unwrap();
    let batch = Batch::new().put(&accounts, "a", fields(json!({"cents": 100})), Expect::Absent).put(
        &accounts,
        "b",
        fields(json!({"cents": 0})),
        Expect::Absent,
    );
    records.commit(batch).await.unwrap();
}

/// What the child does, step by step; each is written down when it has been answered.
async fn work(root: &Path, store: &FsStore) -> Result<()> {
    let (records, queue, mail) = (store.records(), store.queue(), "mail".parse()?);
    let (accounts, transfers) = ("accounts".parse()?, "transfers".parse()?);
    let done = |what: &str| std::fs::write(root.with_extension(what), "").unwrap();
    for n in 1..=2 {
        let batch = Batch::new()
            .merge(&accounts, "a", fields(json!({"cents": 100 - n})), Expect::Present)
            .merge(&accounts, "b", fields(json!({"cents": n})), Expect::Present)
            .put(&transfers, format!("t{n}"), fields(json!({"number": n})), Expect::Absent)
            .enqueue(&mail, NewMessage::new(format!("{n}")).dedup_id(format!("{n}")));
        records.commit(batch).await?;
        done(&format!("transfer{n}"));
    }
    let got = queue.receive(&mail, &Receive::up_to(2)).await?;
    let receipt = queue.update(&mail, &got[0].receipt, &MessageUpdate::default().body("changed")).await?;
    done("updated");
    queue.delete(&mail, &[receipt]).await?.remove(0)?;
    done("deleted");
    queue.dead_letter(&mail, &got[1].receipt, "no good").await?;
    done("dead");
    records.commit(Batch::new().delete(&transfers, "t1", Expect::Present)).await?;
    done("freed");
    let color =
        Column { name: "color".try_into()?, kind: ColumnType::Text, required: true, unique: false, default: Some("red".into()) };
    records.alter_table(&accounts, &SchemaChange::AddColumn(color)).await?;
    done("altered");
    records.create_table(&TableSchema::builder("other").build()?).await?;
    done("created");
    records.drop_table(&"other".parse()?).await?;
    done("dropped");
    records.close().await
}

fn number(record: &Value) -> i64 {
    record["cents"].as_i64().unwrap()
}

/// Holds what is there against what was answered. `store` may have been open all the time.
async fn check(root: &Path, store: &FsStore) {
    let (records, queue, mail) = (store.records(), store.queue(), "mail".parse().unwrap());
    let (accounts, transfers) = ("accounts".parse().unwrap(), "transfers".parse().unwrap());
    let done = |what: &str| root.with_extension(what).exists();
    let found = records.get(&accounts, &["a".into(), "b".into()]).await.unwrap();
    let [a, b] = [0, 1].map(|at| found[at].as_ref().unwrap());
    let (a_cents, b_cents) = (number(&json!(a.fields)), number(&json!(b.fields)));
    assert_eq!(a_cents + b_cents, 100, "half a batch");
    assert!(b_cents >= i64::from(done("transfer1")) + i64::from(done("transfer2")), "an answered batch is gone");
    let history = records.history(&accounts, &"a".into()).await.unwrap();
    assert_eq!(history[0].fields.get("cents"), a.fields.get("cents"));
    assert_eq!(history.len(), if b_cents == 0 { 1 } else { 2 });

    let listed = records.scan(&Query::table("transfers").unwrap()).await.unwrap().records;
    let freed = i64::try_from(listed.len()).unwrap() < b_cents;
    assert!(freed || !done("freed"));
    for n in 1..=3_i64 {
        // The value is taken exactly where its record is there.
        let taken = n <= b_cents && !(n == 1 && freed);
        let put = Batch::new().put(&transfers, "probe", fields(json!({"number": n})), Expect::Anything);
        assert_eq!(records.commit(put).await.is_err(), taken, "number {n}");
    }
    records.commit(Batch::new().delete(&transfers, "probe", Expect::Anything)).await.unwrap();

    let stats = queue.stats(&mail).await.unwrap();
    let [ready, leased, dead] = [stats.ready, stats.leased, stats.dead].map(|n| i64::try_from(n.value().unwrap()).unwrap());
    let deleted = b_cents - ready - leased - dead;
    assert!((0..=1).contains(&deleted) && (deleted == 1 || !done("deleted")), "{stats:?} of {b_cents}");
    assert!(dead == 1 || !done("dead"));
    let letters: Vec<Message> = queue.peek(&mail.dead_letter().unwrap(), 10).await.unwrap();
    assert_eq!(letters.len(), usize::try_from(dead).unwrap());
    let again = queue.send(&mail, vec![NewMessage::new("x").dedup_id("1")]).await.unwrap();
    assert_eq!(again[0].duplicate, b_cents >= 1);

    let color = a.fields.get("color");
    assert!(color == Some(&json!("red")) || !done("altered") && color.is_none());
    let tables: Vec<String> = records.tables().await.unwrap().iter().map(|t| t.name.to_string()).collect();
    assert!(tables[0] == "accounts" && tables.last().unwrap() == "transfers");
    assert!(tables.contains(&"other".to_owned()) || !done("created") || root.with_extension("altered").exists());
    assert!(tables.len() == 2 || !done("dropped"));
    // It goes on working.
    records.commit(Batch::new().put(&accounts, "c", fields(json!({"cents": 0})), Expect::Anything)).await.unwrap();
}

/// What the child does with blobs.
async fn work_on_blobs(root: &Path, store: &FsStore) -> Result<()> {
    let blobs = store.blobs();
    let done = |what: &str| std::fs::write(root.with_extension(what), "").unwrap();
    let (a, b) = (BlobPath::new("x/a")?, BlobPath::new("x/a/b")?);
    blobs.put(&a, "second".into(), &PutOptions::default().content_type("text/2")).await?;
    done("second");
    blobs.put(&b, "below".into(), &PutOptions::default().content_type("text/b")).await?;
    done("below");
    blobs.delete(&b, None).await?;
    done("removed");
    blobs.delete(&a, None).await?;
    done("gone");
    Ok(())
}

async fn check_blobs(root: &Path, store: &FsStore) {
    let blobs = store.blobs();
    let done = |what: &str| root.with_extension(what).exists();
    let (a, b) = (BlobPath::new("x/a").unwrap(), BlobPath::new("x/a/b").unwrap());
    let mut expected = Vec::new();
    match blobs.get(&a, &GetOptions::default()).await {
        Ok(read) => {
            expected.push("x/a");
            let kind = read.meta.attributes.content_type.clone().expect("bytes and attributes change together");
            let bytes = read.bytes().await.unwrap();
            assert!((&*bytes, &*kind) == (b"second", "text/2") || !done("second") && (&*bytes, &*kind) == (b"first", "text/1"));
            assert!(!done("gone"));
        }
        Err(error) => assert!(error.kind() == storage_core::ErrorKind::NotFound && done("removed"), "{error}"),
    }
    match blobs.get(&b, &GetOptions::default()).await {
        Ok(read) => {
            expected.push("x/a/b");
            assert_eq!(read.meta.attributes.content_type.as_deref(), Some("text/b"));
            assert!(!done("removed"));
        }
        // Its removal may have happened before it could be answered.
        Err(error) => assert_eq!(error.kind(), storage_core::ErrorKind::NotFound),
    }
    let listed: Vec<String> = blobs.list(&ListOptions::default()).map(|entry| entry.unwrap().sort_key()).collect().await;
    assert_eq!(listed, expected);
    blobs.put(&b, "again".into(), &PutOptions::default()).await.unwrap();
}

/// What the other tests here run in a process of its own, where it may die. Run by itself it has nothing to do.
#[tokio::test]
async fn child() {
    let Ok(root) = std::env::var(ROOT) else { return };
    let root = Path::new(&root);
    let store = open(root, true).await;
    crash::ARMED.store(true, Ordering::SeqCst);
    if std::env::var_os(BLOBS).is_some() {
        work_on_blobs(root, &store).await.unwrap();
    } else {
        work(root, &store).await.unwrap();
    }
}

/// Runs the child until it dies at its `at`th step. `true`: it lived to the end.
fn run(root: &Path, at: usize, blobs: bool) -> bool {
    let child = Command::new(std::env::current_exe().unwrap())
        .envs(blobs.then_some((BLOBS, "1")))
        .args(["--exact", "crash_tests::child", "--nocapture"])
        .env(ROOT, root)
        .env(crash::AT, at.to_string())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
    assert!(child.status.code().is_none_or(|code| code == 0) && text.contains("running 1 test"), "{text}");
    child.status.success()
}

async fn die_everywhere(after: impl AsyncFn(&Path, FsStore)) {
    let mut steps = 0;
    loop {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        let store = open(&root, true).await;
        set_up(&store).await;
        let lived = run(&root, steps, false);
        after(&root, store).await;
        if lived {
            assert!(steps > 50, "only {steps} places to die at");
            return;
        }
        steps += 1;
    }
}

#[tokio::test]
async fn another_process_that_is_running_goes_on() {
    die_everywhere(async |root, store| check(root, &store).await).await;
}

#[tokio::test]
async fn the_next_process_finds_everything() {
    die_everywhere(async |root, store| {
        drop(store);
        let store = open(root, true).await;
        check(root, &store).await;
        let scratch = root.join(crate::base::SCRATCH);
        assert_eq!(std::fs::read_dir(scratch).unwrap().count(), 0, "something was left behind");
    })
    .await;
}

#[tokio::test]
async fn a_blob_is_the_old_or_the_new_one_with_its_attributes() {
    let mut steps = 0;
    loop {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        let store = open(&root, true).await;
        let first = PutOptions::default().content_type("text/1");
        store.blobs().put(&BlobPath::new("x/a").unwrap(), "first".into(), &first).await.unwrap();
        let lived = run(&root, steps, true);
        check_blobs(&root, &store).await;
        if lived {
            assert!(steps > 12, "only {steps} places to die at");
            return;
        }
        steps += 1;
    }
}

/// Copies a folder while a store has it open, as a disk has it at a power cut, but for `lost`.
fn copy(from: &Path, to: &Path, lost: &dyn Fn(&Path) -> bool) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target, lost);
        } else if !lost(&path) {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

#[tokio::test]
async fn after_a_power_cut_the_journal_brings_everything_back() {
    let losses: [&dyn Fn(&Path) -> bool; 3] = [
        &|path| path.extension().is_some_and(|e| e == "msg") || path.to_str().unwrap().contains("transfers/t"),
        &|path| path.ends_with("accounts/a.json") || path.to_str().unwrap().contains("_history") || path.ends_with("state"),
        &|_| false,
    ];
    for lost in losses {
        let folder = tempfile::tempdir().unwrap();
        let (root, cut) = (folder.path().join("store"), folder.path().join("cut"));
        let store = open(&root, true).await;
        set_up(&store).await;
        let (queue, mail) = (store.queue(), "mail".parse().unwrap());
        for n in 1..=2 {
            let batch = Batch::new()
                .merge(&"accounts".parse().unwrap(), "a", fields(json!({"cents": 100 - n})), Expect::Present)
                .merge(&"accounts".parse().unwrap(), "b", fields(json!({"cents": n})), Expect::Present)
                .put(&"transfers".parse().unwrap(), format!("t{n}"), fields(json!({"number": n})), Expect::Absent)
                .enqueue(&mail, NewMessage::new(format!("{n}")).dedup_id(format!("{n}")));
            store.records().commit(batch).await.unwrap();
        }
        let got = queue.receive(&mail, &Receive::default().visibility(Duration::from_secs(600))).await.unwrap();
        queue.delete(&mail, &[got[0].receipt.clone()]).await.unwrap();
        copy(&root, &cut, lost);
        for done in ["transfer1", "transfer2", "deleted"] {
            std::fs::write(cut.with_extension(done), "").unwrap();
        }
        other_boot(&cut).unwrap();
        check(&cut, &open(&cut, true).await).await;
    }
}

/// Makes the state one of before the machine was started.
fn other_boot(root: &Path) -> Result<(), Error> {
    let file = crate::state::StateFile::open(&root.join("_storage/state"))?;
    match file.try_read()? {
        Some(state) => file.write(&crate::state::State { boot: state.boot ^ 1, ..state }),
        None => Ok(()),
    }
}
