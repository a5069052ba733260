//! The XML API that Amazon S3 made common, and in which Google Cloud Storage differs by names and by its conditions.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{Method, StatusCode};
use object_store::signer::Signer;
use serde::Deserialize;
use storage_core::{BlobAttributes, ETag, Error, PutMode, PutOptions, Result, Secret, SignedAccess};

use super::errors;
use super::read::{Found, Source, mark, quoted};
use super::service::{ListPage, Listed, Listing, Service, Traits};
use super::signing::signed;
use super::wire::{Answer, Call, Failure, Wire, encoded_path, with_query};

const GIB: u64 = 1 << 30;

/// Whose dialect is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vendor {
    /// Amazon S3 and what is made like it. Conditions are ETags.
    S3,
    /// Google Cloud Storage. Conditions on writes are generations, which stand for one ETag each.
    Google,
}

impl Vendor {
    pub(crate) fn traits(self) -> Traits {
        Traits {
            metadata_prefix: match self {
                Self::S3 => "x-amz-meta-",
                Self::Google => "x-goog-meta-",
            },
            max_parts: 10_000,
            max_part: 5 * GIB,
            max_blob: 5 << 40,
            conditional_parts: self == Self::S3,
            suffix_ranges: true,
            refused: "",
            folders_linger: false,
        }
    }

    fn copy_header(self, name: &str) -> String {
        match self {
            Self::S3 => format!("x-amz-copy-source{name}"),
            Self::Google => format!("x-goog-copy-source{name}"),
        }
    }
}

/// One bucket.
#[derive(Debug)]
pub(crate) struct XmlApi {
    pub(crate) vendor: Vendor,
    pub(crate) wire: Wire,
    pub(crate) traits: Traits,
    pub(crate) bucket: String,
    /// Without a slash at its end.
    pub(crate) bucket_url: String,
    pub(crate) signer: Arc<dyn Signer>,
    /// `start-after` of a folder's name leaves out the folder: it is given something that sorts before.
    pub(crate) by_folder: bool,
    /// Sent when the bucket is created.
    pub(crate) creation: Creation,
}

/// What a new bucket is created with.
#[derive(Debug, Default)]
pub(crate) struct Creation {
    /// S3: the region, where it is not the service's first.
    pub(crate) location: Option<String>,
    /// Google: the project that pays.
    pub(crate) project: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListAnswer {
    #[serde(default)]
    contents: Vec<Entry>,
    #[serde(default)]
    common_prefixes: Vec<CommonPrefix>,
    #[serde(default)]
    next_continuation_token: Option<String>,
    #[serde(default)]
    is_truncated: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    key: String,
    size: u64,
    last_modified: DateTime<Utc>,
    #[serde(rename = "ETag")]
    etag: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CommonPrefix {
    prefix: String,
}

impl XmlApi {
    fn sub(&self, key: &str, query: &[(&str, &str)]) -> String {
        with_query(&self.url(key), query)
    }

    fn described(&self, call: Call, attributes: &BlobAttributes) -> Call {
        let metadata = attributes.metadata.iter();
        let call = call
            .header_if("content-type", attributes.content_type.as_deref())
            .header_if("cache-control", attributes.cache_control.as_deref())
            .header_if("content-disposition", attributes.content_disposition.as_deref())
            .header_if("content-encoding", attributes.content_encoding.as_deref());
        metadata.fold(call, |call, (name, value)| call.header(&format!("{}{name}", self.traits.metadata_prefix), value))
    }

    /// Holds a request to the mode.
    async fn conditioned(&self, call: Call, key: &str, mode: &PutMode) -> Result<Call, Failure> {
        Ok(match (self.vendor, mode) {
            (_, PutMode::Overwrite) => call,
            (Vendor::S3, PutMode::Create) => call.header("if-none-match", "*"),
            (Vendor::S3, PutMode::Update(etag)) => call.header("if-match", &quoted(etag)),
            (Vendor::Google, PutMode::Create) => call.header("x-goog-if-generation-match", "0"),
            (Vendor::Google, PutMode::Update(etag)) => {
                call.header("x-goog-if-generation-match", &self.generation(key, etag).await?)
            }
        })
    }

    /// The generation that has this mark. A generation never comes again: to ask first is as exact as to be asked for the mark itself.
    async fn generation(&self, key: &str, etag: &ETag) -> Result<String, Failure> {
        let answer = match self.wire.send(Call::new(Method::HEAD, self.url(key))).await {
            Err(failure) if failure.is(StatusCode::NOT_FOUND) => return Err(Failure::stale()),
            answer => answer?,
        };
        if answer.header("etag").map(mark).as_ref() != Some(etag) {
            return Err(Failure::stale());
        }
        let generation = answer.header("x-goog-generation");
        Ok(generation.ok_or_else(|| Error::unavailable("the service does not tell the blob's generation"))?.to_owned())
    }

    fn copy_source(&self, from: &str) -> String {
        format!("/{}/{}", self.bucket, encoded_path(from))
    }

    /// The mark in the XML of an answer, which may be an error although its status is 200.
    async fn mark_in(answer: Answer) -> Result<ETag, Failure> {
        let text = answer.text().await?;
        match errors::element(&text, "ETag") {
            Some(etag) => Ok(mark(&etag)),
            None => Err(Failure::within(&text)),
        }
    }
}

/// A start so far before `prefix` + `after` that no folder between the two is passed over by a service that walks folders: there `a/x` comes before
/// `a!`. What it lets through in addition is left out by the listing.
fn before_folders<'a>(start: &'a str, prefix: &str) -> Option<&'a str> {
    let after = start.strip_prefix(prefix)?;
    let plain = &after[..after.find(|c| c < '/').unwrap_or(after.len())];
    let (last, end) = plain.char_indices().next_back()?;
    // A folder's name with its slash goes into the folder.
    let kept = if end == '/' { plain.len() } else { last };
    Some(&start[..prefix.len() + kept])
}

