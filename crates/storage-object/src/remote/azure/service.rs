//! The requests of Azure Blob Storage.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use chrono::Utc;
use http::{Method, StatusCode};
use object_store::azure::{AzureAuthorizer, AzureCredentialProvider};
use object_store::client::HttpRequest;
use object_store::signer::Signer;
use serde::Deserialize;
use storage_core::backoff::Backoff;
use storage_core::{BlobAttributes, ETag, Error, PutMode, PutOptions, Result, Secret, SignedAccess};
use uuid::Uuid;

use super::sas;
use crate::remote::errors::{from_store, no_credentials};
use crate::remote::read::{Found, Source, http_date, mark, quoted};
use crate::remote::service::{ListPage, Listed, Listing, Service, Traits};
use crate::remote::signing::signed;
use crate::remote::wire::{Answer, Authorize, Call, Failure, Wire, encoded_path, with_query};

const MIB: u64 = 1 << 20;
/// How long a copy within an account is waited for. Such copies are done when they are answered, but for the very large.
const COPYING: Duration = Duration::from_secs(600);

pub(crate) const TRAITS: Traits = Traits {
    metadata_prefix: "x-ms-meta-",
    max_parts: 50_000,
    max_part: 4_000 * MIB,
    max_blob: 50_000 * 4_000 * MIB,
    conditional_parts: true,
    suffix_ranges: false,
    refused: "\\",
    folders_linger: false,
};

/// Signs with whatever kind of credential there is.
#[derive(Debug)]
pub(crate) struct AzureSigner {
    /// `None`: requests go unsigned.
    pub(crate) credentials: Option<AzureCredentialProvider>,
    pub(crate) account: String,
}

#[async_trait]
impl Authorize for AzureSigner {
    async fn authorize(&self, request: &mut HttpRequest) -> Result<()> {
        let Some(credentials) = &self.credentials else { return Ok(()) };
        let credential = credentials.get_credential().await.map_err(|e| no_credentials(&e))?;
        AzureAuthorizer::new(&credential, &self.account).try_authorize(request).map_err(|e| from_store(&e))
    }
}

