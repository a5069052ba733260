//! Requests to a WebDAV server, one by one.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue};
use http::{Method, StatusCode};
use object_store::client::HttpRequest;
use storage_core::{Error, ErrorKind, Result};

use super::multistatus::{ASKED, Entry, entries, path_of};
use crate::remote::read::{Found, Source, quoted};
use crate::remote::wire::{Answer, Authorize, Call, Failure, Wire, encoded_path};

/// The most that a folder's listing may have, in bytes: some 250,000 files.
const LONGEST_LISTING: usize = 128 << 20;

/// What proves who asks.
#[derive(Clone)]
pub(super) struct Login(pub(super) HeaderValue);

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login(***)")
    }
}

#[async_trait]
impl Authorize for Option<Login> {
    async fn authorize(&self, request: &mut HttpRequest) -> Result<()> {
        if let Some(Login(value)) = self {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        Ok(())
    }
}

/// A folder on a server.
#[derive(Debug)]
pub(super) struct Dav {
    pub(super) wire: Wire,
    /// For bodies in pieces: it has no limit on the time until the answer, which comes behind the last piece.
    pub(super) uploads: reqwest::Client,
    pub(super) login: Option<Login>,
    /// Without a slash at its end.
    pub(super) address: String,
    /// How long the server may be silent.
    pub(super) silence: Duration,
}

fn method(name: &'static str) -> Result<Method, Failure> {
    Method::from_bytes(name.as_bytes()).map_err(|e| Error::internal("not a method").with_source(e).into())
}

/// What servers answer to a path that goes on behind a file. Apache: 400.
fn may_be_below_a_file(failure: &Failure) -> bool {
    failure.status().is_some_and(|status| matches!(status.as_u16(), 400 | 403 | 405 | 409))
}

fn not_there() -> Failure {
    Error::new(ErrorKind::NotFound, "there is no such file").into()
}

#[async_trait]
impl Source for Dav {
    fn wire(&self) -> &Wire {
        &self.wire
    }

    /// No header begins so: WebDAV keeps no metadata beside a file's bytes that a write could set with them.
    fn metadata_prefix(&self) -> &'static str {
        "\0"
    }

    fn suffix_ranges(&self) -> bool {
        true
    }

    fn url(&self, key: &str) -> String {
        if key.is_empty() { format!("{}/", self.address) } else { format!("{}/{}", self.address, encoded_path(key)) }
    }

    /// By `PROPFIND`: what servers answer to `HEAD` of a folder differs.
    async fn find(&self, key: &str) -> Result<Found, Failure> {
        match self.look(key).await? {
            Some(entry) if !entry.is_folder => Ok(entry.found()?),
            _ => Err(not_there()),
        }
    }

    /// Apache takes a file's size, time and mark from one look at it and its bytes from a second: of a file that is replaced in between it answers the
    /// size of the old one and bytes of the new one. A look afterwards tells: what is still the same was so when it was opened.
    async fn check(&self, key: &str, answer: &Answer) -> Result<bool, Failure> {
        let state = state_of(answer);
        if state.mark.is_none() && state.time.is_none() {
            // A folder may be answered as a page for people, which has neither.
            return self.find(key).await.map(|_| true);
        }
        let now = self.wire.send(Call::new(Method::HEAD, self.url(key))).await?;
        Ok(state == state_of(&now))
    }
}

/// What tells a file's states apart.
#[derive(Debug, PartialEq)]
struct State<'a> {
    mark: Option<&'a str>,
    time: Option<&'a str>,
    size: &'a str,
}

fn state_of(answer: &Answer) -> State<'_> {
    let ranged = answer.header("content-range").and_then(|range| range.rsplit('/').next());
    State {
        // A mark is weak as long as its file is new, and the same otherwise.
        mark: answer.header("etag").map(|etag| etag.trim_start_matches("W/")),
        time: answer.header("last-modified"),
        // Apache leaves it out of its answer to `HEAD` where the file is empty.
        size: ranged.or_else(|| answer.header("content-length")).unwrap_or("0"),
    }
}

impl Dav {
    /// Sends what may be done twice: Apache closes connections that wait at any moment.
    async fn ask(&self, call: Call) -> Result<Answer, Failure> {
        self.wire.send(call.repeatable()).await
    }

    async fn propfind(&self, url: String, depth: &str) -> Result<Option<Vec<Entry>>, Failure> {
        let call = Call::new(method("PROPFIND")?, url).header("depth", depth).header("content-type", "application/xml");
        let answer = match self.ask(call.body(ASKED)).await {
            Ok(answer) if answer.status == StatusCode::MULTI_STATUS => answer,
            Ok(_) => {
                return Err(Error::unsupported(
                    "the server does not speak WebDAV: it answers PROPFIND as if it were another request",
                )
                .into());
            }
            Err(failure) if failure.is_missing() => return Ok(None),
            Err(failure) => return Err(failure),
        };
        Ok(Some(entries(&answer.text_up_to(LONGEST_LISTING).await?)?))
    }

    /// The file or folder of this key.
    pub(super) async fn look(&self, key: &str) -> Result<Option<Entry>, Failure> {
        let found = match self.look_at(key).await {
            Err(failure) if may_be_below_a_file(&failure) && self.file_above(key).await?.is_some() => None,
            found => found?,
        };
        Ok(found)
    }

