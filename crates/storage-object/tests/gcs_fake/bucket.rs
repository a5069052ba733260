//! One bucket of the fake.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http_body_util::Full;
use hyper::{HeaderMap, Method, Response, StatusCode};
use quick_xml::escape::escape;

use super::{Answer, Asked, plain, refusal};

const KEPT: [&str; 4] = ["content-type", "cache-control", "content-disposition", "content-encoding"];

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    headers: HeaderMap,
    generation: u64,
    modified: DateTime<Utc>,
}

impl Object {
    /// Of the bytes alone, as in the service.
    fn etag(&self) -> String {
        etag(&self.bytes)
    }
}

fn etag(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

struct Upload {
    key: String,
    headers: HeaderMap,
    parts: BTreeMap<u64, Bytes>,
}

#[derive(Default)]
pub(super) struct Bucket {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    last: u64,
}

fn kept(headers: &HeaderMap) -> HeaderMap {
    let keep = |name: &str| KEPT.contains(&name) || name.starts_with("x-goog-meta-");
    headers.iter().filter(|(name, _)| keep(name.as_str())).map(|(name, value)| (name.clone(), value.clone())).collect()
}

impl Bucket {
    pub(super) fn answer(&mut self, asked: &Asked) -> Answer {
        let upload = asked.query.get("uploadId");
        match (&asked.method, asked.key.is_empty(), upload) {
            (&Method::HEAD, true, _) => plain(StatusCode::OK, ""),
            (&Method::GET, true, _) => self.list(asked),
            (&Method::GET | &Method::HEAD, false, _) => self.get(asked),
            (&Method::POST, false, None) if asked.query.contains_key("uploads") => self.start(asked),
            (&Method::PUT, false, Some(upload)) => self.part(asked, upload),
            (&Method::POST, false, Some(upload)) => self.complete(asked, upload),
            (&Method::DELETE, false, Some(upload)) => match self.uploads.remove(upload) {
                Some(_) => plain(StatusCode::NO_CONTENT, ""),
                None => refusal(StatusCode::NOT_FOUND, "NoSuchUpload"),
            },
            (&Method::PUT, false, None) if asked.header("x-goog-copy-source").is_some() => self.copy(asked),
            (&Method::PUT, false, None) => self.put(asked),
            (&Method::DELETE, false, None) => self.delete(asked),
            _ => refusal(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"),
        }
    }

    /// True where `x-goog-if-generation-match` holds.
    fn holds(&self, asked: &Asked) -> bool {
        let present = self.objects.get(&asked.key).map_or(0, |object| object.generation);
        asked.header("x-goog-if-generation-match").is_none_or(|wanted| wanted == present.to_string())
    }

    fn write(&mut self, key: &str, bytes: Bytes, headers: HeaderMap) -> String {
        self.last += 1;
        let object = Object { bytes, headers, generation: self.last, modified: Utc::now() };
        let etag = object.etag();
        self.objects.insert(key.to_owned(), object);
        etag
    }

    fn put(&mut self, asked: &Asked) -> Answer {
        if !self.holds(asked) {
            return refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let etag = self.write(&asked.key, asked.body.clone(), kept(&asked.headers));
        Response::builder().header("etag", etag).body(Full::default()).unwrap()
    }

    fn get(&self, asked: &Asked) -> Answer {
        let Some(object) = self.objects.get(&asked.key) else { return refusal(StatusCode::NOT_FOUND, "NoSuchKey") };
        if asked.header("if-match").is_some_and(|etag| etag != object.etag()) {
            return refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let size = object.bytes.len();
        let mut answer = Response::builder()
            .header("etag", object.etag())
            .header("x-goog-generation", object.generation)
            .header("last-modified", object.modified.format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        for (name, value) in &object.headers {
            answer = answer.header(name, value);
        }
        if asked.method == Method::HEAD {
            return answer.header("content-length", size).body(Full::default()).unwrap();
        }
        let Some(range) = asked.header("range").and_then(|range| range.strip_prefix("bytes=")) else {
            return answer.body(Full::new(object.bytes.clone())).unwrap();
        };
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = match (from.parse::<usize>(), to.parse::<usize>()) {
            (Ok(from), Ok(to)) => (from, to.saturating_add(1).min(size)),
            (Ok(from), Err(_)) => (from, size),
            (Err(_), Ok(count)) => (size.saturating_sub(count), size),
            _ => return refusal(StatusCode::BAD_REQUEST, "InvalidArgument"),
        };
        if from >= size {
            return refusal(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange");
        }
        let answer =
            answer.status(StatusCode::PARTIAL_CONTENT).header("content-range", format!("bytes {from}-{}/{size}", to - 1));
        answer.body(Full::new(object.bytes.slice(from..to))).unwrap()
    }

    fn delete(&mut self, asked: &Asked) -> Answer {
        if !self.objects.contains_key(&asked.key) {
            return refusal(StatusCode::NOT_FOUND, "NoSuchKey");
        }
        if !self.holds(asked) {
            return refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        self.objects.remove(&asked.key);
        plain(StatusCode::NO_CONTENT, "")
    }

    fn copy(&mut self, asked: &Asked) -> Answer {
        let source = asked.header("x-goog-copy-source").unwrap().trim_start_matches('/');
        let (_, source) = source.split_once('/').unwrap();
        let source = percent_encoding::percent_decode_str(source).decode_utf8_lossy().into_owned();
        let Some(object) = self.objects.get(&source).cloned() else { return refusal(StatusCode::NOT_FOUND, "NoSuchKey") };
        let changed = asked.header("x-goog-copy-source-if-match").is_some_and(|etag| etag != object.etag());
        if changed || !self.holds(asked) {
            return refusal(StatusCode::PRECONDITION_FAILED, "PreconditionFailed");
        }
        let etag = self.write(&asked.key, object.bytes, object.headers);
        plain(StatusCode::OK, format!("<CopyObjectResult><ETag>{}</ETag></CopyObjectResult>", escape(&etag)))
    }

    fn start(&mut self, asked: &Asked) -> Answer {
        self.last += 1;
        let id = format!("upload {}+/=", self.last);
        self.uploads.insert(id.clone(), Upload { key: asked.key.clone(), headers: kept(&asked.headers), parts: BTreeMap::new() });
        plain(StatusCode::OK, format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"))
    }

    fn part(&mut self, asked: &Asked, upload: &str) -> Answer {
        let Some(upload) = self.uploads.get_mut(upload) else { return refusal(StatusCode::NOT_FOUND, "NoSuchUpload") };
        let number = asked.query["partNumber"].parse().unwrap();
        upload.parts.insert(number, asked.body.clone());
        Response::builder().header("etag", etag(&asked.body)).body(Full::default()).unwrap()
    }

    fn complete(&mut self, asked: &Asked, upload: &str) -> Answer {
        // As documented: an upload in parts has no preconditions.
        if asked.header("x-goog-if-generation-match").is_some() {
            return refusal(StatusCode::BAD_REQUEST, "InvalidArgument");
        }
        let Some(upload) = self.uploads.remove(upload) else { return refusal(StatusCode::NOT_FOUND, "NoSuchUpload") };
        let list = String::from_utf8_lossy(&asked.body).into_owned();
        let named = list.matches("<PartNumber>").count();
        let is_small = |(n, part): (usize, &Bytes)| n + 1 < named && part.len() < 5 << 20;
        if upload.key != asked.key || named != upload.parts.len() || upload.parts.values().enumerate().any(is_small) {
            return refusal(StatusCode::BAD_REQUEST, "InvalidPart");
        }
        let bytes: Vec<u8> = upload.parts.into_values().flatten().collect();
        let etag = self.write(&asked.key, bytes.into(), upload.headers);
        plain(
            StatusCode::OK,
            format!("<CompleteMultipartUploadResult><ETag>{}</ETag></CompleteMultipartUploadResult>", escape(&etag)),
        )
    }

    fn list(&self, asked: &Asked) -> Answer {
        let text = |name: &str| asked.query.get(name).map_or("", String::as_str);
        let (prefix, delimited) = (text("prefix"), text("delimiter") == "/");
        let limit: usize = text("max-keys").parse().unwrap_or(1_000);
        let after = if text("continuation-token").is_empty() { text("start-after") } else { text("continuation-token") };
        let mut xml = String::from("<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>");
        let mut folders = BTreeSet::new();
        let (mut count, mut last, mut more) = (0, String::new(), false);
        for (key, object) in self.objects.iter().filter(|(key, _)| key.starts_with(prefix) && key.as_str() > after) {
            let folder = key[prefix.len()..].find('/').filter(|_| delimited).map(|at| &key[..prefix.len() + at + 1]);
            // The rest of a folder that was told already, on this page or the one before.
            if folder.is_some_and(|folder| folders.contains(folder) || after.starts_with(folder)) {
                last.clone_from(key);
                continue;
            }
            if count == limit {
                more = true;
                break;
            }
            count += 1;
            last.clone_from(key);
            match folder {
                Some(folder) => {
                    folders.insert(folder);
                    xml += &format!("<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>", escape(folder));
                }
                None => {
                    let modified = object.modified.format("%Y-%m-%dT%H:%M:%S%.3fZ");
                    let (key, etag, size) = (escape(key.as_str()), object.etag(), object.bytes.len());
                    xml += &format!(
                        "<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><ETag>{}</ETag><Size>{size}</Size></Contents>",
                        escape(&etag)
                    );
                }
            }
        }
        xml += &format!("<IsTruncated>{more}</IsTruncated>");
        if more {
            xml += &format!("<NextContinuationToken>{}</NextContinuationToken>", escape(&last));
        }
        plain(StatusCode::OK, xml + "</ListBucketResult>")
    }
}
