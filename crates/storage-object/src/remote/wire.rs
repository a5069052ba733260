//! One request and its answer: signing, sending, and what a refusal means.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use http::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Method, StatusCode};
use object_store::client::{HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponseBody};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use storage_core::{Error, ErrorKind, Result};

use super::errors::element;

/// What stands for itself in a URL (RFC 3986, "unreserved"): signatures are made over exactly this form.
const STRICT: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const STRICT_PATH: AsciiSet = STRICT.remove(b'/');
/// How much of a refusal's text is read, and how much a message shows.
const MAX_REFUSAL: usize = 64 << 10;
const SHOWN: usize = 300;
/// How many closed connections a request gets over: there may be several that wait.
const CLOSED: u32 = 4;

/// A key as part of a URL's path.
pub(crate) fn encoded_path(key: &str) -> String {
    utf8_percent_encode(key, &STRICT_PATH).to_string()
}

/// `base`, with a query.
#[cfg(feature = "buckets")]
pub(crate) fn with_query(base: &str, query: &[(&str, &str)]) -> String {
    let mut url = base.to_owned();
    for (n, (name, value)) in query.iter().enumerate() {
        url.push(if n == 0 { '?' } else { '&' });
        url.extend(utf8_percent_encode(name, &STRICT));
        url.push('=');
        url.extend(utf8_percent_encode(value, &STRICT));
    }
    url
}

/// Signs requests with the credentials of the day.
#[async_trait]
pub(crate) trait Authorize: fmt::Debug + Send + Sync + 'static {
    async fn authorize(&self, request: &mut HttpRequest) -> Result<()>;
}

/// A request that is not signed yet.
#[derive(Clone)]
pub(crate) struct Call {
    method: Method,
    url: String,
    headers: HeaderMap,
    body: Bytes,
    bad_header: Option<String>,
    /// Done twice it does no more than once.
    repeatable: bool,
}

impl Call {
    pub(crate) fn new(method: Method, url: String) -> Self {
        let repeatable = matches!(method, Method::GET | Method::HEAD);
        Self { method, url, headers: HeaderMap::new(), body: Bytes::new(), bad_header: None, repeatable }
    }

    /// One that may be done twice, though it does more than read.
    #[cfg(feature = "http")]
    pub(crate) fn repeatable(mut self) -> Self {
        self.repeatable = true;
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        match (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
            (Ok(name), Ok(value)) => {
                self.headers.insert(name, value);
            }
            _ => self.bad_header = Some(name.to_owned()),
        }
        self
    }

    pub(crate) fn header_if(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.header(name, value),
            None => self,
        }
    }

    pub(crate) fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// A good answer.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: HttpResponseBody,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The whole body, of an answer that is known to be short.
    #[cfg(feature = "buckets")]
    pub(crate) async fn text(self) -> Result<String> {
        let bytes = self.body.bytes().await.map_err(transport)?;
        String::from_utf8(bytes.into()).map_err(|e| Error::unavailable("the service's answer is not text").with_source(e))
    }

    /// The whole body, which may be long.
    #[cfg(feature = "http")]
    pub(crate) async fn text_up_to(self, limit: usize) -> Result<String> {
        let (mut body, mut stream) = (Vec::new(), self.into_stream());
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            if body.len() + piece.len() > limit {
                return Err(Error::invalid(format!("the service's answer has more than {limit} bytes: too much in one folder")));
            }
            body.extend_from_slice(&piece);
        }
        String::from_utf8(body).map_err(|e| Error::unavailable("the service's answer is not text").with_source(e))
    }

    /// The body in pieces, as they come.
    pub(crate) fn into_stream(self) -> storage_core::ByteStream {
        self.body.bytes_stream().map(|piece| piece.map_err(transport)).boxed()
    }
}

/// A service's no.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    /// `NoSuchKey`, `BlobNotFound`; empty where the answer had none.
    pub(crate) code: String,
    message: String,
    retry_after: Option<Duration>,
}

/// Why a call did not succeed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The service answered, and did nothing.
    Refused(Refusal),
    /// No answer, or none that can be used.
    Failed(Error),
}

