//! Batches keep up with the official client alone, which sends, receives and deletes the same messages with as many requests at once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{ClientOptions, Context, Request, Transport, Url};
use azure_storage_queue::models::{QueueClientReceiveMessagesOptions, QueueMessage};
use azure_storage_queue::{QueueClient, QueueClientOptions};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chrono::Utc;
use futures::{StreamExt as _, TryStreamExt as _};
use storage_azure::{AccountKey, EMULATOR_ACCOUNT, EMULATOR_KEY, SignedRequest, authorization};
use storage_core::{NewMessage, QueueName, QueueStore, Receive, Secret};

const COUNT: usize = 1_000;
const AT_ONCE: usize = 16;
const ROUNDS: usize = 5;

/// The client has no shared keys.
#[derive(Debug)]
struct Sign(AccountKey);

#[async_trait]
#[allow(elided_lifetimes_in_paths, reason = "as the trait declares it")]
impl Policy for Sign {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        request.insert_header("x-ms-date", Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        let query: Vec<_> = request.url().query_pairs().map(|(name, value)| (name.into(), value.into())).collect();
        let headers: Vec<_> = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let verb = request.method().to_string();
        let content_length = match request.body() {
            azure_core::http::request::Body::Bytes(bytes) => bytes.len(),
            azure_core::http::request::Body::SeekableStream(_) => 0,
        };
        let signed = SignedRequest { verb: &verb, path: request.url().path(), query: &query, headers: &headers, content_length };
        let authorization = authorization(EMULATOR_ACCOUNT, &self.0, &signed);
        request.insert_header("authorization", authorization);
        next[0].send(context, request, &next[1..]).await
    }
}

fn client(address: &str, queue: &str) -> QueueClient {
    let key = AccountKey::new(&Secret::new(EMULATOR_KEY)).unwrap();
    let idle = reqwest::Client::builder().pool_idle_timeout(Duration::from_secs(2)).build().unwrap();
    let client_options = ClientOptions {
        per_try_policies: vec![Arc::new(Sign(key))],
        transport: Some(Transport::new(Arc::new(idle))),
        ..ClientOptions::default()
    };
    let url = Url::parse(&format!("{address}/{EMULATOR_ACCOUNT}/{queue}")).unwrap();
    let options = QueueClientOptions { client_options, version: "2024-11-04".to_owned() };
    QueueClient::new(url, None, Some(options)).unwrap()
}

fn body(n: usize) -> String {
    format!("{n:0>100}")
}

async fn by_the_client(client: &QueueClient) -> Duration {
    let started = Instant::now();
    let sends = (0..COUNT).map(|n| async move {
        let message = QueueMessage { message_text: Some(BASE64_STANDARD.encode(body(n))) };
        client.send_message(message.try_into()?, None).await
    });
    futures::stream::iter(sends).buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) }).await.unwrap();
    let mut seen = 0;
    while seen < COUNT {
        // As many as are asked for at once below, in as many requests.
        let receives = (0..4).map(|_| async {
            let options = QueueClientReceiveMessagesOptions {
                number_of_messages: Some(25),
                visibility_timeout: Some(60),
                ..QueueClientReceiveMessagesOptions::default()
            };
            client.receive_messages(Some(options)).await?.into_model()
        });
        let received: Vec<_> = futures::stream::iter(receives).buffer_unordered(AT_ONCE).try_collect().await.unwrap();
        let messages: Vec<_> = received.into_iter().flat_map(|received| received.items.unwrap_or_default()).collect();
        seen += messages.len();
        let deletes = messages.into_iter().map(|message| async move {
            BASE64_STANDARD.decode(message.message_text.unwrap()).unwrap();
            client.delete_message(&message.message_id.unwrap(), &message.pop_receipt.unwrap(), None).await
        });
        futures::stream::iter(deletes).buffer_unordered(AT_ONCE).try_for_each(|_| async { Ok(()) }).await.unwrap();
    }
    started.elapsed()
}

async fn by_ours(store: &QueueStore, queue: &QueueName) -> Duration {
    let started = Instant::now();
    store.send_all(queue, (0..COUNT).map(|n| NewMessage::new(body(n))).collect()).await.unwrap();
    let mut seen = 0;
    while seen < COUNT {
        let request = Receive::up_to(100).visibility(Duration::from_secs(60));
        let received = store.receive(queue, &request).await.unwrap();
        seen += received.len();
        let receipts: Vec<_> = received.into_iter().map(|delivery| delivery.receipt).collect();
        assert!(store.delete_all(queue, &receipts).await.unwrap().iter().all(Result::is_ok));
    }
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures: minutes, and nothing else on the machine"]
async fn soak_batches_keep_up_with_the_client_alone() {
    let Some(address) = common::address_or_skip() else { return };
    let prefix = common::prefix();
    let store = common::open(&format!("{}&concurrency={AT_ONCE}", common::url(&address, &prefix)));
    let queue: QueueName = "work".parse().unwrap();
    store.create_queue(&queue, &store.default_spec()).await.unwrap();
    let client = client(&address, &format!("{prefix}work"));
    let mut shares = Vec::new();
    for round in 0..ROUNDS {
        // By turns, so that a busy machine is in the way of both.
        let (theirs, ours) = if round % 2 == 0 {
            let theirs = by_the_client(&client).await;
            (theirs, by_ours(&store, &queue).await)
        } else {
            let ours = by_ours(&store, &queue).await;
            (by_the_client(&client).await, ours)
        };
        println!("{COUNT} messages: the client alone {theirs:?}, ours {ours:?}");
        shares.push(theirs.as_secs_f64() / ours.as_secs_f64());
    }
    shares.sort_by(f64::total_cmp);
    let median = shares[ROUNDS / 2];
    println!("{median:.2} of the client's throughput");
    assert!(median >= 0.9, "{shares:?}");
}
