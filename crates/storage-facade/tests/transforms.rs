//! Transforms of blobs, from configuration to stored bytes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]
#![cfg(all(feature = "fs", feature = "cache", feature = "encryption", feature = "zstd"))]

use std::path::Path;

use storage_core::{BlobPath, ErrorKind, Result};
use storage_facade::{Component, EnvLayer, Storage};

const KEY: &str = "0707070707070707070707070707070707070707070707070707070707070707";

async fn open(folder: &Path, toml: &str, env: &[(&str, &str)]) -> Result<Storage> {
    let file = folder.join("storage.toml");
    std::fs::write(&file, toml.replace("DIR", folder.to_str().unwrap()))?;
    let env = EnvLayer::of("STORAGE_", env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Storage::builder().file(file).env(env).open().await
}

fn path() -> BlobPath {
    BlobPath::new("letters/1.txt").unwrap()
}

#[tokio::test]
async fn all_transforms_by_configuration() -> Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("key"), format!("{KEY}\n"))?;
    let toml = r#"
        [blobs]
        url = "fs:DIR/one"
        prefix = "app/"
        [blobs.compression]
        level = 9
        [blobs.encryption]
        key_file = "DIR/key"
        previous = [{ key = "0808080808080808080808080808080808080808080808080808080808080808", key_id = "2025" }]
        [blobs.mirror]
        to = { type = "fs", url = "DIR/two" }
        [blobs.cache]
        max_age = "1m"
    "#;
    let storage = open(folder.path(), toml, &[]).await?;
    let blobs = storage.blobs().await?;
    let text = "dear reader, ".repeat(1000);
    blobs.put(&path(), text.clone()).await?;
    assert_eq!(blobs.get_text(&path()).await?, text);
    for copy in ["one", "two"] {
        let stored = std::fs::read(folder.path().join(copy).join("blobs/app/letters/1.txt"))?;
        assert!(stored.starts_with(b"\x93SLENC\r\n") && stored.len() < 500, "{copy}: {} bytes", stored.len());
    }
    assert_eq!(storage.info(Component::Blobs).await?.driver, "mirror+prefix+encryption+zstd+cache");
    assert!(!format!("{:?} {storage:?}", storage.config()).contains(KEY));
    storage.close().await?;

    let only_read = toml.replace("prefix = ", "read_only = true\nprefix = ");
    let storage = open(folder.path(), &only_read, &[]).await?;
    let blobs = storage.blobs().await?;
    assert_eq!(blobs.get_text(&path()).await?, text);
    assert_eq!(blobs.put(&path(), "x").await.unwrap_err().kind(), ErrorKind::Unsupported);
    Ok(())
}

/// A layer that chooses another backend keeps the encryption of the one below.
#[tokio::test]
async fn blobs_stay_encrypted_wherever_they_go() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let toml = format!("[blobs]\nurl = \"memory:\"\n[blobs.encryption]\nkey = \"{KEY}\"");
    let url = format!("fs:{}", folder.path().join("store").display());
    let storage = open(folder.path(), &toml, &[("STORAGE_BLOBS_URL", &url), ("STORAGE_BLOBS_COMPRESSION__LEVEL", "5")]).await?;
    storage.blobs().await?.put(&path(), "x").await?;
    assert_eq!(storage.info(Component::Blobs).await?.driver, "fs+encryption+zstd");
    let stored = std::fs::read(folder.path().join("store/blobs/letters/1.txt"))?;
    assert!(stored.starts_with(b"\x93SLENC\r\n"));
    Ok(())
}
