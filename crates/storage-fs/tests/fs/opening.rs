//! Opening folders, good and bad, and copying them.

use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::json;
use storage_core::{
    Batch, BlobBackend as _, Clock, Driver as _, DriverConfig, ErrorKind, Expect, PutOptions, RecordBackend as _, Result, fields,
};
use storage_fs::{FsDriver, FsOptions, FsStore};

use crate::{Fixture, blob, open};

async fn try_open(root: &Path, options: FsOptions) -> Result<FsStore> {
    FsStore::open(root, options, Clock::system()).await
}

#[tokio::test]
async fn what_is_no_store_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (root, part) in [(file.clone(), "there is a file"), (file.join("below"), "a part of the path")] {
        let error = try_open(&root, FsOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(part) && error.to_string().contains(root.to_str().unwrap()), "{error}");
    }
    let missing = folder.path().join("a/b");
    let careful = FsOptions { auto_create: false, ..FsOptions::default() };
    let error = try_open(&missing, careful).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && !missing.exists(), "{error}");
    try_open(&missing, FsOptions::default()).await.unwrap();
    try_open(&missing, careful).await.unwrap();
}

#[tokio::test]
async fn a_newer_format_is_left_alone() {
    let fixture = Fixture::new().await;
    let format = fixture.path("_storage/format.json");
    std::fs::write(&format, r#"{"format": 2, "about": "the future"}"#).unwrap();
    let error = try_open(fixture.folder.path(), FsOptions::default()).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Config && error.message().contains("newer version"), "{error}");
    std::fs::write(&format, "{").unwrap();
    assert_eq!(try_open(fixture.folder.path(), FsOptions::default()).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn the_driver_opens_what_configuration_names() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("my results");
    for url in
        [format!("fs://{}", root.display()), format!("file://{}", root.display()).replace(' ', "%20"), root.display().to_string()]
    {
        let backends = FsDriver.open(&DriverConfig::from_url(&url)).await.unwrap();
        let location = backends.records.unwrap().info().location.clone();
        assert_eq!(Path::new(&location), root.canonicalize().unwrap(), "{url}");
    }
    let mut config = DriverConfig::from_url("?fsync=false");
    config.url = None;
    config.options.insert("base_dir".into(), json!(root));
    let backends = FsDriver.open(&config).await.unwrap();
    assert!(!backends.records.unwrap().capabilities().durable && !backends.blobs.unwrap().capabilities().durable);
}

#[tokio::test]
async fn what_dead_writers_left_is_cleared_away() {
    let fixture = Fixture::new().await;
    let uploads = fixture.path("_storage/uploads");
    std::fs::create_dir_all(uploads.join("half-made-folder")).unwrap();
    let old = SystemTime::now() - Duration::from_secs(3600);
    for (name, time) in [("dead", old), ("living", old), ("young", SystemTime::now())] {
        let file = std::fs::File::create(uploads.join(name)).unwrap();
        file.set_modified(time).unwrap();
    }
    std::fs::File::open(uploads.join("half-made-folder")).unwrap().set_modified(old).unwrap();
    std::fs::write(fixture.path("_storage/tmp/7"), "half a record").unwrap();
    std::fs::create_dir_all(fixture.path("_storage/trash/x/y")).unwrap();
    let living = std::fs::File::open(uploads.join("living")).unwrap();
    living.lock().unwrap();
    open(fixture.folder.path()).await;
    let mut left: Vec<_> = std::fs::read_dir(&uploads).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["living", "young"]);
    assert!(!fixture.path("_storage/tmp/7").exists() && !fixture.path("_storage/trash").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_a_store_of_one_moment() {
    let fixture = Fixture::new().await;
    let (records, notes) = fixture.notes().await;
    let records = std::sync::Arc::new(records);
    let options = PutOptions::default().content_type("text/plain");
    fixture.store.blobs().put(&blob("a/b"), "hello".into(), &options).await.unwrap();
    let write = |n: u64| {
        let notes = &notes;
        ["a", "b"].iter().fold(Batch::new(), |batch, key| batch.put(notes, *key, fields(json!({"n": n})), Expect::Anything))
    };
    records.commit(write(0)).await.unwrap();
    let (writer, batches) = (std::sync::Arc::clone(&records), (1..300).map(write).collect::<Vec<_>>());
    let writing = tokio::spawn(async move {
        for batch in batches {
            writer.commit(batch).await.unwrap();
        }
    });
    let backups = tempfile::tempdir().unwrap();
    for n in 0..3 {
        let to = backups.path().join(format!("deep/{n}"));
        records.backup(&to).await.unwrap();
        assert_eq!(records.backup(&to).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
        let copy = open(&to).await;
        let found = copy.records().get(&notes, &["a".into(), "b".into()]).await.unwrap();
        let numbers: Vec<_> = found.into_iter().map(|record| record.unwrap().fields["n"].clone()).collect();
        assert_eq!(numbers[0], numbers[1], "half a batch");
        let head = copy.blobs().head(&blob("a/b")).await.unwrap();
        assert_eq!((head.size, head.attributes), (5, options.attributes.clone()));
        copy.records().commit(write(1000)).await.unwrap();
    }
    writing.await.unwrap();
    assert_eq!(std::fs::read_dir(fixture.path("_storage/snapshots")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(backups.path().join("deep")).unwrap().count(), 3);
}

#[tokio::test]
async fn own_backups_are_made_when_due_and_kept_in_number() {
    let folder = tempfile::tempdir().unwrap();
    let options = FsOptions { backups: 2, ..FsOptions::default() };
    let backups = folder.path().join("_storage/backups");
    let names = || {
        let mut names: Vec<_> =
            std::fs::read_dir(&backups).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for name in ["20200101T000000Z", "20200102T000000Z", "20200103T000000Z", "mine"] {
        std::fs::create_dir_all(backups.join(name)).unwrap();
    }
    try_open(folder.path(), options).await.unwrap();
    let made = names();
    assert_eq!((made.len(), made[0].as_str(), made[2].as_str()), (3, "20200103T000000Z", "mine"));
    assert!(backups.join(&made[1]).join("_storage/format.json").exists());
    try_open(folder.path(), options).await.unwrap();
    assert_eq!(names(), made, "a backup that was not due");
}
