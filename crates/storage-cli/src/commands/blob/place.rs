//! Where blobs are: in the configured store, in another that a URL names, or in a local folder.

use std::path::PathBuf;
use std::sync::Arc;

use storage_core::{BlobStore, Driver, DriverConfig, Error, Result, url_scheme};
use storage_facade::Registry;

use crate::context::Context;

/// What paths in the configured store may begin with.
const CONFIGURED: &str = "blob:";

/// How places are written, for `--help`.
pub(crate) const PLACES: &str = "\
blob:PATH is in the configured store. A URL is another store, opened as --url would: s3://bucket/PATH, az://container/PATH, gs://bucket/PATH, and for stores that are folders file:///FOLDER#PATH. Options of its driver follow behind `?`; names of variables keep secrets off the command line: s3://bucket?secret_key_env=OTHER_KEY. What both sides need is read from one and written to the other as it comes; where they are of one store, the store copies by itself.";

/// A path, and the store that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// `None`: the configured store.
    url: Option<String>,
    /// As it was given: it may be a pattern, and end with a slash.
    pub(crate) path: String,
}

/// One side of a sync.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Folder(PathBuf),
    Blobs(Place),
}

impl Side {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if text.starts_with(CONFIGURED) || is_url(text) {
            return Place::parse(text).map(Self::Blobs);
        }
        check_slashes(text, "./")?;
        Ok(Self::Folder(PathBuf::from(text)))
    }
}

/// `s3:bucket` would be a folder or a blob of this name, which hardly anybody means.
fn check_slashes(text: &str, otherwise: &str) -> Result<()> {
    match url_scheme(text) {
        Some(scheme) if driver_of(scheme).is_some() => Err(Error::invalid(format!(
            "`{scheme}:` without slashes: a store is written {scheme}://…, and what is really called so {otherwise}{scheme}:…"
        ))),
        _ => Ok(()),
    }
}

fn is_url(text: &str) -> bool {
    url_scheme(text).is_some_and(|scheme| text[scheme.len()..].starts_with("://"))
}

impl Place {
    /// A path in the configured store, with `blob:` before it or without, or a URL.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        if let Some(path) = text.strip_prefix(CONFIGURED) {
            return Ok(Self { url: None, path: path.to_owned() });
        }
        if !is_url(text) {
            check_slashes(text, CONFIGURED)?;
            return Ok(Self { url: None, path: text.to_owned() });
        }
        let (address, options) = text.split_once('?').map_or((text, ""), |(address, options)| (address, options));
        let (options, behind) = options.split_once('#').map_or((options, None), |(options, path)| (options, Some(path)));
        let (address, before) = address.split_once('#').map_or((address, None), |(address, path)| (address, Some(path)));
        let (address, path) = match (before.or(behind), is_bucket(address)) {
            (Some(path), _) => (address, path),
            (None, true) => split_bucket(address),
            (None, false) => (address, ""),
        };
        if before.is_some() && behind.is_some() {
            return Err(Error::invalid("a URL has one `#`, with the path in the store behind it"));
        }
        let url = if options.is_empty() { address.to_owned() } else { format!("{address}?{options}") };
        Ok(Self { url: Some(url), path: path.to_owned() })
    }

    /// True in a store other than the configured one.
    pub(crate) fn is_elsewhere(&self) -> bool {
        self.url.is_some()
    }

    /// To write to it: what is missing is created. To be opened before what is read, which may be in the same store.
    pub(crate) async fn open_target(&self, context: &Context) -> Result<BlobStore> {
        self.open(true, context).await
    }

    /// To read from it: a mistyped URL creates nothing.
    pub(crate) async fn open_source(&self, context: &Context) -> Result<BlobStore> {
        self.open(false, context).await
    }

    async fn open(&self, create: bool, context: &Context) -> Result<BlobStore> {
        match &self.url {
            None => context.blobs().await,
            Some(url) => context.blobs_at(url, create).await,
        }
    }
}

fn driver_of(scheme: &str) -> Option<Arc<dyn Driver>> {
    let registry = Registry::default();
    registry.drivers().find(|driver| driver.surfaces().blobs && driver.schemes().contains(&scheme)).cloned()
}

/// True for services whose URLs name a bucket, and a path in it.
fn is_bucket(address: &str) -> bool {
    let driver = url_scheme(address).and_then(driver_of);
    driver.is_some_and(|driver| driver.is_remote(&DriverConfig::from_url(address)))
}

/// The URL of the bucket alone, so that all paths in it are of one store, and the path.
fn split_bucket(address: &str) -> (&str, &str) {
    let authority = address.find("://").map_or(0, |at| at + 3);
    let slash = address[authority..].find('/').map(|at| authority + at);
    slash.map_or((address, ""), |at| (&address[..at], &address[at + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(url: Option<&str>, path: &str) -> Place {
        Place { url: url.map(str::to_owned), path: path.to_owned() }
    }

    #[test]
    fn places_are_told_from_folders() {
        for folder in ["./a", "/a", "a", "a:b", "C:\\a", "./s3://x", "./file:x", "nonsense:x", ""] {
            assert_eq!(Side::parse(folder).unwrap(), Side::Folder(folder.into()));
        }
        assert_eq!(Side::parse("blob:").unwrap(), Side::Blobs(place(None, "")));
        assert_eq!(Side::parse("blob:a/b").unwrap(), Side::Blobs(place(None, "a/b")));
        assert_eq!(Place::parse("a/*.csv").unwrap(), place(None, "a/*.csv"));
    }

    #[test]
    fn urls_are_a_store_and_a_path() {
        for (text, url, path) in [
            ("file:///srv/store", "file:///srv/store", ""),
            ("file:///srv/store#a/*.csv", "file:///srv/store", "a/*.csv"),
            ("fs://./store?fsync=false#a/", "fs://./store?fsync=false", "a/"),
            ("file:///srv/store#a?fsync=false", "file:///srv/store?fsync=false", "a"),
            #[cfg(feature = "s3")]
            ("s3://bucket", "s3://bucket", ""),
            #[cfg(feature = "s3")]
            ("s3://bucket/", "s3://bucket", ""),
            #[cfg(feature = "s3")]
            ("s3://bucket/a/*.csv?region=x&secret_key_env=K", "s3://bucket?region=x&secret_key_env=K", "a/*.csv"),
            #[cfg(feature = "s3")]
            ("s3://bucket/prefix#a", "s3://bucket/prefix", "a"),
        ] {
            assert_eq!(Place::parse(text).unwrap(), place(Some(url), path), "{text}");
        }
        assert!(Place::parse("file:///a#b?c#d").is_err());
        assert!(Place::parse("file:x").is_err() && Side::parse("file:x").is_err());
        assert_eq!(Place::parse("blob:file:x").unwrap(), place(None, "file:x"));
    }
}