fn mark_of(answer: &Answer) -> Result<ETag, Failure> {
    let etag = answer.header("etag").map(mark);
    etag.ok_or_else(|| Error::unavailable("the service's answer has no ETag").into())
}

#[async_trait]
impl Source for XmlApi {
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
        format!("{}/{}", self.bucket_url, encoded_path(key))
    }
}

#[async_trait]
impl Service for XmlApi {
    fn traits(&self) -> &Traits {
        &self.traits
    }

    async fn create_container(&self) -> Result<bool, Failure> {
        // Asked first: some services answer the creation of one's own bucket as if it were new.
        match self.wire.send(Call::new(Method::HEAD, self.bucket_url.clone())).await {
            Ok(_) => return Ok(false),
            Err(failure) if failure.is(StatusCode::NOT_FOUND) => {}
            Err(failure) => return Err(failure),
        }
        let location = self.creation.location.as_ref().map_or_else(String::new, |region| {
            format!("<CreateBucketConfiguration><LocationConstraint>{region}</LocationConstraint></CreateBucketConfiguration>")
        });
        let call = Call::new(Method::PUT, self.bucket_url.clone()).body(location);
        match self.wire.send(call.header_if("x-goog-project-id", self.creation.project.as_deref())).await {
            Ok(_) => Ok(true),
            Err(failure) if failure.code() == "BucketAlreadyOwnedByYou" => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    async fn put(&self, key: &str, body: Bytes, options: &PutOptions) -> Result<ETag, Failure> {
        let call = self.described(Call::new(Method::PUT, self.url(key)).body(body), &options.attributes);
        mark_of(&self.wire.send(self.conditioned(call, key, &options.mode).await?).await?)
    }

    async fn start(&self, key: &str, options: &PutOptions) -> Result<String, Failure> {
        let call = self.described(Call::new(Method::POST, self.sub(key, &[("uploads", "")])), &options.attributes);
        let text = self.wire.send(call).await?.text().await?;
        errors::element(&text, "UploadId").ok_or_else(|| Failure::within(&text))
    }

    async fn part(&self, key: &str, upload: &str, number: u64, body: Bytes) -> Result<String, Failure> {
        let url = self.sub(key, &[("partNumber", &number.to_string()), ("uploadId", upload)]);
        Ok(mark_of(&self.wire.send(Call::new(Method::PUT, url).body(body)).await?)?.0)
    }

    async fn complete(&self, key: &str, upload: &str, parts: &[String], options: &PutOptions) -> Result<ETag, Failure> {
        let parts = parts.iter().enumerate().map(|(n, etag)| {
            format!(
                "<Part><PartNumber>{}</PartNumber><ETag>\"{}\"</ETag></Part>",
                n + 1,
                quick_xml::escape::escape(etag.as_str())
            )
        });
        let list = format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.collect::<String>());
        let call = Call::new(Method::POST, self.sub(key, &[("uploadId", upload)])).header("content-type", "application/xml");
        let call = self.conditioned(call.body(list), key, &options.mode).await?;
        Self::mark_in(self.wire.send(call).await?).await
    }

    async fn abort(&self, key: &str, upload: &str) -> Result<(), Failure> {
        match self.wire.send(Call::new(Method::DELETE, self.sub(key, &[("uploadId", upload)]))).await {
            Err(failure) if !failure.is(StatusCode::NOT_FOUND) => Err(failure),
            _ => Ok(()),
        }
    }

    async fn delete(&self, key: &str, if_match: Option<&ETag>) -> Result<(), Failure> {
        let mode = if_match.map_or(PutMode::Overwrite, |etag| PutMode::Update(etag.clone()));
        let call = self.conditioned(Call::new(Method::DELETE, self.url(key)), key, &mode).await?;
        self.wire.send(call).await.map(drop)
    }

    fn copies(&self, found: &Found, mode: &PutMode) -> bool {
        // Not every S3 looks at conditions of a copy: there they are held by the end of an upload, which all do.
        self.vendor == Vendor::Google || (*mode == PutMode::Overwrite && found.size <= 5 * GIB)
    }

    async fn copy(&self, from: &str, found: &Found, to: &str, mode: &PutMode) -> Result<ETag, Failure> {
        let source_mark = found.etag.as_ref().map(quoted);
        let call = Call::new(Method::PUT, self.url(to))
            .header(&self.vendor.copy_header(""), &self.copy_source(from))
            .header_if(&self.vendor.copy_header("-if-match"), source_mark.as_deref());
        Self::mark_in(self.wire.send(self.conditioned(call, to, mode).await?).await?).await
    }

    async fn copy_part(
        &self,
        (from, found): (&str, &Found),
        range: std::ops::Range<u64>,
        to: &str,
        upload: &str,
        number: u64,
    ) -> Result<String, Failure> {
        let source_mark = found.etag.as_ref().map(quoted);
        let call = Call::new(Method::PUT, self.sub(to, &[("partNumber", &number.to_string()), ("uploadId", upload)]))
            .header(&self.vendor.copy_header(""), &self.copy_source(from))
            .header(&self.vendor.copy_header("-range"), &format!("bytes={}-{}", range.start, range.end - 1))
            .header_if(&self.vendor.copy_header("-if-match"), source_mark.as_deref());
        Ok(Self::mark_in(self.wire.send(call).await?).await?.0)
    }

    async fn page(&self, listing: &Listing, token: Option<&str>) -> Result<ListPage, Failure> {
        let mut query = vec![("list-type", "2"), ("prefix", &listing.prefix)];
        if listing.one_level {
            query.push(("delimiter", "/"));
        }
        let page_size = listing.page_size.map(|size| size.to_string());
        if let Some(size) = &page_size {
            query.push(("max-keys", size));
        }
        match (token, &listing.start_after) {
            (Some(token), _) => query.push(("continuation-token", token)),
            (None, Some(after)) if self.by_folder => {
                query.extend(before_folders(after, &listing.prefix).map(|start| ("start-after", start)));
            }
            (None, Some(after)) => query.push(("start-after", after)),
            (None, None) => {}
        }
        let text = self.wire.send(Call::new(Method::GET, with_query(&self.bucket_url, &query))).await?.text().await?;
        let answer: ListAnswer = quick_xml::de::from_str(&text)
            .map_err(|e| Error::unavailable(format!("the service's listing can't be read: {e}")).with_source(e))?;
        let blob = |entry: Entry| Listed {
            key: entry.key,
            size: entry.size,
            modified_at: entry.last_modified,
            etag: entry.etag.as_deref().map(mark),
        };
        Ok(ListPage {
            blobs: answer.contents.into_iter().map(blob).collect(),
            prefixes: answer.common_prefixes.into_iter().map(|prefix| prefix.prefix).collect(),
            next: answer.next_continuation_token.filter(|token| answer.is_truncated && !token.is_empty()),
        })
    }

    async fn signed_url(&self, key: &str, access: SignedAccess, expires_in: Duration) -> Result<Secret> {
        signed(&*self.signer, key, access, expires_in).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_passes_over_no_folder() {
        for (start, expected) in [
            ("p/0550.json", Some("p/055")),
            ("p/a!/x", Some("p/")),
            ("p/a/b", Some("p/a/")),
            ("p/a/%F0", Some("p/a/")),
            ("p/!", None),
            ("other", None),
        ] {
            assert_eq!(before_folders(start, "p/"), expected, "{start}");
        }
    }
}
