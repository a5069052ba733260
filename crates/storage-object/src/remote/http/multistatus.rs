//! The answer to `PROPFIND`: what a server knows of a file, or of a folder's members.

use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use storage_core::{BlobAttributes, ETag, Error, Result};

use crate::remote::read::{Found, http_date, mark};

/// What is asked for.
pub(super) const ASKED: &str = concat!(
    r#"<?xml version="1.0" encoding="utf-8"?><propfind xmlns="DAV:"><prop>"#,
    "<resourcetype/><getcontentlength/><getlastmodified/><getetag/></prop></propfind>"
);

#[derive(Deserialize)]
struct Multistatus {
    #[serde(default)]
    response: Vec<Response>,
}

#[derive(Deserialize)]
struct Response {
    href: String,
    #[serde(default)]
    propstat: Vec<PropStat>,
}

#[derive(Deserialize)]
struct PropStat {
    prop: Prop,
    status: String,
}

#[derive(Deserialize)]
struct Prop {
    getcontentlength: Option<String>,
    getlastmodified: Option<String>,
    getetag: Option<String>,
    resourcetype: Option<ResourceType>,
}

#[derive(Deserialize)]
struct ResourceType {
    collection: Option<serde::de::IgnoredAny>,
}

/// A file or a folder.
#[derive(Debug)]
pub(super) struct Entry {
    /// The path on the server, decoded, without a slash at its end.
    pub(super) path: String,
    pub(super) is_folder: bool,
    size: Option<u64>,
    modified_at: Option<DateTime<Utc>>,
    etag: Option<ETag>,
}

impl Entry {
    /// As a blob. Marks are for our own requests alone: conditions on them hold for reads and deletes, not for writes.
    pub(super) fn found(self) -> Result<Found> {
        Ok(Found {
            size: self.size.ok_or_else(|| Error::unavailable("the server does not say how large the file is"))?,
            modified_at: self.modified_at.unwrap_or_else(Utc::now),
            etag: self.etag,
            attributes: BlobAttributes::default(),
        })
    }
}

/// The path of a URL, or of a path alone, decoded and without a slash at its end.
pub(super) fn path_of(href: &str) -> Option<String> {
    let path = match href.split_once("://") {
        Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
        None => href,
    };
    Some(percent_decode_str(path).decode_utf8().ok()?.trim_matches('/').to_owned())
}

/// All that an answer names; what has a name that is not UTF-8 is left out, since no path can name it.
pub(super) fn entries(answer: &str) -> Result<Vec<Entry>> {
    let parsed: Multistatus = quick_xml::de::from_str(answer)
        .map_err(|e| Error::unavailable(format!("the server's answer is not that of WebDAV: {e}")).with_source(e))?;
    Ok(parsed.response.into_iter().filter_map(entry).collect())
}

fn entry(response: Response) -> Option<Entry> {
    let path = path_of(response.href.trim())?;
    let mut entry = Entry { path, is_folder: false, size: None, modified_at: None, etag: None };
    let known = response.propstat.into_iter().filter(|part| part.status.split(' ').nth(1) == Some("200"));
    for Prop { getcontentlength, getlastmodified, getetag, resourcetype } in known.map(|part| part.prop) {
        entry.is_folder |= resourcetype.is_some_and(|kind| kind.collection.is_some());
        entry.size = getcontentlength.and_then(|size| size.trim().parse().ok()).or(entry.size);
        entry.modified_at = getlastmodified.and_then(|at| http_date(at.trim())).or(entry.modified_at);
        // Weak marks don't tell states of the bytes apart.
        entry.etag = getetag
            .filter(|etag| !etag.trim().is_empty() && !etag.trim().starts_with("W/"))
            .map(|etag| mark(etag.trim()))
            .or(entry.etag);
    }
    Some(entry)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    /// As Apache answers, with prefixes of its own and a part of what it does not know.
    const APACHE: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<D:multistatus xmlns:D="DAV:" xmlns:ns0="DAV:">
<D:response xmlns:lp1="DAV:" xmlns:lp2="http://apache.org/dav/props/">
<D:href>/dav/a%20b/</D:href>
<D:propstat><D:prop><lp1:resourcetype><D:collection/></lp1:resourcetype>
<lp1:getlastmodified>Fri, 27 Nov 2026 02:00:00 GMT</lp1:getlastmodified></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>
<D:propstat><D:prop><D:getcontentlength/></D:prop><D:status>HTTP/1.1 404 Not Found</D:status></D:propstat>
</D:response>
<D:response xmlns:lp1="DAV:">
<D:href>http://host:80/dav/a%20b/%C3%BC%26.txt</D:href>
<D:propstat><D:prop><lp1:resourcetype/><lp1:getcontentlength>12</lp1:getcontentlength>
<lp1:getetag>"c-5"</lp1:getetag></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>
</D:response>
</D:multistatus>"#;

    #[test]
    fn answers_are_read_whatever_prefixes_they_have() {
        let [folder, file] = <[Entry; 2]>::try_from(entries(APACHE).unwrap()).unwrap();
        assert_eq!((folder.path.as_str(), folder.is_folder, folder.size), ("dav/a b", true, None));
        assert_eq!((file.path.as_str(), file.is_folder), ("dav/a b/ü&.txt", false));
        let found = file.found().unwrap();
        assert_eq!((found.size, found.etag), (12, Some(ETag("c-5".into()))));
        assert!(folder.found().is_err());
        assert!(entries("<html><body>It works!</body>").is_err());
        assert!(entries(&APACHE.replace("\"c-5\"", "W/\"c-5\"")).unwrap()[1].etag.is_none());
    }
}
