//! What goes wrong, and what is said then: on real servers, and on answers that no server gives when asked to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::io::{Read as _, Write as _};
use std::time::Duration;

use bytes::Bytes;
use common::{KEY, SECRET, Server, s3_options};
use futures::StreamExt as _;
use storage_conformance::Place;
use storage_core::{BlobBody, BlobPath, BlobStore, Driver, DriverConfig, Error, ErrorKind, PutMode, PutOptions};
use storage_object::{AzureDriver, GcsDriver, S3Driver};

fn path(path: &str) -> BlobPath {
    BlobPath::new(path).unwrap()
}

async fn open(driver: &dyn Driver, url: &str) -> storage_core::Result<BlobStore> {
    open_as(driver, &DriverConfig::from_url(url)).await
}

async fn open_as(driver: &dyn Driver, config: &DriverConfig) -> storage_core::Result<BlobStore> {
    driver.check_options(config)?;
    Ok(BlobStore::new(driver.open(config).await?.blobs.unwrap()))
}

fn no_secret(error: &Error) {
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains("hunter2") && !shown.contains(SECRET), "{shown}");
}

#[tokio::test]
async fn options_are_checked() {
    let drivers: [(&dyn Driver, &str, &str); 14] = [
        (&S3Driver, "s3://bucket?regoin=x", "did you mean `region`"),
        (&S3Driver, "s3://bucket?access_key=hunter2", "secret_key"),
        (&S3Driver, "s3://bucket?secret_key=hunter2", "access_key"),
        (&S3Driver, "s3://?region=x", "bucket"),
        (&S3Driver, "s3://bucket/a/../b", "`..`"),
        (&S3Driver, "s3://bucket?part_mib=1", "part_mib"),
        (&S3Driver, "s3://bucket?concurrency=0", "concurrency"),
        (&S3Driver, "s3://bucket?endpoint=localhost:9000", "endpoint"),
        (&S3Driver, "s3://bucket?endpoint=http://me:hunter2@host", "endpoint"),
        (&S3Driver, "s3://bucket?endpoint=http://host&allow_http=false", "allow_http"),
        (&AzureDriver, "az://container?account=a&account_key=hunter2!", "account_key"),
        (&AzureDriver, "az://container?connection_string=AccountNam", "connection string"),
        (&AzureDriver, "abfss://container:hunter2@host", "container@account"),
        (&GcsDriver, "gs://bucket?service_account=/nowhere/hunter2.json", "service_account"),
    ];
    for (driver, url, hint) in drivers {
        let error = open(driver, url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}: {error}");
        assert!(error.message().contains(hint), "{url}: {error}");
        no_secret(&error);
    }
}

#[tokio::test]
async fn wrong_keys_are_unauthorized() {
    let Some(endpoint) = Server::SeaweedFs.or_skip() else { return };
    for (key, secret) in [(KEY, "hunter2"), ("nobody", "hunter2")] {
        let store =
            open(&S3Driver, &format!("s3://bucket?endpoint={endpoint}&access_key={key}&secret_key={secret}")).await.unwrap();
        for error in [
            store.put(&path("a"), "x").await.unwrap_err(),
            store.get(&path("a")).await.unwrap_err(),
            store.head(&path("a")).await.unwrap_err(),
            store.ping().await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
            assert!(error.message().contains("credentials") && !error.is_retryable(), "{error}");
            no_secret(&error);
        }
    }
    let Some(endpoint) = Server::Azurite.or_skip() else { return };
    let store =
        open(&AzureDriver, &format!("az://wrong-keys?emulator=true&account_key=aHVudGVyMg==&endpoint={endpoint}")).await.unwrap();
    let error = store.put(&path("a"), "x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
}

#[tokio::test]
async fn a_missing_bucket_is_told_as_such() {
    let s3 = |endpoint: String| format!("s3://nobody-made-this?{}", s3_options(&endpoint));
    let azure = |endpoint: String| format!("az://nobody-made-this?emulator=true&endpoint={endpoint}");
    let places: [(&dyn Driver, Option<String>, bool); 3] = [
        (&S3Driver, Server::SeaweedFs.or_skip().map(s3), false),
        (&S3Driver, Server::Moto.or_skip().map(s3), true),
        (&AzureDriver, Server::Azurite.or_skip().map(azure), true),
    ];
    for (driver, url, bucket_first) in places {
        let Some(url) = url else { continue };
        let config = DriverConfig { auto_create: false, ..DriverConfig::from_url(&url) };
        let store = open_as(driver, &config).await.unwrap();
        for error in [store.ping().await.unwrap_err(), store.put(&path("a"), "x").await.unwrap_err()] {
            assert_eq!(error.kind(), ErrorKind::NotFound, "{url}: {error}");
            assert!(error.message().contains("bucket"), "{url}: {error}");
        }
        // A guarded write must not take a missing bucket for a changed blob. (SeaweedFS looks at the condition first.)
        if !bucket_first {
            continue;
        }
        let guarded = PutOptions::default().mode(PutMode::Update(storage_core::ETag("x".into())));
        let error = store.put_with(&path("a"), "x", &guarded).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{url}: {error}");
    }
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_no_parts() {
    for server in [Server::SeaweedFs, Server::Moto] {
        let Some(endpoint) = server.or_skip() else { return };
        let url = Place::unique_name("s3://orphans").config.url.unwrap();
        let store = open(&S3Driver, &format!("{url}?{}&part_mib=5", s3_options(&endpoint))).await.unwrap();
        let piece = || Ok(Bytes::from(vec![7; 6 << 20]));
        let failing = futures::stream::iter([piece(), piece(), piece(), Err(Error::unavailable("the source broke off"))]);
        let body = BlobBody::Stream { stream: failing.boxed(), size: None };
        assert_eq!(store.put(&path("a"), body).await.unwrap_err().kind(), ErrorKind::Unavailable);
        // And one whose future is dropped in the middle.
        let (reached, middle) = tokio::sync::oneshot::channel();
        let stuck = futures::stream::once(async move {
            reached.send(()).unwrap();
            futures::future::pending().await
        });
        let stream = futures::stream::iter([piece(), piece(), piece()]).chain(stuck).boxed();
        let at = path("b");
        tokio::select! {
            outcome = store.put(&at, BlobBody::Stream { stream, size: None }) => panic!("it never ends, but: {outcome:?}"),
            middle = middle => middle.unwrap(),
        }
        let bucket = url.trim_start_matches("s3://").to_owned();
        // Aborts run on their own: they are asked about until they are through.
        let mut left = String::new();
        for _ in 0..100 {
            left = common::python(UPLOADS, &[&endpoint, &bucket]).await;
            if left == "0" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(left, "0", "{server:?}: unfinished uploads");
    }
}

const UPLOADS: &str = r#"
import sys, boto3
s3 = boto3.client("s3", endpoint_url=sys.argv[1], aws_access_key_id="storagetest", aws_secret_access_key="storagetestsecret", region_name="us-east-1")
print(len(s3.list_multipart_uploads(Bucket=sys.argv[2]).get("Uploads", [])), end="")
"#;

/// A server that gives the same answers, one to each request. Real services don't answer so when asked to.
fn answering(answers: &'static [&'static str]) -> String {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            // Bodies of these tests come with what is before them, or don't matter.
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                let read = stream.read(&mut piece).unwrap();
                request.extend_from_slice(&piece[..read]);
            }
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    address
}

async fn answered(answer: &'static [&'static str]) -> Error {
    let url = format!("s3://bucket?{}", s3_options(&answering(answer)));
    let config = DriverConfig { auto_create: false, ..DriverConfig::from_url(&url) };
    open_as(&S3Driver, &config).await.unwrap().get(&path("a")).await.unwrap_err()
}

