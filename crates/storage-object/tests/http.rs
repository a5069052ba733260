//! WebDAV on Apache, beyond the suites: what a person does with a share, and what two writers do to each other.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{KEY, SECRET};
use futures::{StreamExt as _, TryStreamExt as _};
use storage_conformance::Place;
use storage_core::{
    BlobBody, BlobPath, BlobStore, Driver as _, DriverConfig, Error, ErrorKind, ListOptions, PutMode, PutOptions,
};
use storage_object::HttpDriver;

fn path(path: &str) -> BlobPath {
    BlobPath::new(path).unwrap()
}

async fn open(url: &str) -> storage_core::Result<BlobStore> {
    Ok(BlobStore::new(HttpDriver.open(&DriverConfig::from_url(url)).await?.blobs.unwrap()))
}

fn apache_or_skip() -> Option<String> {
    common::apache().map_err(|reason| storage_conformance::skip(&reason)).ok()
}

/// A folder of its own on the server, and its address.
async fn share() -> Option<(BlobStore, String)> {
    let server = apache_or_skip()?;
    let url = Place::unique_name(&format!("{server}/share/")).config.url.unwrap();
    Some((open(&url).await.unwrap(), url))
}

fn curl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut curl = Command::new("curl");
    let curl = curl.args(["--silent", "--show-error", "--fail", "--globoff", "--noproxy", "*"]).args(arguments);
    let mut curl = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("curl is there");
    curl.stdin.take().unwrap().write_all(input).unwrap();
    let mut output = Vec::new();
    curl.stdout.take().unwrap().read_to_end(&mut output).unwrap();
    assert!(curl.wait().unwrap().success(), "curl failed, see above");
    output
}

#[tokio::test]
async fn files_are_files_for_others() {
    let Some((blobs, url)) = share().await else { return };
    blobs.put(&path("a/b c/ü&.txt"), "ours").await.unwrap();
    assert_eq!(curl(&[&format!("{url}/a/b%20c/%C3%BC%26.txt")], b""), b"ours");
    assert_eq!(blobs.uri(&path("a/b c/ü&.txt")).unwrap(), format!("{url}/a/b%20c/%C3%BC%26.txt"));
    curl(&["--upload-file", "-", &format!("{url}/a/theirs%23")], b"theirs");
    assert_eq!(blobs.get_text(&path("a/theirs#")).await.unwrap(), "theirs");
    let all: Vec<_> = blobs.list_all(None).map_ok(|meta| (meta.path.to_string(), meta.size)).try_collect().await.unwrap();
    assert_eq!(all, [("a/b c/ü&.txt".to_owned(), 4), ("a/theirs#".to_owned(), 6)]);
}

