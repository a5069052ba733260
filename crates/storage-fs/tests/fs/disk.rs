//! Disks that are full, and folders that can't be written.

use std::path::Path;
use std::process::Command;

use serde_json::json;
use storage_core::{
    Batch, BlobBackend as _, BlobBody, ErrorKind, Expect, GetOptions, NewMessage, PutOptions, Query, QueueBackend as _,
    QueueSpec, Receive, RecordBackend as _, TableSchema, fields,
};

use crate::{blob, open};

/// A small disk of its own, where this may be had.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(folder.path()).output();
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("skipped: only root may mount a small disk");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_of_and_costs_nothing_that_was_there() {
    let Some(disk) = SmallDisk::new("3m") else { return };
    let root = disk.path().join("store");
    let store = open(&root).await;
    let (records, queue, blobs) = (store.records(), store.queue(), store.blobs());
    records.create_table(&TableSchema::builder("t").keep_undeclared().build().unwrap()).await.unwrap();
    let (table, mail) = ("t".parse().unwrap(), "mail".parse().unwrap());
    queue.create_queue(&mail, &QueueSpec::default()).await.unwrap();
    let padding = "x".repeat(20_000);
    let batch = |n: usize| {
        let pair = ["a", "b"].into_iter().fold(Batch::new(), |b, half| {
            b.put(&table, format!("{n}-{half}"), fields(json!({"padding": padding})), Expect::Absent)
        });
        pair.enqueue(&mail, NewMessage::new(n.to_string()))
    };
    let mut stored = 0;
    let error = loop {
        match records.commit(batch(stored)).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(stored > 5, "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("disk is full") && !error.is_retryable(), "{error}");
    // Whatever does not fit leaves nothing half done, wherever the space runs out.
    for filler in (0..40).map(|n| disk.path().join(format!("filler{n}"))) {
        let filled = std::fs::write(&filler, vec![0; 4096]);
        let refused = records.commit(batch(stored)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
        if filled.is_err() {
            break;
        }
    }
    assert_eq!(records.count(&Query::table("t").unwrap()).await.unwrap(), 2 * stored as u64);
    assert_eq!(queue.stats(&mail).await.unwrap().ready.value(), Some(stored as u64));
    let refused = blobs.put(&blob("a"), "y".repeat(1 << 20).into(), &PutOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    let stream = futures::StreamExt::boxed(futures::stream::repeat_with(|| Ok("y".repeat(100_000).into())));
    let refused = blobs.put(&blob("a"), BlobBody::Stream { stream, size: None }, &PutOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    assert_eq!(blobs.get(&blob("a"), &GetOptions::default()).await.unwrap_err().kind(), ErrorKind::NotFound);
    for folder in ["_storage/tmp", "_storage/uploads"] {
        assert_eq!(std::fs::read_dir(root.join(folder)).unwrap().count(), 0, "{folder} is not empty");
    }

    // A full store can be cleared: by the store itself.
    let drop_one = Batch::new().delete(&table, "0-a", Expect::Present).delete(&table, "0-b", Expect::Present);
    records.commit(drop_one).await.unwrap();
    let got = queue.receive(&mail, &Receive::default()).await.unwrap();
    queue.delete(&mail, &[got[0].receipt.clone()]).await.unwrap().remove(0).unwrap();
    records.commit(Batch::new().put(&table, "small", fields(json!({})), Expect::Absent)).await.unwrap();
    drop(store);
    let again = open(&root).await;
    assert_eq!(again.records().count(&Query::table("t").unwrap()).await.unwrap(), 2 * stored as u64 - 1);
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_that_can_not_be_written_is_told_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    std::fs::create_dir(&root).unwrap();
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o500)).unwrap();
    if std::fs::write(root.join("probe"), "").is_ok() {
        eprintln!("skipped: root may write anywhere");
        return;
    }
    let opened = storage_fs::FsStore::open(&root, storage_fs::FsOptions::default(), storage_core::Clock::system()).await;
    let error = opened.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(error.to_string().contains(root.to_str().unwrap()), "{error}");
}
