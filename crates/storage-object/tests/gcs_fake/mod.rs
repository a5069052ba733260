//! A fake of the part of Google Cloud Storage's XML API that the backend uses, in memory. It is written after Google's documentation, not
//! after the service itself: what passes here is not proven against the service.

mod bucket;

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;

use bucket::Bucket;

/// The token that is accepted.
pub(crate) const TOKEN: &str = "storagetest";

type Answer = Response<Full<Bytes>>;
type Buckets = Mutex<BTreeMap<String, Bucket>>;

/// A request, read.
struct Asked {
    method: Method,
    key: String,
    query: BTreeMap<String, String>,
    headers: hyper::HeaderMap,
    body: Bytes,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// The fake's address. It runs in a thread of its own as long as the process.
pub(crate) fn address() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener));
        });
        address
    })
}

async fn serve(listener: std::net::TcpListener) {
    static BUCKETS: Buckets = Mutex::new(BTreeMap::new());
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(async move {
            let service = service_fn(|request| async { Ok::<_, std::convert::Infallible>(answer(&BUCKETS, request).await) });
            // A client that goes away is no failure of the fake.
            _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

async fn answer(buckets: &Buckets, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let Ok(body) = body.collect().await.map(http_body_util::Collected::to_bytes) else {
        return refusal(StatusCode::BAD_REQUEST, "IncompleteBody");
    };
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let path = parts.uri.path().trim_start_matches('/');
    let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
    let pairs = parts.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let query = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(name, value)| (decoded(name), decoded(value)));
    let asked = Asked { method: parts.method, key: decoded(key), query: query.collect(), headers: parts.headers, body };
    if asked.header("authorization") != Some(&format!("Bearer {TOKEN}")) {
        return refusal(StatusCode::UNAUTHORIZED, "AuthenticationRequired");
    }
    let mut buckets = buckets.lock().unwrap_or_else(PoisonError::into_inner);
    if asked.key.is_empty() && asked.method == Method::PUT {
        if asked.header("x-goog-project-id").is_none() {
            return refusal(StatusCode::BAD_REQUEST, "MissingProject");
        }
        buckets.entry(decoded(bucket)).or_default();
        return plain(StatusCode::OK, "");
    }
    match buckets.get_mut(&decoded(bucket)) {
        Some(bucket) => bucket.answer(&asked),
        None => refusal(StatusCode::NOT_FOUND, "NoSuchBucket"),
    }
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    Response::builder().status(status).body(Full::new(body.into())).unwrap()
}

fn refusal(status: StatusCode, code: &str) -> Answer {
    plain(
        status,
        format!("<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>the fake says no</Message></Error>"),
    )
}