/// One container.
#[derive(Debug)]
pub(crate) struct AzureBlobs {
    pub(crate) wire: Wire,
    /// Without a slash at its end.
    pub(crate) container_url: String,
    pub(crate) signer: Arc<dyn Signer>,
    pub(crate) account: String,
    pub(crate) container: String,
    /// Signs URLs, where there is one.
    pub(crate) key: Option<Secret>,
    /// Goes with the address of a copy's source, where the credential is a shared access signature.
    pub(crate) sas: Option<Secret>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListAnswer {
    blobs: Entries,
    #[serde(default)]
    next_marker: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entries {
    #[serde(default)]
    blob: Vec<Entry>,
    #[serde(default)]
    blob_prefix: Vec<Prefix>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    name: String,
    properties: Properties,
}

#[derive(Deserialize)]
struct Properties {
    #[serde(rename = "Content-Length")]
    size: u64,
    #[serde(rename = "Last-Modified")]
    modified: String,
    #[serde(rename = "Etag")]
    etag: Option<String>,
    /// Accounts with a hierarchical name space list folders among the blobs.
    #[serde(rename = "ResourceType")]
    resource: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Prefix {
    name: String,
}

fn described(call: Call, attributes: &BlobAttributes) -> Call {
    let call = call
        .header_if("x-ms-blob-content-type", attributes.content_type.as_deref())
        .header_if("x-ms-blob-cache-control", attributes.cache_control.as_deref())
        .header_if("x-ms-blob-content-disposition", attributes.content_disposition.as_deref())
        .header_if("x-ms-blob-content-encoding", attributes.content_encoding.as_deref());
    attributes.metadata.iter().fold(call, |call, (name, value)| call.header(&format!("x-ms-meta-{name}"), value))
}

fn conditioned(call: Call, mode: &PutMode) -> Call {
    match mode {
        PutMode::Overwrite => call,
        PutMode::Create => call.header("if-none-match", "*"),
        PutMode::Update(etag) => call.header("if-match", &quoted(etag)),
    }
}

fn mark_of(answer: &Answer) -> Result<ETag, Failure> {
    let etag = answer.header("etag").map(mark);
    etag.ok_or_else(|| Error::unavailable("the service's answer has no ETag").into())
}

impl AzureBlobs {
    fn sub(&self, key: &str, query: &[(&str, &str)]) -> String {
        with_query(&self.url(key), query)
    }

    /// Waits for a copy that was not done at once.
    async fn copied(&self, to: &str) -> Result<ETag, Failure> {
        let wait = async {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
            loop {
                let answer = self.wire.send(Call::new(Method::HEAD, self.url(to))).await?;
                match answer.header("x-ms-copy-status") {
                    Some("pending") => tokio::time::sleep(backoff.next_delay()).await,
                    Some("success") | None => return mark_of(&answer),
                    Some(_) => return Err(Error::unavailable("the service gave up the copy").into()),
                }
            }
        };
        tokio::time::timeout(COPYING, wait).await.map_err(|_| Error::timeout("the service still copies"))?
    }
}

#[async_trait]
impl Source for AzureBlobs {
    fn wire(&self) -> &Wire {
        &self.wire
    }

    fn metadata_prefix(&self) -> &'static str {
        self.traits().metadata_prefix
    }

    fn suffix_ranges(&self) -> bool {
        self.traits().suffix_ranges
    }

    fn url(&self, key: &str) -> String {
        format!("{}/{}", self.container_url, encoded_path(key))
    }
}

#[async_trait]
impl Service for AzureBlobs {
    fn traits(&self) -> &Traits {
        &TRAITS
    }

    async fn create_container(&self) -> Result<bool, Failure> {
        let call = Call::new(Method::PUT, with_query(&self.container_url, &[("restype", "container")]));
        match self.wire.send(call).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.code() == "ContainerAlreadyExists" => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag, Failure> {
        let call = Call::new(Method::PUT, self.url(key)).header("x-ms-blob-type", "BlockBlob").body(body);
        mark_of(&self.wire.send(conditioned(described(call, &options.attributes), &options.mode)).await?)
    }

    /// Nothing is said to the service: an upload is its blocks, whose names nobody else uses.
    async fn start(&self, _key: &str, _options: &PutOptions) -> Result<String, Failure> {
        Ok(Uuid::new_v4().simple().to_string())
    }

    async fn part(&self, key: &str, upload: &str, number: u64, body: Bytes) -> Result<String, Failure> {
        // All names of a blob's blocks must have one length.
        let id = BASE64_STANDARD.encode(format!("{upload}{number:06}"));
        let call = Call::new(Method::PUT, self.sub(key, &[("comp", "block"), ("blockid", &id)]));
        self.wire.send(call.body(body)).await.map(|_| id)
    }

    async fn complete(&self, key: &str, _upload: &str, parts: &[String], options: &PutOptions) -> Result<ETag, Failure> {
        let ids: String = parts.iter().map(|id| format!("<Uncommitted>{id}</Uncommitted>")).collect();
        let list = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{ids}</BlockList>");
        let call = Call::new(Method::PUT, self.sub(key, &[("comp", "blocklist")])).body(list);
        mark_of(&self.wire.send(conditioned(described(call, &options.attributes), &options.mode)).await?)
    }

    /// Blocks can't be removed: the service forgets them after a week, or with the next write of the blob.
    async fn abort(&self, _key: &str, _upload: &str) -> Result<(), Failure> {
        Ok(())
    }

    async fn delete(&self, key: &str, if_match: Option<&ETag>) -> Result<(), Failure> {
        let if_match = if_match.map(quoted);
        let call = Call::new(Method::DELETE, self.url(key)).header("x-ms-delete-snapshots", "include");
        self.wire.send(call.header_if("if-match", if_match.as_deref())).await.map(drop)
    }

    async fn copy(&self, from: &str, found: &Found, to: &str, mode: &PutMode) -> Result<ETag, Failure> {
        let source = match &self.sas {
            Some(sas) => format!("{}?{}", self.url(from), sas.expose()),
            None => self.url(from),
        };
        let source_mark = found.etag.as_ref().map(quoted);
        let call = Call::new(Method::PUT, self.url(to))
            .header("x-ms-copy-source", &source)
            .header_if("x-ms-source-if-match", source_mark.as_deref());
        let answer = self.wire.send(conditioned(call, mode)).await?;
        if answer.status == StatusCode::ACCEPTED && answer.header("x-ms-copy-status") == Some("pending") {
            return self.copied(to).await;
        }
        mark_of(&answer)
    }

    async fn page(&self, listing: &Listing, token: Option<&str>) -> Result<ListPage, Failure> {
        let mut query = vec![("restype", "container"), ("comp", "list"), ("prefix", &listing.prefix)];
        if listing.one_level {
            query.push(("delimiter", "/"));
        }
        let page_size = listing.page_size.map(|size| size.to_string());
        if let Some(size) = &page_size {
            query.push(("maxresults", size));
        }
        query.extend(token.map(|token| ("marker", token)));
        let text = self.wire.send(Call::new(Method::GET, with_query(&self.container_url, &query))).await?.text().await?;
        let answer: ListAnswer = quick_xml::de::from_str(text.trim_start_matches('\u{feff}'))
            .map_err(|e| Error::unavailable(format!("the service's listing can't be read: {e}")).with_source(e))?;
        let blob = |entry: Entry| {
            let Properties { size, modified, etag, resource } = entry.properties;
            let modified_at = http_date(&modified)?;
            let is_blob = resource.is_none_or(|resource| resource == "file");
            is_blob.then(|| Listed { key: entry.name, size, modified_at, etag: etag.as_deref().map(mark) })
        };
        Ok(ListPage {
            blobs: answer.blobs.blob.into_iter().filter_map(blob).collect(),
            prefixes: answer.blobs.blob_prefix.into_iter().map(|prefix| prefix.name).collect(),
            next: answer.next_marker.filter(|marker| !marker.is_empty()),
        })
    }

    async fn signed_url(&self, key: &str, access: SignedAccess, expires_in: Duration) -> Result<Secret> {
        if let Some(account_key) = &self.key {
            let account = (self.account.as_str(), account_key);
            let query = sas::sign(account, &self.container, key, access, Utc::now(), expires_in)?;
            return Ok(Secret::new(format!("{}{query}", self.url(key))));
        }
        if encoded_path(key) != key {
            return Err(Error::unsupported("without the account's key, URLs of names that need encoding can't be signed"));
        }
        signed(&*self.signer, key, access, expires_in).await
    }
}