#[tokio::test]
async fn a_service_that_asks_to_wait_is_heard_and_not_asked_again() {
    // One answer alone: a second request would find nobody.
    let error =
        answered(&["HTTP/1.1 503 Slow Down\r\nRetry-After: 7\r\nContent-Length: 34\r\n\r\n<Error><Code>SlowDown</Code></Error>"])
            .await;
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Throttled, Some(Duration::from_secs(7))), "{error}");
    assert!(error.is_retryable());
    let error = answered(&["HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"]).await;
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Throttled, Some(Duration::from_secs(1))), "{error}");
}

#[tokio::test]
async fn who_reads_gets_over_closed_connections_and_who_writes_is_told() {
    const CLOSED: &str = "";
    const FOUND: &str =
        "HTTP/1.1 200 OK\r\nETag: \"1\"\r\nLast-Modified: Fri, 27 Nov 2026 20:00:00 GMT\r\nContent-Length: 5\r\n\r\nhello";
    let store = async |answers| {
        let url = format!("s3://bucket?{}", s3_options(&answering(answers)));
        open_as(&S3Driver, &DriverConfig { auto_create: false, ..DriverConfig::from_url(&url) }).await.unwrap()
    };
    let read = store(&[CLOSED, CLOSED, FOUND]).await.get(&path("a")).await.unwrap();
    assert_eq!(read, Bytes::from_static(b"hello"));
    // Not for ever.
    let error = store(&[CLOSED; 5]).await.get(&path("a")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
    // It may have been done: the second connection, which nobody needs, would be answered.
    let error = store(&[CLOSED, FOUND]).await.put(&path("a"), "x").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_wrong_clock_is_told_as_such() {
    let error =
        answered(&["HTTP/1.1 403 Forbidden\r\nContent-Length: 48\r\n\r\n<Error><Code>RequestTimeTooSkewed</Code></Error>"]).await;
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert!(error.message().contains("clock"), "{error}");
}

#[tokio::test]
async fn a_silent_service_is_a_timeout() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("s3://bucket?{}", s3_options(&format!("http://{}", listener.local_addr().unwrap())));
    let config = DriverConfig { auto_create: false, timeout: Some(Duration::from_millis(300)), ..DriverConfig::from_url(&url) };
    let error = open_as(&S3Driver, &config).await.unwrap().get(&path("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

#[tokio::test]
async fn a_download_that_breaks_off_fails() {
    let url =
        format!("s3://bucket?{}", s3_options(&answering(&["HTTP/1.1 200 OK\r\nETag: \"x\"\r\nContent-Length: 10\r\n\r\nhalf"])));
    let config = DriverConfig { auto_create: false, ..DriverConfig::from_url(&url) };
    let error = open_as(&S3Driver, &config).await.unwrap().get(&path("a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}