    async fn look_at(&self, key: &str) -> Result<Option<Entry>, Failure> {
        let url = self.url(key);
        let asked = path_of(&url);
        let found = self.propfind(url, "0").await?;
        // A file that is looked up by a name with a slash in it, `file/x`, may be answered as itself.
        Ok(found.and_then(|found| found.into_iter().find(|entry| Some(&entry.path) == asked.as_ref())))
    }

    /// The file, if there is one, that stands where a folder above this key would be.
    pub(super) async fn file_above<'a>(&self, key: &'a str) -> Result<Option<&'a str>, Failure> {
        for (at, _) in key.match_indices('/') {
            match self.look_at(&key[..at]).await? {
                Some(entry) if entry.is_folder => {}
                Some(_) => return Ok(Some(&key[..at])),
                None => return Ok(None),
            }
        }
        Ok(None)
    }

    /// What is in a folder: names, and what is known. `None`: it is no folder, or not there.
    pub(super) async fn members(&self, folder: &str) -> Result<Option<Vec<(String, Entry)>>, Failure> {
        let url = if folder.is_empty() { self.url("") } else { format!("{}/", self.url(folder)) };
        let asked = path_of(&url).unwrap_or_default();
        let found = match self.propfind(url, "1").await {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            // A file, or below one.
            Err(failure) if may_be_below_a_file(&failure) && !self.look(folder).await?.is_some_and(|entry| entry.is_folder) => {
                return Ok(None);
            }
            Err(failure) => return Err(failure),
        };
        match found.iter().find(|entry| entry.path == asked) {
            Some(itself) if !itself.is_folder => return Ok(None),
            Some(_) => {}
            // Names can't be told from the folder's own then.
            None => {
                return Err(Error::unavailable(
                    "the server's listing of a folder does not name the folder: is there a proxy that changes paths?",
                )
                .into());
            }
        }
        let below = if asked.is_empty() { String::new() } else { format!("{asked}/") };
        let mut seen = HashSet::new();
        let members = found.into_iter().filter_map(|entry| {
            let name = entry.path.strip_prefix(&below).filter(|name| !name.is_empty() && !name.contains('/'))?.to_owned();
            seen.insert(name.clone()).then_some((name, entry))
        });
        Ok(Some(members.collect()))
    }

    /// Writes with one request.
    pub(super) async fn put(&self, key: &str, body: Bytes) -> Result<(), Failure> {
        self.ask(Call::new(Method::PUT, self.url(key)).body(body)).await.map(drop)
    }

    /// Removes a file, never a folder with all that is in it: the mark that a file was found with is held against it.
    pub(super) async fn delete(&self, key: &str, found: &Found) -> Result<(), Failure> {
        let call = Call::new(Method::DELETE, self.url(key));
        let etag = found.etag.as_ref().map(quoted);
        self.ask(call.header_if("if-match", etag.as_deref())).await.map(drop)
    }

    /// Removes a folder with all that is in it.
    pub(super) async fn delete_folder(&self, key: &str) -> Result<(), Failure> {
        self.ask(Call::new(Method::DELETE, format!("{}/", self.url(key)))).await.map(drop)
    }

    /// Gives a folder another name that nothing has.
    pub(super) async fn move_folder(&self, from: &str, to: &str) -> Result<(), Failure> {
        let call = Call::new(method("MOVE")?, format!("{}/", self.url(from)));
        let call = call.header("destination", &format!("{}/", self.url(to))).header("overwrite", "F");
        self.wire.send(call).await.map(drop)
    }

    /// Makes a folder and those above it; the empty key is the store's own. `false`: it was there.
    pub(super) async fn make_folders(&self, key: &str) -> Result<bool, Failure> {
        let path = if key.is_empty() { self.address.clone() } else { self.url(key) };
        let host = path.find("://").map_or(0, |at| at + 3);
        // Slashes that end a folder's name, the deepest first.
        let ends: Vec<usize> = path.rmatch_indices('/').map(|(at, _)| at).filter(|at| *at > host).collect();
        if ends.is_empty() {
            return Ok(false);
        }
        let folders: Vec<&str> = std::iter::once(path.as_str()).chain(ends.iter().map(|at| &path[..*at])).collect();
        // The last is the host.
        let folders = &folders[..folders.len() - 1];
        for (missing, folder) in folders.iter().enumerate() {
            match self.make_folder(folder).await? {
                Made::There if missing == 0 => return Ok(false),
                Made::NothingAbove => continue,
                Made::New | Made::There => {}
            }
            for folder in folders[..missing].iter().rev() {
                if let Made::NothingAbove = self.make_folder(folder).await? {
                    return Err(Error::conflict("a folder can't be made, or is gone as soon as it is made").into());
                }
            }
            return Ok(true);
        }
        Err(Error::new(ErrorKind::NotFound, "the server has no folder that could hold this one").into())
    }

    async fn make_folder(&self, url: &str) -> Result<Made, Failure> {
        match self.ask(Call::new(method("MKCOL")?, format!("{url}/"))).await {
            Ok(_) => Ok(Made::New),
            Err(failure) if failure.is(StatusCode::METHOD_NOT_ALLOWED) => Ok(Made::There),
            Err(failure) if may_be_below_a_file(&failure) || failure.is_missing() => Ok(Made::NothingAbove),
            Err(failure) => Err(failure),
        }
    }
}

enum Made {
    New,
    There,
    NothingAbove,
}