impl Failure {
    /// The status of the service's no.
    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused(refusal) => Some(refusal.status),
            Self::Failed(_) => None,
        }
    }

    /// What a service would say whose condition does not hold.
    #[cfg(any(feature = "aws", feature = "gcp"))]
    pub(crate) fn stale() -> Self {
        let (code, message) = ("PreconditionFailed".to_owned(), String::new());
        Self::Refused(Refusal { status: StatusCode::PRECONDITION_FAILED, code, message, retry_after: None })
    }

    /// An error within an answer whose status is 200: S3 answers so where it was long in doubt.
    #[cfg(any(feature = "aws", feature = "gcp"))]
    pub(crate) fn within(body: &str) -> Self {
        let code = element(body, "Code").unwrap_or_default();
        let status = match code.as_str() {
            "PreconditionFailed" => StatusCode::PRECONDITION_FAILED,
            "SlowDown" | "ServiceUnavailable" => StatusCode::SERVICE_UNAVAILABLE,
            "NoSuchKey" | "NoSuchUpload" => StatusCode::NOT_FOUND,
            "InvalidPart" | "InvalidPartOrder" | "EntityTooSmall" => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let message = element(body, "Message").unwrap_or_default();
        Self::Refused(Refusal { status, code, message, retry_after: None })
    }

    /// There is no blob of this name.
    pub(crate) fn is_missing(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.status == StatusCode::NOT_FOUND,
            Self::Failed(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    /// The connection was closed before anything was answered, as servers do with connections that wait for a next request.
    fn is_closed(&self) -> bool {
        let Self::Failed(error) = self else { return false };
        let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<HttpError>());
        source.is_some_and(|source| matches!(source.kind(), HttpErrorKind::Request | HttpErrorKind::Interrupted))
    }

    pub(crate) fn is(&self, status: StatusCode) -> bool {
        self.status() == Some(status)
    }

    #[cfg(feature = "buckets")]
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Refused(refusal) => &refusal.code,
            Self::Failed(_) => "",
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => refusal.into(),
            Failure::Failed(error) => error,
        }
    }
}

/// Sends signed requests.
#[derive(Debug)]
pub(crate) struct Wire {
    client: HttpClient,
    signer: Box<dyn Authorize>,
}

impl Wire {
    pub(crate) fn new(client: HttpClient, signer: Box<dyn Authorize>) -> Self {
        Self { client, signer }
    }

    /// Sends, and what may be done twice again where the server closed the connection as it went out (RFC 9110, 9.2.2): servers do so with
    /// connections that waited, also late, once they have stood still. An answer other than 2xx is a [`Refusal`].
    pub(crate) async fn send(&self, call: Call) -> Result<Answer, Failure> {
        if call.repeatable {
            for _ in 0..CLOSED {
                match self.send_once(call.clone()).await {
                    Err(failure) if failure.is_closed() => tracing::debug!("the server closed the connection: asked again"),
                    answer => return answer,
                }
            }
        }
        self.send_once(call).await
    }

    async fn send_once(&self, call: Call) -> Result<Answer, Failure> {
        if let Some(name) = call.bad_header {
            return Err(Error::invalid(format!("the value for `{name}` does not fit into an HTTP header")).into());
        }
        let mut request = HttpRequest::new(HttpRequestBody::from(call.body.clone()));
        *request.uri_mut() =
            call.url.parse().map_err(|e: http::uri::InvalidUri| Error::config(format!("the address is not a URL: {e}")))?;
        *request.headers_mut() = call.headers;
        if !call.body.is_empty() || matches!(call.method, Method::PUT | Method::POST) {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(call.body.len()));
        }
        *request.method_mut() = call.method;
        self.signer.authorize(&mut request).await?;
        let (parts, body) = self.client.execute(request).await.map_err(transport)?.into_parts();
        let answer = Answer { status: parts.status, headers: parts.headers, body };
        if answer.status.is_success() { Ok(answer) } else { Err(Failure::Refused(Refusal::read(answer).await)) }
    }
}

/// What a broken transport is.
pub(crate) fn transport(error: HttpError) -> Error {
    // The cause is what tells: "connection refused", "invalid peer certificate".
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    match error.kind() {
        HttpErrorKind::Timeout => Error::timeout(format!("no answer in time ({text})")),
        HttpErrorKind::Connect => Error::unavailable(format!("can't connect: check the endpoint and the network ({text})")),
        _ => Error::unavailable(format!("the connection failed ({text})")),
    }
    .with_source(error)
}

impl Refusal {
    pub(crate) async fn read(answer: Answer) -> Self {
        let retry_after = answer.header(RETRY_AFTER.as_str()).and_then(wait_of);
        let header = ["x-ms-error-code", "x-amz-error-code"].iter().find_map(|name| answer.header(name)).map(str::to_owned);
        let status = answer.status;
        let mut body = Vec::new();
        let mut stream = answer.body.bytes_stream();
        // What breaks off here is a refusal all the same.
        while let Some(Ok(piece)) = stream.next().await {
            body.extend_from_slice(&piece);
            if body.len() > MAX_REFUSAL {
                break;
            }
        }
        let text = String::from_utf8_lossy(&body);
        let code = header.or_else(|| element(&text, "Code")).unwrap_or_default();
        let message = element(&text, "Message").unwrap_or_default();
        let message = message.lines().next().unwrap_or_default().chars().take(SHOWN).collect();
        Self { status, code, message, retry_after }
    }