#[tokio::test]
async fn credentials_are_asked_for_and_not_shown() {
    let Some(server) = apache_or_skip() else { return };
    let url = format!("{server}/private/{}", uuid_like());
    let good = open(&format!("{url}?username={KEY}&password={SECRET}")).await.unwrap();
    good.put(&path("a"), "x").await.unwrap();
    assert!(!format!("{good:?}").contains(SECRET));
    for wrong in ["", "?username=storagetest&password=hunter2", "?token=hunter2"] {
        let blobs = open(&format!("{url}{wrong}")).await.unwrap();
        let large = BlobBody::Stream {
            stream: futures::stream::iter((0..3).map(|_| Ok(Bytes::from(vec![0; 1 << 20])))).boxed(),
            size: None,
        };
        let errors = [
            blobs.get(&path("a")).await.unwrap_err(),
            blobs.head(&path("a")).await.unwrap_err(),
            blobs.put(&path("a"), "y").await.unwrap_err(),
            blobs.put(&path("a"), large).await.unwrap_err(),
            blobs.delete(&path("a")).await.unwrap_err(),
            blobs.ping().await.unwrap_err(),
            blobs.list_all(None).try_collect::<Vec<_>>().await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }
    assert_eq!(good.get_text(&path("a")).await.unwrap(), "x");
}

fn uuid_like() -> String {
    Place::unique_name("").config.url.unwrap()
}

#[tokio::test]
async fn bad_configuration_is_told() {
    for (url, hint) in [
        ("https://", "https://host/folder"),
        ("https://me:hunter2@host/x", "`username`"),
        ("https://host/a/../b", "`..`"),
        ("https://host?usrname=x", "did you mean `username`"),
        ("https://host?username=x", "`password`"),
        ("https://host?password=hunter2", "`username`"),
        ("https://host?token=hunter2&username=x&password=y", "give one"),
        ("http://host?username=x&password=hunter2", "TLS"),
        ("http://host?allow_http=false", "allow_http"),
    ] {
        let error = open(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{url}: {error}");
        assert!(error.message().contains(hint), "{url}: {error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn what_is_no_share_is_told() {
    let Some((blobs, url)) = share().await else { return };
    blobs.put(&path("file"), "x").await.unwrap();
    let on_a_file = open(&format!("{url}/file/below")).await;
    let told = match on_a_file {
        Ok(blobs) => blobs.put(&path("a"), "y").await.unwrap_err(),
        Err(error) => error,
    };
    assert!(matches!(told.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound | ErrorKind::Conflict), "{told}");
    let mut config = DriverConfig::from_url(&format!("{url}/missing"));
    config.auto_create = false;
    let missing = BlobStore::new(HttpDriver.open(&config).await.unwrap().blobs.unwrap());
    assert_eq!(missing.ping().await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(blobs.get_text(&path("file")).await.unwrap(), "x");
}

/// Readers see an old state or a new one while a file is written over and over: in one request, and in pieces.
#[tokio::test(flavor = "multi_thread")]
async fn readers_see_whole_states() {
    let Some((blobs, _)) = share().await else { return };
    let at = path("folder/state");
    let sizes = [10_usize, 300_000, 3 << 20];
    blobs.put(&at, vec![0; sizes[0]]).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let (blobs, at, done) = (blobs.clone(), at.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let mut reads = 0;
                while !done.load(Ordering::Relaxed) {
                    let bytes = blobs.get(&at).await.unwrap();
                    let first = bytes[0];
                    assert!(bytes.iter().all(|byte| *byte == first), "a mixture of {} bytes", bytes.len());
                    assert_eq!(bytes.len(), sizes[usize::from(first) % sizes.len()]);
                    reads += 1;
                }
                reads
            })
        })
        .collect();
    for n in 0..90_u8 {
        let bytes = Bytes::from(vec![n; sizes[usize::from(n) % sizes.len()]]);
        blobs.put(&at, bytes).await.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.await.unwrap() > 5, "the reader read too little to prove anything");
    }
}

/// A folder is replaced by a blob only when it is empty, and nobody's blobs are lost over it.
#[tokio::test(flavor = "multi_thread")]
async fn folders_with_blobs_are_not_replaced() {
    let Some((blobs, _)) = share().await else { return };
    blobs.put(&path("a/b/c"), "kept").await.unwrap();
    let large = || BlobBody::Stream {
        stream: futures::stream::iter((0..3).map(|_| Ok(Bytes::from(vec![7; 1 << 20])))).boxed(),
        size: None,
    };
    for at in ["a", "a/b"] {
        let errors: [Error; 2] = [blobs.put(&path(at), "x").await.unwrap_err(), blobs.put(&path(at), large()).await.unwrap_err()];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        }
        assert!(!blobs.delete(&path(at)).await.unwrap(), "a folder is no blob");
    }
    for body in [BlobBody::from("x"), large()] {
        let error = blobs.put(&path("a/b/c/d"), body).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert!(error.message().contains("`a/b/c`"), "{error}");
    }
    assert_eq!(blobs.get_text(&path("a/b/c")).await.unwrap(), "kept");
    blobs.delete(&path("a/b/c")).await.unwrap();
    blobs.put(&path("a"), large()).await.unwrap();
    assert_eq!(blobs.head(&path("a")).await.unwrap().size, 3 << 20);
    let shown: Vec<_> =
        blobs.list(&ListOptions::default().one_level()).map_ok(|entry| entry.sort_key()).try_collect().await.unwrap();
    assert_eq!(shown, ["a"]);
}

#[tokio::test]
async fn conditions_and_attributes_are_refused() {
    let Some((blobs, _)) = share().await else { return };
    let create = PutOptions::default().mode(PutMode::Create);
    for options in [create, PutOptions::default().content_type("text/plain")] {
        assert_eq!(blobs.put_with(&path("a"), "x", &options).await.unwrap_err().kind(), ErrorKind::Unsupported);
    }
    for name in [".DAV/x", "x/.davfs.tmp12"] {
        assert_eq!(blobs.put(&path(name), "x").await.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    assert!(!blobs.exists(&path("a")).await.unwrap());
}

/// A server that stops reading in the middle of an upload ends it after `timeout`, however slow the source may be before.
#[tokio::test]
async fn a_silent_server_ends_an_upload() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    // Answers a look, as if nothing were there; makes folders; and then takes the head of a PUT and no more.
    let silent = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut kept = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 4096];
            let read = stream.read(&mut head).await.unwrap();
            let answer: &[u8] = match &head[..read] {
                head if head.starts_with(b"PROPFIND") => {
                    b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                }
                head if head.starts_with(b"MKCOL") => b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                _ => b"",
            };
            stream.write_all(answer).await.unwrap();
            kept.push(stream);
        }
    });
    let mut config = DriverConfig::from_url(&format!("http://{address}/x"));
    config.timeout = Some(Duration::from_millis(700));
    let blobs = BlobStore::new(HttpDriver.open(&config).await.unwrap().blobs.unwrap());
    // Slower than the limit before the first byte: that is no silence of the server's.
    let slow = futures::stream::once(async {
        tokio::time::sleep(Duration::from_millis(1500)).await;
        Ok(Bytes::from(vec![1; 64 << 20]))
    });
    let begin = Instant::now();
    let error = blobs.put(&path("a"), BlobBody::Stream { stream: slow.boxed(), size: None }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!((Duration::from_millis(2200)..Duration::from_secs(10)).contains(&begin.elapsed()), "{:?}", begin.elapsed());
    silent.abort();
}
