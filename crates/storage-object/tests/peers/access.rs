//! Who may do what: conditions, signed URLs, keys, containers.

use std::time::{Duration, Instant};

use storage_core::{BlobAttributes, ETag, ErrorKind, PutMode, PutOptions, SignedAccess};
use uuid::Uuid;

use crate::common::{SECRET, Server};
use crate::curl;
use crate::house::{House, open, path};
use crate::python::{Put, put, with};

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) async fn what_a_peer_overwrote_is_not_overwritten(house: &House) {
    let blob = path("shared");
    let first = house.blobs.put(&blob, "ours").await.unwrap().etag.unwrap();
    let overwrite = |content: &str| put(&house.name("shared"), content.as_bytes(), &BlobAttributes::default());
    let second = house.peer.put_all(vec![overwrite("theirs")]).remove(0).etag();

    let update = |etag: &ETag| PutOptions::default().mode(PutMode::Update(etag.clone()));
    let error = house.blobs.put_with(&blob, "too late", &update(&first)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert_eq!(house.blobs.delete_if(&blob, &first).await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(house.blobs.get_text(&blob).await.unwrap(), "theirs");

    // The mark is one on both sides.
    let third = house.blobs.put_with(&blob, "ours again", &update(&ETag(second.clone()))).await.unwrap().etag.unwrap();
    assert_eq!(house.peer.put_all(vec![with(overwrite("too late"), "if_match", second)]), [Put::Refused(412)]);
    assert_eq!(house.peer.read(&[house.name("shared")])[0].etag, third.0);
    house.peer.put_all(vec![with(overwrite("theirs again"), "if_match", third.0)]).remove(0).etag();
    assert_eq!(house.blobs.get_text(&blob).await.unwrap(), "theirs again");
}

/// What a writer with a signed URL has to say beyond it.
fn headers(house: &House) -> &'static [&'static str] {
    match house.server {
        Server::Azurite => &["x-ms-blob-type: BlockBlob"],
        Server::SeaweedFs | Server::Moto => &[],
    }
}

pub(crate) async fn signed_urls_work_in_curl(house: &House) {
    if !curl::or_skip() {
        return;
    }
    for name in ["plain", "a b/100%+[x]~", "a%2Fb?c#d", "häuser/日本語."] {
        let blob = path(name);
        let url = house.blobs.signed_url(&blob, SignedAccess::Put, MINUTE).await.unwrap();
        let written = curl::put(url.expose(), headers(house), name.as_bytes());
        assert!(matches!(written.status, 200 | 201), "{name}: {written:?}");
        assert_eq!(house.blobs.get_text(&blob).await.unwrap(), name);

        let url = house.blobs.signed_url(&blob, SignedAccess::Get, MINUTE).await.unwrap();
        let read = curl::get(url.expose());
        assert_eq!((read.status, read.body.as_slice()), (200, name.as_bytes()), "{name}");
    }
}

pub(crate) async fn signed_urls_are_good_for_one_blob_and_a_time(house: &House) {
    if !curl::or_skip() {
        return;
    }
    let (one, two) = (path("one"), path("two"));
    for blob in [&one, &two] {
        house.blobs.put(blob, "to be seen").await.unwrap();
    }
    let url = house.blobs.signed_url(&one, SignedAccess::Get, MINUTE).await.unwrap();
    assert_eq!(curl::get(url.expose()).status, 200);
    let other = url.expose().replace("/one?", "/two?");
    assert_ne!(other, url.expose());
    let refused = curl::get(&other);
    assert_eq!(refused.status, 403, "{refused:?}");
    let refused = curl::put(url.expose(), headers(house), b"to be read only");
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(house.blobs.get_text(&one).await.unwrap(), "to be seen");

    let url = house.blobs.signed_url(&one, SignedAccess::Get, Duration::from_secs(1)).await.unwrap();
    let begin = Instant::now();
    while curl::get(url.expose()).status != 403 {
        assert!(begin.elapsed() < Duration::from_secs(10), "the URL is still good");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) async fn wrong_keys_are_told_without_them(house: &House) {
    let mut config = house.config(&format!("{}/{}", house.peer.container, house.prefix));
    // Base64, as Azure's keys are.
    let wrong = "d3Jvbmcgd3Jvbmcgd3Jvbmc=";
    let option = if matches!(house.server, Server::Azurite) { "account_key" } else { "secret_key" };
    config.options.insert(option.to_owned(), wrong.into());
    let blobs = open(house.server, &config).await.unwrap();
    let blob = path("forbidden");
    for error in [
        blobs.put(&blob, "x").await.unwrap_err(),
        blobs.get(&blob).await.unwrap_err(),
        blobs.head(&blob).await.unwrap_err(),
        blobs.delete(&blob).await.unwrap_err(),
        blobs.ping().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
        let said = format!("{error} {error:?} {blobs:?}");
        for secret in [wrong, SECRET] {
            assert!(!said.contains(secret), "a secret is told: {said}");
        }
    }
    assert!(!house.blobs.exists(&blob).await.unwrap());
}

pub(crate) async fn a_missing_container_is_told(house: &House) {
    let missing = format!("missing-{}", Uuid::new_v4());
    let mut config = house.config(&missing);
    config.auto_create = false;
    let error = open(house.server, &config).await.unwrap().ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.message().contains("no such bucket or container"), "{error}");
    assert!(error.to_string().contains(&missing), "{error}");
}
