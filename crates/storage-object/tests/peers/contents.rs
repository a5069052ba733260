//! Bytes, attributes and names, both ways.

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use storage_core::{BlobAttributes, BlobBody, PutOptions};

use crate::common::Server;
use crate::house::{House, attributes, content, path};
use crate::python::{Listed, put, with};

const MIB: usize = 1 << 20;
/// One request, three parts of 5 MiB and less, nothing. That comes last: what boto3 sends SeaweedFS behind it by the same connection hangs
/// for a minute.
const SIZES: [(&str, usize); 3] = [("single", 1000), ("chunked", 11 * MIB + 7), ("empty", 0)];

pub(crate) async fn peers_read_what_we_wrote(house: &House) {
    let options = PutOptions { attributes: attributes(), ..PutOptions::default() };
    let mut written = Vec::new();
    for (name, size) in SIZES {
        let pieces: Vec<_> = content(size).chunks(MIB).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let body = BlobBody::Stream { stream: futures::stream::iter(pieces).boxed(), size: None };
        written.push(house.blobs.put_with(&path(name), body, &options).await.unwrap());
    }

    let names = SIZES.map(|(name, _)| house.name(name));
    for ((read, (name, size)), meta) in house.peer.read(&names).into_iter().zip(SIZES).zip(written) {
        assert!(read.content() == content(size), "{name}");
        assert_eq!(read.attributes, attributes(), "{name}");
        assert_eq!(read.etag, meta.etag.unwrap().0, "{name}");
    }
}

pub(crate) async fn we_read_what_peers_wrote(house: &House) {
    let puts = SIZES.map(|(name, size)| with(put(&house.name(name), &content(size), &attributes()), "chunked", size > 5 * MIB));
    for (put, (name, size)) in house.peer.put_all(puts.into()).into_iter().zip(SIZES) {
        let read = house.blobs.get_with(&path(name), &storage_core::GetOptions::default()).await.unwrap();
        assert_eq!(read.meta.attributes, attributes(), "{name}");
        assert_eq!(read.meta.etag.as_ref().unwrap().0, put.etag(), "{name}");
        assert_eq!(read.meta.size, size as u64, "{name}");
        assert!(read.bytes().await.unwrap() == content(size), "{name}");
    }
}

/// Names that tempt to encode once too often or too little, and whose order depends on what is compared.
const NAMES: [&str; 32] = [
    "a b",
    " a ",
    "a+b",
    "100%",
    "a%20b",
    "a%2Fb",
    "a%2fb",
    "%",
    "~tilde",
    "[x]{y}(z)",
    "dot.",
    "dot./below",
    "..dots",
    "what?now#here",
    "a=b&c;d:e@f,g$h!i",
    "quote'\"`",
    "a*b|c<d>^",
    "häuser/日本語.txt",
    // The same letter, composed and not.
    "\u{e9}",
    "e\u{301}",
    // UTF-16 has these two the other way round.
    "\u{ff5e}",
    "\u{1f600}",
    "A",
    "a-b",
    "a.b",
    "a/b",
    "a/b/c.d",
    "a0",
    "z/10",
    "z/2",
    "z-",
    "_",
];

pub(crate) async fn names_arrive_as_they_are(house: &House) {
    let (ours, theirs) = NAMES.split_at(NAMES.len() / 2);
    write_both(house, ours, theirs).await;
    let seen = seen_from_both(house).await;
    let mut expected = NAMES.map(|name| house.name(name));
    expected.sort_unstable();
    assert_eq!(seen.iter().map(|blob| blob.name.as_str()).collect::<Vec<_>>(), expected);

    for (read, name) in house.peer.read(&ours.iter().map(|name| house.name(name)).collect::<Vec<_>>()).iter().zip(ours) {
        assert_eq!(read.content(), name.as_bytes(), "{name}");
    }
    for name in theirs {
        assert_eq!(house.blobs.get_text(&path(name)).await.unwrap(), *name);
    }

    // The other way round: the same names, each overwritten by the other side, are the same blobs.
    write_both(house, theirs, ours).await;
    assert_eq!(seen_from_both(house).await.len(), NAMES.len());
}

async fn write_both(house: &House, ours: &[&'static str], theirs: &[&'static str]) {
    for name in ours {
        house.blobs.put(&path(name), *name).await.unwrap();
    }
    let puts = theirs.iter().map(|name| put(&house.name(name), name.as_bytes(), &BlobAttributes::default()));
    for put in house.peer.put_all(puts.collect()) {
        put.etag();
    }
}

/// Our listing, which is the peer's. Ours is bytewise in order, which those of SeaweedFS (folder by folder) and Azurite are not.
async fn seen_from_both(house: &House) -> Vec<Listed> {
    let ours: Vec<_> = house.blobs.list_all(None).try_collect().await.unwrap();
    let ours =
        ours.into_iter().map(|meta| Listed { name: house.name(meta.path.as_str()), size: meta.size, etag: meta.etag.unwrap().0 });
    let ours: Vec<_> = ours.collect();
    let mut theirs = house.peer.list(&house.prefix);
    if !matches!(house.server, Server::Moto) {
        theirs.sort_unstable();
    }
    assert_eq!(ours, theirs);
    ours
}

pub(crate) async fn object_store_reads_what_we_wrote(house: &House) {
    house.blobs.put(&path("a b+c"), "hello").await.unwrap();
    let store = by_storage_options(house);
    let read = store.get(&Path::parse(house.name("a b+c")).unwrap()).await.unwrap();
    assert_eq!(read.bytes().await.unwrap(), "hello");
    store.put(&Path::parse(house.name("back")).unwrap(), "and back".into()).await.unwrap();
    assert_eq!(house.blobs.get_text(&path("back")).await.unwrap(), "and back");
}

/// As delta-rs and Polars do it.
fn by_storage_options(house: &House) -> Box<dyn ObjectStore> {
    let options = &house.peer.options;
    if matches!(house.server, Server::Azurite) {
        let builder = MicrosoftAzureBuilder::new().with_container_name(house.peer.container);
        let with = |builder: MicrosoftAzureBuilder, (name, value): (&String, &String)| {
            builder.with_config(name.parse::<AzureConfigKey>().unwrap(), value)
        };
        return Box::new(options.iter().fold(builder, with).build().unwrap());
    }
    let builder = AmazonS3Builder::new().with_bucket_name(house.peer.container);
    let with = |builder: AmazonS3Builder, (name, value): (&String, &String)| {
        builder.with_config(name.parse::<AmazonS3ConfigKey>().unwrap(), value)
    };
    Box::new(options.iter().fold(builder, with).build().unwrap())
}