    /// The kind, and what a person should know beyond what the service says.
    fn meaning(&self) -> (ErrorKind, &'static str) {
        match self.code.as_str() {
            "RequestTimeTooSkewed" => {
                return (ErrorKind::Unauthorized, "the clock of this machine is wrong by more than the service allows: set it");
            }
            "NoSuchBucket" | "ContainerNotFound" => {
                return (ErrorKind::NotFound, "there is no such bucket or container: create it, or open with auto_create");
            }
            "BucketAlreadyExists" | "BlobAlreadyExists" => return (ErrorKind::AlreadyExists, "it is there already"),
            "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" => {
                return (ErrorKind::Unauthorized, "the session token is no longer good: get a new one");
            }
            "AuthorizationHeaderMalformed" | "InvalidAccessKeyId" | "InvalidAuthenticationInfo" => {
                return (ErrorKind::Unauthorized, "the credentials were refused: check key, secret and region");
            }
            "SlowDown" | "ServerBusy" | "TooManyRequests" | "RequestLimitExceeded" | "Throttling" | "rateLimitExceeded" => {
                return (ErrorKind::Throttled, "the service asks to slow down");
            }
            "RequestTimeout" | "OperationTimedOut" => return (ErrorKind::Timeout, "the service gave up waiting"),
            "EntityTooLarge" | "RequestBodyTooLarge" | "KeyTooLongError" => {
                return (ErrorKind::InvalidInput, "it is larger than the service takes");
            }
            _ => {}
        }
        match self.status.as_u16() {
            401 | 403 => (ErrorKind::Unauthorized, "refused: check the credentials, what they may do, and this machine's clock"),
            404 => (ErrorKind::NotFound, "it is not there"),
            304 | 409 | 412 => (ErrorKind::Conflict, "somebody else changed it meanwhile"),
            405 | 501 => (ErrorKind::Unsupported, "the service does not offer this"),
            408 | 504 => (ErrorKind::Timeout, "the service gave up waiting"),
            429 => (ErrorKind::Throttled, "the service asks to slow down"),
            300..=399 => (ErrorKind::Config, "the service sends elsewhere: check region and endpoint"),
            400..=499 => (ErrorKind::InvalidInput, "the service refuses the request as it stands"),
            _ => (ErrorKind::Unavailable, "the service can't answer now"),
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let (kind, meaning) = refusal.meaning();
        let mut said = refusal.status.as_u16().to_string();
        for part in [&refusal.code, &refusal.message] {
            if !part.is_empty() {
                said = format!("{said} {part}");
            }
        }
        let error = Self::new(kind, format!("{meaning} ({said})"));
        match refusal.retry_after {
            Some(wait) => error.with_retry_after(wait),
            None => error,
        }
    }
}

/// `Retry-After`: seconds, or a date.
fn wait_of(value: &str) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTime::parse_from_rfc2822(value.trim()).ok()?;
    (date.with_timezone(&Utc) - Utc::now()).to_std().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn refusal(status: u16, code: &str) -> Refusal {
        let status = StatusCode::from_u16(status).unwrap();
        Refusal { status, code: code.into(), message: String::new(), retry_after: None }
    }

    #[test]
    fn every_refusal_has_its_kind() {
        for (status, code, kind) in [
            (403, "RequestTimeTooSkewed", ErrorKind::Unauthorized),
            (403, "SignatureDoesNotMatch", ErrorKind::Unauthorized),
            (401, "", ErrorKind::Unauthorized),
            (400, "ExpiredToken", ErrorKind::Unauthorized),
            (404, "NoSuchBucket", ErrorKind::NotFound),
            (404, "", ErrorKind::NotFound),
            (409, "ConditionalRequestConflict", ErrorKind::Conflict),
            (409, "BlobAlreadyExists", ErrorKind::AlreadyExists),
            (412, "", ErrorKind::Conflict),
            (429, "", ErrorKind::Throttled),
            (503, "SlowDown", ErrorKind::Throttled),
            (503, "ServerBusy", ErrorKind::Throttled),
            (503, "", ErrorKind::Unavailable),
            (500, "InternalError", ErrorKind::Unavailable),
            (500, "OperationTimedOut", ErrorKind::Timeout),
            (501, "NotImplemented", ErrorKind::Unsupported),
            (301, "PermanentRedirect", ErrorKind::Config),
            (400, "EntityTooLarge", ErrorKind::InvalidInput),
        ] {
            assert_eq!(Error::from(refusal(status, code)).kind(), kind, "{status} {code}");
        }
        let skewed = Error::from(refusal(403, "RequestTimeTooSkewed"));
        assert!(skewed.message().contains("clock"), "{skewed}");
    }

    #[test]
    fn waits_are_seconds_or_dates() {
        assert_eq!(wait_of("7"), Some(Duration::from_secs(7)));
        let later = (Utc::now() + chrono::Duration::seconds(90)).format("%a, %d %b %Y %H:%M:%S GMT").to_string();
        assert!((80..=90).contains(&wait_of(&later).unwrap().as_secs()));
        assert_eq!(wait_of("soon"), None);
    }

    #[test]
    fn keys_and_queries_are_encoded_strictly() {
        assert_eq!(encoded_path("a b/%2F+ü~"), "a%20b/%252F%2B%C3%BC~");
        assert_eq!(with_query("http://x/y", &[("prefix", "a/b c"), ("uploads", "")]), "http://x/y?prefix=a%2Fb%20c&uploads=");
        assert_eq!(element("<E><Code>No &amp; no</Code></E>", "Code").as_deref(), Some("No & no"));
    }
}
