//! The service: one request each, with a time limit, none of them repeated. There is no official client; requests go through the official pipeline.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::policies::Policy;
use azure_core::http::policies::auth::BearerTokenAuthorizationPolicy;
use azure_core::http::{Context, Method, Pipeline, PipelineSendOptions, Request, Url};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use storage_azure::{CONNECTING, IDLE, unanswered};
use storage_core::{Error, Result};
use tokio::sync::Semaphore;

use crate::batch;
use crate::config::Settings;
use crate::entity::Entity;
use crate::error::{Refusal, code};
use crate::keys::Place;
use crate::odata::quoted;

/// The service's interface as of then.
const VERSION: &str = "2019-02-02";
const JSON: &str = "application/json;odata=minimalmetadata";
/// Whose tokens are asked for.
const SCOPE: &str = "https://storage.azure.com/.default";
/// What stands for itself in an address: it is signed as it is written.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// The largest answer that is asked for, where the size of its entities is known from those before.
const ANSWER: usize = 8 << 20;
/// How many, where their size is not known yet.
const AT_FIRST: usize = 256;
/// How many entities one answer holds at most.
pub(crate) const MOST: usize = 1_000;

/// A storage account's tables.
pub(crate) struct Client {
    pipeline: Pipeline,
    /// Without the signature.
    root: String,
    signature: Option<String>,
    /// How many requests are under way at most.
    slots: Semaphore,
    timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("root", &self.root).field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

struct Answer {
    status: u16,
    headers: Headers,
    body: azure_core::Bytes,
}

impl Answer {
    fn header(&self, name: &'static str) -> Option<String> {
        self.headers.get_optional_str(&HeaderName::from_static(name)).filter(|value| !value.is_empty()).map(str::to_owned)
    }

    fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).map_err(|_| Error::unavailable("the service's answer can't be read"))
    }
}

/// A change of one entity.
#[derive(Debug)]
pub(crate) enum Change {
    /// It is written where there is none.
    Insert(Map<String, Value>),
    /// It is written where there is none, and says that none is there.
    Vacant(Map<String, Value>),
    /// It is written in the place of the one with this mark.
    Replace(Map<String, Value>, String),
    /// The one with this mark stays as it is, and gets another.
    Touch(Map<String, Value>, String),
    /// The one with this mark is removed.
    Delete(String),
}

/// A query of entities, from page to page.
#[derive(Clone, Debug, Default)]
pub(crate) struct Search {
    /// All must hold.
    pub(crate) terms: Vec<String>,
    /// The properties that are wanted; all, where this is empty.
    pub(crate) select: Vec<&'static str>,
    /// How many entities are wanted in one answer, 1 to [`MOST`].
    top: usize,
    most: usize,
    /// Where the next page begins.
    next: Option<(String, Option<String>)>,
    begun: bool,
}

impl Search {
    /// All that match; `most` entities are wanted in one answer.
    pub(crate) fn new(terms: Vec<String>, most: usize) -> Self {
        let most = most.clamp(1, MOST);
        Self { terms, top: most.min(AT_FIRST), most, ..Self::default() }
    }

