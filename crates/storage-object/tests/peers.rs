//! The services' own clients read what we wrote, and the other way round; signed URLs work in plain curl.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Server, python, s3_options};
use futures::TryStreamExt as _;
use storage_conformance::Place;
use storage_core::{BlobBody, BlobPath, BlobStore, Driver, DriverConfig, PutOptions, SignedAccess};
use storage_object::{AzureDriver, S3Driver};

/// Names that encodings trip over.
const ODD: [&str; 7] =
    ["plain.txt", "a b/c+d.txt", "per%cent/%2F", "ünï/中文 😀", "q?x=1&y#z", "tilde~/(paren)'s", "dots../end."];

async fn open(driver: &dyn Driver, url: &str) -> BlobStore {
    BlobStore::new(driver.open(&DriverConfig::from_url(url)).await.unwrap().blobs.unwrap())
}

/// Writes blobs of odd names, one in parts, and one with attributes; then lets `peer` check them and write back.
async fn exchange(store: &BlobStore, peer: &str, before: &[&str], after: &[&str]) {
    for name in ODD {
        store.put(&BlobPath::new(name).unwrap(), name.to_owned()).await.unwrap();
    }
    let large = Bytes::from((0..12_000_000_u32).map(|n| (n % 251) as u8).collect::<Vec<u8>>());
    let pieces = futures::stream::iter(large.chunks(1 << 20).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>());
    let options = PutOptions::default().content_type("text/x-test").metadata("owner", "us");
    store
        .put_with(&BlobPath::new("large").unwrap(), BlobBody::Stream { stream: Box::pin(pieces), size: None }, &options)
        .await
        .unwrap();
    let names = serde_json::to_string(&ODD).unwrap();
    let arguments = [before, &[&names], after].concat();
    assert_eq!(python(peer, &arguments).await, "ok");
    // What the peer wrote.
    let mut found: Vec<String> = store.list_all(None).map_ok(|meta| meta.path.as_str().to_owned()).try_collect().await.unwrap();
    found.retain(|path| path.starts_with("theirs/"));
    let mut expected: Vec<String> = ODD.iter().map(|name| format!("theirs/{name}")).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    for name in ODD {
        let at = BlobPath::new(format!("theirs/{name}")).unwrap();
        assert_eq!(store.get_text(&at).await.unwrap(), format!("theirs {name}"));
        let attributes = store.head(&at).await.unwrap().attributes;
        assert_eq!(attributes.content_type.as_deref(), Some("text/x-theirs"));
        assert_eq!(attributes.metadata["owner"], "them");
    }
}

const BOTO: &str = r#"
import json, sys, boto3
endpoint, bucket, names = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
s3 = boto3.client("s3", endpoint_url=endpoint, aws_access_key_id="storagetest", aws_secret_access_key="storagetestsecret", region_name="us-east-1")
listed = {o["Key"] for o in s3.list_objects_v2(Bucket=bucket)["Contents"]}
assert listed == {"in/" + n for n in names + ["large"]}, listed
for n in names:
    assert s3.get_object(Bucket=bucket, Key="in/" + n)["Body"].read().decode() == n
large = s3.get_object(Bucket=bucket, Key="in/large")
assert large["ContentType"] == "text/x-test" and large["Metadata"] == {"owner": "us"}, large
assert large["Body"].read() == bytes(n % 251 for n in range(12_000_000))
for n in names:
    s3.put_object(Bucket=bucket, Key="in/theirs/" + n, Body=("theirs " + n).encode(), ContentType="text/x-theirs", Metadata={"owner": "them"})
# Keys that are no paths of ours: they must not break a listing.
for odd in json.loads(sys.argv[4]):
    s3.put_object(Bucket=bucket, Key=odd, Body=b"")
print("ok", end="")
"#;

/// `foreign`: keys for the peer to write that are no paths of ours.
async fn boto(server: Server, options: &str, foreign: &[&str]) {
    let Some(endpoint) = server.or_skip() else { return };
    let url = Place::unique_name("s3://boto").config.url.unwrap();
    let store = open(&S3Driver, &format!("{url}/in?{}{options}", s3_options(&endpoint))).await;
    let foreign = serde_json::to_string(foreign).unwrap();
    exchange(&store, BOTO, &[&endpoint, url.trim_start_matches("s3://")], &[&foreign]).await;
    signed_urls_work_in_curl(&store, &[]).await;
}

#[tokio::test]
async fn boto3_and_we_understand_each_other_on_moto() {
    boto(Server::Moto, "", &["in/theirs//double", "in/folder/"]).await;
}

#[tokio::test]
async fn boto3_and_we_understand_each_other_on_seaweedfs() {
    // Two slashes are one there.
    boto(Server::SeaweedFs, "&dialect=seaweedfs", &["in/folder/"]).await;
}

const AZURE: &str = r#"
import json, sys
from azure.storage.blob import BlobServiceClient, ContentSettings
endpoint, container, names = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
service = BlobServiceClient(endpoint + "/devstoreaccount1", credential={"account_name": "devstoreaccount1", "account_key": key}, api_version="2025-01-05")
blobs = service.get_container_client(container)
listed = {b.name for b in blobs.list_blobs()}
assert listed == {"in/" + n for n in names + ["large"]}, listed
for n in names:
    assert blobs.download_blob("in/" + n).readall().decode() == n
large = blobs.get_blob_client("in/large")
properties = large.get_blob_properties()
assert properties.content_settings.content_type == "text/x-test" and properties.metadata == {"owner": "us"}, properties
assert large.download_blob().readall() == bytes(n % 251 for n in range(12_000_000))
for n in names:
    blobs.upload_blob("in/theirs/" + n, ("theirs " + n).encode(), metadata={"owner": "them"}, content_settings=ContentSettings(content_type="text/x-theirs"))
print("ok", end="")
"#;

#[tokio::test]
async fn azure_storage_blob_and_we_understand_each_other() {
    let Some(endpoint) = Server::Azurite.or_skip() else { return };
    let url = Place::unique_name("az://peer").config.url.unwrap();
    let store = open(&AzureDriver, &format!("{url}/in?emulator=true&endpoint={endpoint}")).await;
    exchange(&store, AZURE, &[&endpoint, url.trim_start_matches("az://")], &[]).await;
    signed_urls_work_in_curl(&store, &["-H", "x-ms-blob-type: BlockBlob"]).await;
}

/// `upload`: what the service wants in addition of one who writes.
async fn signed_urls_work_in_curl(store: &BlobStore, upload: &[&str]) {
    for name in ["signed.txt", "odd/a b+c%25 ü.txt"] {
        let at = BlobPath::new(name).unwrap();
        let minute = Duration::from_secs(60);
        let put = store.signed_url(&at, SignedAccess::Put, minute).await.unwrap();
        curl(&[&["-X", "PUT", "--data-binary", "by curl"], upload, &["-H", "Content-Type: text/plain", put.expose()]].concat())
            .await;
        assert_eq!(store.get_text(&at).await.unwrap(), "by curl", "{name}");
        let get = store.signed_url(&at, SignedAccess::Get, minute).await.unwrap();
        assert_eq!(curl(&[get.expose()]).await, "by curl", "{name}");
    }
}

async fn curl(arguments: &[&str]) -> String {
    let output = tokio::process::Command::new("curl").args(["-sS", "--fail-with-body"]).args(arguments).output().await;
    let output = output.expect("curl is there");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text} {}", String::from_utf8_lossy(&output.stderr));
    text
}
