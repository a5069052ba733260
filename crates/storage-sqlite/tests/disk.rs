//! Disks that are full or can't be written. Needs the right to mount a file system.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Opened, config, number, schema, table};
use storage_core::{Batch, ErrorKind, Expect, Write};
use storage_sqlite::SqliteStore;
use tempfile::TempDir;

/// A small file system of its own.
struct Disk(TempDir);

impl Disk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"], folder.path());
        mounted.then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn mount(args: &[&str], folder: &Path) -> bool {
    let output = Command::new("mount").args(args).arg(folder).output();
    output.is_ok_and(|output| output.status.success())
}

fn skip() {
    storage_conformance::skip("mounting a file system takes more rights than this process has");
}

fn batch(round: i64) -> Batch {
    let put = |n| Write::Put {
        table: table(),
        key: format!("{round}-{n}").into(),
        fields: number(n),
        expect: Expect::Absent,
        expires_at: None,
    };
    (0..500_i64).map(put).collect()
}

#[tokio::test]
async fn a_full_disk_fails_clearly_and_loses_nothing() {
    let Some(disk) = Disk::mount("3m") else { return skip() };
    let filler = disk.path().join("filler");
    let opened = Opened::new(&config(&disk.path().join("t.db"))).await.unwrap();
    opened.records.create_table(&schema()).await.unwrap();
    let mut written = 0;
    let error = loop {
        match opened.records.commit(batch(written)).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
        assert!(written < 1_000, "a disk of 3 MB takes more than it can hold");
    };
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(!error.is_retryable() && error.message().contains("disk"), "{error:?}");
    let count = || async { opened.records.count(&storage_core::Query::table("t").unwrap()).await.unwrap() };
    let whole = u64::try_from(written).unwrap() * 500;
    assert_eq!(count().await, whole, "what failed left nothing, what was answered is there");
    // With room again it goes on.
    let _ = std::fs::remove_file(&filler);
    assert!(mount(&["-o", "remount,size=20m"], disk.path()));
    opened.records.commit(batch(written)).await.unwrap();
    assert_eq!(count().await, whole + 500);
    opened.close().await;
}

#[tokio::test]
async fn a_file_system_that_is_read_only_is_named_as_the_cause() {
    let Some(disk) = Disk::mount("5m") else { return skip() };
    let path = disk.path().join("t.db");
    let opened = Opened::new(&config(&path)).await.unwrap();
    opened.records.create_table(&schema()).await.unwrap();
    opened.close().await;
    if !mount(&["-o", "remount,ro"], disk.path()) {
        return skip();
    }
    let error = SqliteStore::open(&config(&path)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error:?}");
    let missing = SqliteStore::open(&config(&disk.path().join("sub/new.db"))).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Unauthorized, "{missing:?}");
    assert!(missing.message().contains("read-only"), "{missing:?}");
}
