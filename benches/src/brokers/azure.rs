//! Azure Storage Queue: the official client, with as many requests at once as the toolkit.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::request::Body;
use azure_core::http::{ClientOptions, Context as Call, Request, Url};
use azure_storage_queue::models::{
    QueueClientGetPropertiesResultHeaders as _, QueueClientReceiveMessagesOptions, QueueMessage, ReceivedMessage,
};
use azure_storage_queue::{QueueClient, QueueClientOptions};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use chrono::Utc;
use futures::{StreamExt as _, TryStreamExt as _};
use storage_azure::{AccountKey, EMULATOR_ACCOUNT, EMULATOR_KEY, SignedRequest, authorization};
use storage_core::Secret;
use storage_queue_azure::AzureQueueDriver;
use tokio::sync::Semaphore;

use super::{Ours, Place, Subject, at_least, fresh_name};
use crate::queue::drive::{AsyncQueue, QueueCase, QueueRound, drive_async};
use crate::report::Target;
use crate::subject::{Named, Role};

/// Requests under way at once, of all workers together, on both sides.
const AT_ONCE: usize = 16;
/// Messages that one request receives at most.
const MOST: usize = 32;
/// The version of the service that the toolkit speaks to.
const VERSION: &str = "2024-11-04";

pub(super) fn subjects(place: &Place<'_>) -> Vec<Box<dyn Subject>> {
    let address = format!("azure-queue:?emulator=true&endpoint={}&concurrency={AT_ONCE}", place.address);
    vec![
        Box::new(Ours::new("storage-queue-azure", &AzureQueueDriver, &address)),
        Box::new(Raw { address: place.address.to_owned() }),
    ]
}

pub(super) fn targets() -> Vec<Target> {
    (0..2).map(|metric| at_least(metric, Role::Baseline, 0.9, "Azure: the official client, as many requests at once")).collect()
}

struct Raw {
    address: String,
}

impl Named for Raw {
    fn name(&self) -> String {
        "azure_storage_queue".to_owned()
    }

    fn role(&self) -> Role {
        Role::Baseline
    }

    fn note(&self) -> String {
        format!("{AT_ONCE} requests at once, {MOST} messages received by each; the emulator (Azurite) serves one at a time")
    }
}

#[async_trait]
impl Subject for Raw {
    async fn round(&self, case: &QueueCase) -> Result<QueueRound> {
        let client = client(&self.address, &fresh_name())?;
        client.create(None).await?;
        let queue = Arc::new(RawQueue { client, slots: Semaphore::new(AT_ONCE) });
        let round = drive_async(Arc::clone(&queue), *case).await;
        queue.client.delete(None).await?;
        round
    }
}

fn client(address: &str, queue: &str) -> Result<QueueClient> {
    let sign = Sign(AccountKey::new(&Secret::new(EMULATOR_KEY))?);
    let client_options = ClientOptions { per_try_policies: vec![Arc::new(sign)], ..ClientOptions::default() };
    let url = Url::parse(&format!("{address}/{EMULATOR_ACCOUNT}/{queue}"))?;
    Ok(QueueClient::new(url, None, Some(QueueClientOptions { client_options, version: VERSION.to_owned() }))?)
}

/// Signs every try by the account's key, which the client has no way to.
#[derive(Debug)]
struct Sign(AccountKey);

#[async_trait]
#[allow(elided_lifetimes_in_paths)] // as the trait declares it
impl Policy for Sign {
    async fn send(&self, call: &Call, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        request.insert_header("x-ms-date", Utc::now().format("%a, %d %b %Y %H:%M:%S GMT").to_string());
        let query: Vec<_> = request.url().query_pairs().map(|(name, value)| (name.into(), value.into())).collect();
        let headers: Vec<_> = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let verb = request.method().to_string();
        let content_length = match request.body() {
            Body::Bytes(bytes) => bytes.len(),
            // No request to queues has such a body.
            Body::SeekableStream(_) => 0,
        };
        let signed = SignedRequest { verb: &verb, path: request.url().path(), query: &query, headers: &headers, content_length };
        let authorization = authorization(EMULATOR_ACCOUNT, &self.0, &signed);
        request.insert_header("authorization", authorization);
        let Some((first, rest)) = next.split_first() else {
            return Err(azure_core::Error::with_message(
                azure_core::error::ErrorKind::Other,
                "nothing comes after the signature",
            ));
        };
        first.send(call, request, rest).await
    }
}

struct RawQueue {
    client: QueueClient,
    slots: Semaphore,
}

impl RawQueue {
    /// A request, once there is room for it.
    async fn call<T>(&self, request: impl Future<Output = azure_core::Result<T>>) -> Result<T> {
        let _slot = self.slots.acquire().await?;
        Ok(request.await?)
    }

    async fn send_one(&self, body: &Bytes) -> Result<()> {
        let message = QueueMessage { message_text: Some(BASE64_STANDARD.encode(body)) };
        self.call(self.client.send_message(message.try_into()?, None)).await.map(drop)
    }

    async fn receive_some(&self, max: usize) -> Result<Vec<ReceivedMessage>> {
        let options = QueueClientReceiveMessagesOptions {
            number_of_messages: Some(i32::try_from(max)?),
            visibility_timeout: Some(600),
            ..QueueClientReceiveMessagesOptions::default()
        };
        let answer = self.call(self.client.receive_messages(Some(options))).await?;
        Ok(answer.into_model()?.items.unwrap_or_default())
    }

    async fn delete_one(&self, (id, pop): (String, String)) -> Result<()> {
        self.call(self.client.delete_message(&id, &pop, None)).await.map(drop)
    }
}

/// Does all of them, in any order.
async fn all<T>(requests: impl Iterator<Item = impl Future<Output = Result<T>>> + Send) -> Result<Vec<T>> {
    futures::stream::iter(requests).buffer_unordered(AT_ONCE).try_collect().await
}

#[async_trait]
impl AsyncQueue for RawQueue {
    /// The message's id, and what proves that it was received.
    type Receipt = (String, String);

    async fn send(&self, _worker: usize, bodies: &[Bytes]) -> Result<()> {
        let sends: Vec<_> = bodies.iter().map(|body| self.send_one(body)).collect();
        all(sends.into_iter()).await.map(drop)
    }

    async fn receive(&self, _worker: usize, max: usize) -> Result<Vec<(Self::Receipt, Bytes)>> {
        let receives: Vec<_> = (0..max).step_by(MOST).map(|before| self.receive_some((max - before).min(MOST))).collect();
        let received = all(receives.into_iter()).await?;
        let messages = received.into_iter().flatten().map(|message| {
            let text = message.message_text.context("a message without a text")?;
            let id = message.message_id.context("a message without an id")?;
            let pop = message.pop_receipt.context("a message without a receipt")?;
            Ok(((id, pop), Bytes::from(BASE64_STANDARD.decode(text)?)))
        });
        messages.collect()
    }

    async fn delete(&self, _worker: usize, receipts: Vec<Self::Receipt>) -> Result<()> {
        let deletes: Vec<_> = receipts.into_iter().map(|receipt| self.delete_one(receipt)).collect();
        all(deletes.into_iter()).await.map(drop)
    }

    async fn left(&self) -> Result<u64> {
        let properties = self.client.get_properties(None).await?;
        Ok(u64::try_from(properties.approximate_messages_count()?.unwrap_or_default())?)
    }

    async fn settings(&self) -> Result<String> {
        Ok(String::new())
    }
}
