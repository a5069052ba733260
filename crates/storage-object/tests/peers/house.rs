//! A store of ours on a server, and the peer that sees the same data.

use std::collections::BTreeMap;

use storage_core::{BlobAttributes, BlobPath, BlobStore, Driver, DriverConfig, Engine, Result};
use storage_object::{AzureDriver, S3Driver};
use uuid::Uuid;

use crate::common::{Server, s3_options};
use crate::python::Peer;

/// One container for all tests: each new one makes SeaweedFS set aside disk space.
const CONTAINER: &str = "peers";

pub(crate) struct House {
    pub(crate) server: Server,
    pub(crate) blobs: BlobStore,
    pub(crate) peer: Peer,
    /// What stands before our paths in the names that peers see, with its slash.
    pub(crate) prefix: String,
    endpoint: String,
}

impl House {
    /// Skips the test where the server or the peer is not there.
    pub(crate) async fn open(server: Server) -> Option<Self> {
        let endpoint = server.or_skip()?;
        let prefix = format!("{}/some/prefix+more/", Uuid::new_v4());
        let config = config(server, &endpoint, &format!("{CONTAINER}/{prefix}"));
        let blobs = open(server, &config).await.unwrap();
        let options = blobs.storage_options(Engine::ObjectStore).unwrap();
        let options: BTreeMap<_, _> = options.into_iter().map(|(name, value)| (name, value.expose().to_owned())).collect();
        let peer = Peer::or_skip(server, CONTAINER, options)?;
        Some(Self { server, blobs, peer, prefix, endpoint })
    }

    /// The name that peers see.
    pub(crate) fn name(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    pub(crate) fn config(&self, place: &str) -> DriverConfig {
        config(self.server, &self.endpoint, place)
    }
}

fn config(server: Server, endpoint: &str, place: &str) -> DriverConfig {
    let url = match server {
        Server::SeaweedFs => format!("s3://{place}?{}&dialect=seaweedfs", s3_options(endpoint)),
        Server::Moto => format!("s3://{place}?{}", s3_options(endpoint)),
        Server::Azurite => format!("az://{place}?emulator=true&endpoint={endpoint}"),
    };
    let mut config = DriverConfig::from_url(&url);
    config.options.insert("part_mib".to_owned(), 5.into());
    config
}

pub(crate) async fn open(server: Server, config: &DriverConfig) -> Result<BlobStore> {
    let backends = match server {
        Server::SeaweedFs | Server::Moto => S3Driver.open(config).await?,
        Server::Azurite => AzureDriver.open(config).await?,
    };
    Ok(BlobStore::new(backends.blobs.unwrap()))
}

pub(crate) fn path(text: &str) -> BlobPath {
    BlobPath::new(text).unwrap()
}

/// One of each. Nobody decodes this encoding unasked.
pub(crate) fn attributes() -> BlobAttributes {
    BlobAttributes {
        content_type: Some("text/csv; charset=utf-8".into()),
        cache_control: Some("private, max-age=60".into()),
        content_disposition: Some("attachment; filename=\"a b.csv\"".into()),
        content_encoding: Some("aes128gcm".into()),
        metadata: [("author", "Ann O. Nym"), ("row_count", "3")].map(|(n, v)| (n.to_owned(), v.to_owned())).into(),
    }
}

/// Bytes that differ from part to part.
pub(crate) fn content(size: usize) -> Vec<u8> {
    (0..=250).cycle().take(size).collect()
}
