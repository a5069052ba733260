//! object_store's own integration tests, against our view of files, of memory and of S3.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::Arc;

use common::{Server, s3_options};
use futures::TryStreamExt as _;
use object_store::integration;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResultPayload, MultipartUpload as _, ObjectStore, ObjectStoreExt as _};
use storage_conformance::Place;
use storage_core::{BlobStore, Driver, DriverConfig};
use storage_object::{ObjectStoreView, S3Driver};

async fn view(driver: &dyn Driver, config: &DriverConfig) -> ObjectStoreView {
    let backends = driver.open(config).await.unwrap();
    ObjectStoreView::new(BlobStore::new(backends.blobs.unwrap()))
}

/// All of them, one after the other, each on what the one before left (they clean up).
async fn all(store: ObjectStoreView) {
    integration::put_get_delete_list(&store).await;
    integration::put_get_attributes(&store).await;
    integration::get_opts(&store).await;
    store.delete(&Path::from("test")).await.unwrap();
    store.delete(&Path::from("attributes")).await.unwrap();
    integration::stream_get(&store).await;
    integration::list_uses_directories_correctly(&store).await;
    integration::list_with_delimiter(&store).await;
    integration::list_with_offset_exclusivity(&store).await;
    integration::rename_and_copy(&store).await;
    integration::copy_if_not_exists(&store).await;
    integration::copy_rename_nonexistent_object(&store).await;
    integration::get_nonexistent_object(&store, None).await.unwrap_err();
    integration::multipart_race_condition(&store, true).await;
    integration::multipart_out_of_order(&store).await;
    integration::put_opts(&store, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_passes_object_stores_own_tests() {
    all(view(&storage_memory::MemoryDriver, &Place::unique_name("memory://").config).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_pass_object_stores_own_tests() {
    let place = files();
    all(view(&storage_fs::FsDriver, &place.config).await).await;
}

fn files() -> Place {
    Place::in_folder(|folder| format!("fs://{}", folder.join("store").display())).unwrap()
}

/// Engines read a file by themselves: a whole one from where it stands, a part from the range's first byte.
#[tokio::test]
async fn local_files_are_answered_as_files() {
    let place = files();
    let store = view(&storage_fs::FsDriver, &place.config).await;
    let path = Path::from("large");
    let content: Vec<u8> = (0..=250).cycle().take(3 << 20).collect();
    store.put(&path, content.clone().into()).await.unwrap();
    let ranges = [
        (None, 0..3 << 20),
        (Some(GetRange::Bounded(5..2 << 20)), 5..2 << 20),
        (Some(GetRange::Bounded(1 << 20..9 << 20)), 1 << 20..3 << 20),
        (Some(GetRange::Offset(7)), 7..3 << 20),
        (Some(GetRange::Suffix(1 << 20)), 2 << 20..3 << 20),
    ];
    for (range, expected) in ranges {
        let get = || store.get_opts(&path, GetOptions { range: range.clone(), ..GetOptions::default() });
        let expected_bytes = &content[expected.start..expected.end];
        let answer = get().await.unwrap();
        assert_eq!((answer.range.clone(), answer.meta.size), (expected.start as u64..expected.end as u64, 3 << 20), "{range:?}");
        let GetResultPayload::File(mut file, _) = answer.payload else { panic!("{range:?}: no file") };
        // What is read is what was there when it was opened.
        store.put(&path, vec![0; 3 << 20].into()).await.unwrap();
        if range.is_some() {
            file.seek(SeekFrom::Start(answer.range.start)).unwrap();
        }
        let mut read = Vec::new();
        file.take(answer.range.end - answer.range.start).read_to_end(&mut read).unwrap();
        assert!(read == expected_bytes, "{range:?}");
        store.put(&path, content.clone().into()).await.unwrap();
        assert!(get().await.unwrap().bytes().await.unwrap() == expected_bytes, "{range:?}");
        let pieces: Vec<_> = get().await.unwrap().into_stream().try_collect().await.unwrap();
        assert!(pieces.concat() == expected_bytes, "{range:?}");
    }
    let ranges = [0..10, 1 << 20..2 << 20, (3 << 20) - 1..3 << 20];
    let asked = ranges.clone().map(|range: std::ops::Range<usize>| range.start as u64..range.end as u64);
    for (bytes, range) in store.get_ranges(&path, &asked).await.unwrap().iter().zip(ranges) {
        assert!(*bytes == content[range.clone()], "{range:?}");
    }
}

async fn on_s3(server: Server, options: &str) {
    let Some(endpoint) = server.or_skip() else { return };
    let url = Place::unique_name("s3://view").config.url.unwrap();
    let config = DriverConfig::from_url(&format!("{url}?{}{options}", s3_options(&endpoint)));
    all(view(&S3Driver, &config).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn seaweedfs_passes_object_stores_own_tests() {
    on_s3(Server::SeaweedFs, "&dialect=seaweedfs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moto_passes_object_stores_own_tests() {
    on_s3(Server::Moto, "").await;
}

#[tokio::test]
async fn an_upload_that_is_given_up_writes_nothing() {
    let store = view(&storage_memory::MemoryDriver, &Place::unique_name("memory://").config).await;
    let path = Path::from("a");
    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part("some".into()).await.unwrap();
    upload.abort().await.unwrap();
    assert!(matches!(upload.complete().await, Err(object_store::Error::Generic { .. })));
    let mut upload = store.put_multipart(&path).await.unwrap();
    // A part that is never written: its future is dropped.
    drop(upload.put_part("never".into()));
    upload.put_part("second".into()).await.unwrap();
    upload.complete().await.unwrap_err();
    let mut upload = store.put_multipart(&path).await.unwrap();
    upload.put_part("dropped".into()).await.unwrap();
    drop(upload);
    assert!(matches!(store.head(&path).await, Err(object_store::Error::NotFound { .. })));
}

#[tokio::test]
async fn what_the_trait_lacks_is_not_implemented() {
    let store: Arc<dyn ObjectStore> =
        Arc::new(view(&storage_memory::MemoryDriver, &Place::unique_name("memory://").config).await);
    let path = Path::from("a");
    let mut tags = object_store::TagSet::default();
    tags.push("k", "v");
    let options = object_store::PutOptions { tags, ..Default::default() };
    let refused = store.put_opts(&path, "x".into(), options).await;
    assert!(matches!(refused, Err(object_store::Error::NotImplemented { .. })));
    store.put(&path, "x".into()).await.unwrap();
    let versioned = GetOptions::new().with_version(Some("1".to_owned()));
    assert!(matches!(store.get_opts(&path, versioned).await, Err(object_store::Error::NotImplemented { .. })));
}