    pub(crate) fn select(mut self, select: &[&'static str]) -> Self {
        self.select = select.to_vec();
        self
    }

    /// True where there is no more to be asked for.
    pub(crate) fn is_over(&self) -> bool {
        self.begun && self.next.is_none()
    }
}

/// JSON in ASCII: the emulator takes bodies apart within characters, and reads batches line by line, where JavaScript has more ends of lines than others.
pub(crate) fn json_text(body: &impl serde::Serialize) -> Result<String> {
    let json = serde_json::to_string(body)?;
    if json.is_ascii() {
        return Ok(json);
    }
    let mut text = String::with_capacity(json.len() * 2);
    for c in json.chars() {
        if c.is_ascii() {
            text.push(c);
            continue;
        }
        for unit in c.encode_utf16(&mut [0; 2]) {
            text.push_str(&format!("\\u{unit:04x}"));
        }
    }
    Ok(text)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Where an entity is, below the service's root.
pub(crate) fn path(table: &str, place: &Place) -> String {
    format!("{table}(PartitionKey={},RowKey={})", encoded(&quoted(&place.partition)), encoded(&quoted(&place.row)))
}

impl Client {
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config).
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let account = &settings.account;
        let (options, credential) = account.client_options(CONNECTING, IDLE)?;
        let tokens =
            credential.map(|credential| Arc::new(BearerTokenAuthorizationPolicy::new(credential, [SCOPE])) as Arc<dyn Policy>);
        let (name, version) = (option_env!("CARGO_PKG_NAME"), option_env!("CARGO_PKG_VERSION"));
        let pipeline = Pipeline::new(name, version, options, Vec::new(), tokens.into_iter().collect(), None);
        Ok(Self {
            pipeline,
            root: account.location.clone(),
            signature: account.service_url.query().map(str::to_owned),
            slots: Semaphore::new(settings.concurrency),
            timeout: account.timeout,
        })
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, String)]) -> Result<Request> {
        let query = query.iter().map(|(name, value)| format!("{name}={}", encoded(value)));
        let query: Vec<String> = query.chain(self.signature.clone()).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        let url = Url::parse(&format!("{}/{path}{mark}{}", self.root, query.join("&")));
        let mut request = Request::new(url.map_err(|_| Error::internal("an address that is none"))?, method);
        request.insert_header("x-ms-version", VERSION);
        request.insert_header("accept", JSON);
        request.insert_header("dataserviceversion", "3.0;NetFx");
        request.insert_header("maxdataserviceversion", "3.0;NetFx");
        Ok(request)
    }

    async fn call(&self, mut request: Request) -> Result<Answer, Refusal> {
        let _slot = self.slots.acquire().await.map_err(|_| Error::internal("the client's semaphore was closed"))?;
        let options = PipelineSendOptions { skip_checks: true, ..PipelineSendOptions::default() };
        let context = Context::new();
        let sent = self.pipeline.send(&context, &mut request, Some(options));
        let answer = match tokio::time::timeout(self.timeout, sent).await {
            Ok(answer) => answer.map_err(unanswered)?,
            Err(_) => return Err(Error::timeout("the service does not answer in time").into()),
        };
        let (status, headers, body) = answer.deconstruct();
        let answer = Answer { status: status.into(), headers, body: body.into() };
        if (200..300).contains(&answer.status) {
            return Ok(answer);
        }
        Err(Refusal::answered(answer.status, &answer.headers, &answer.body))
    }

    fn with_json(&self, mut request: Request, body: &impl serde::Serialize) -> Result<Request> {
        request.insert_header("content-type", "application/json");
        request.insert_header("prefer", "return-no-content");
        request.set_body(json_text(body)?);
        Ok(request)
    }

    /// `false`: it was there.
    pub(crate) async fn create_table(&self, table: &str) -> Result<bool, Refusal> {
        let request = self.request(Method::Post, "Tables", &[])?;
        match self.call(self.with_json(request, &json!({"TableName": table}))?).await {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.is(code::TABLE_EXISTS) => Ok(false),
            Err(refusal) => Err(refusal),
        }
    }

    /// `false`: there was none.
    pub(crate) async fn drop_table(&self, table: &str) -> Result<bool, Refusal> {
        let request = self.request(Method::Delete, &format!("Tables({})", encoded(&quoted(table))), &[])?;
        match self.call(request).await {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.is(code::NO_ENTITY) || refusal.is(code::NO_TABLE) => Ok(false),
            Err(refusal) => Err(refusal),
        }
    }

    /// `None`: there is no such entity.
    pub(crate) async fn get(&self, table: &str, place: &Place) -> Result<Option<Entity>, Refusal> {
        let request = self.request(Method::Get, &path(table, place), &[])?;
        match self.call(request).await {
            Ok(answer) => Ok(Some(Entity::new(answer.json()?)?)),
            Err(refusal) if refusal.is(code::NO_ENTITY) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// The next entities, in the keys' order: fewer than asked for, or none, although more may follow ([`Search::is_over`]).
    pub(crate) async fn find(&self, table: &str, search: &mut Search) -> Result<Vec<Entity>, Refusal> {
        let mut query = vec![("$top", search.top.to_string())];
        if !search.terms.is_empty() {
            query.push(("$filter", search.terms.join(" and ")));
        }
        if !search.select.is_empty() {
            query.push(("$select", search.select.join(",")));
        }
        if let Some((partition, row)) = search.next.take() {
            query.push(("NextPartitionKey", partition));
            query.extend(row.map(|row| ("NextRowKey", row)));
        }
        let answer = self.call(self.request(Method::Get, &format!("{table}()"), &query)?).await?;
        search.begun = true;
        let partition = answer.header("x-ms-continuation-nextpartitionkey");
        search.next = partition.map(|partition| (partition, answer.header("x-ms-continuation-nextrowkey")));
        let Value::Object(mut found) = answer.json()? else { return Err(not_a_page().into()) };
        let Some(Value::Array(found)) = found.remove("value") else { return Err(not_a_page().into()) };
        // Large entities come few at a time, so that memory has a bound.
        if let Some(each) = answer.body.len().checked_div(found.len()) {
            search.top = (ANSWER / each.max(1)).clamp(1, search.most);
        }
        Ok(found.into_iter().map(Entity::new).collect::<Result<_>>()?)
    }

    /// Changes one entity; answers its new mark, where it is there afterwards.
    pub(crate) async fn change(&self, table: &str, place: &Place, change: &Change) -> Result<Option<String>, Refusal> {
        let path = path(table, place);
        let request = match change {
            Change::Insert(entity) | Change::Vacant(entity) => self.with_json(self.request(Method::Post, table, &[])?, entity)?,
            Change::Replace(entity, etag) => {
                let mut request = self.with_json(self.request(Method::Put, &path, &[])?, entity)?;
                request.insert_header("if-match", etag.clone());
                request
            }
            Change::Touch(entity, etag) => {
                let mut request = self.with_json(self.request(Method::Patch, &path, &[])?, entity)?;
                request.insert_header("if-match", etag.clone());
                request
            }
            Change::Delete(etag) => {
                let mut request = self.request(Method::Delete, &path, &[])?;
                request.insert_header("if-match", etag.clone());
                request
            }
        };
        Ok(self.call(request).await?.header("etag"))
    }

    /// Changes up to 100 entities of one partition, all or none; answers the new marks.
    pub(crate) async fn change_all(&self, table: &str, changes: &[(Place, Change)]) -> Result<Vec<Option<String>>, Refusal> {
        let (boundary, body) = batch::encode(&self.root, table, changes)?;
        let mut request = self.request(Method::Post, "$batch", &[])?;
        request.insert_header("content-type", format!("multipart/mixed; boundary={boundary}"));
        request.set_body(body);
        let answer = self.call(request).await?;
        batch::decode(&answer.body, changes.len())
    }
}

fn not_a_page() -> Error {
    Error::unavailable("the service's answer is no page of entities")
}
