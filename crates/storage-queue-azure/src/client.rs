//! The service, by the official client: one request each, with a time limit, none of them repeated.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use azure_core::http::headers::HeaderName;
use azure_core::http::{RequestContent, XmlFormat};
use azure_core::time::OffsetDateTime;
use azure_storage_queue::models::{
    ListQueuesIncludeType, QueueClientCreateOptions, QueueClientGetPropertiesResultHeaders as _, QueueClientPeekMessagesOptions,
    QueueClientReceiveMessagesOptions, QueueClientSendMessageOptions, QueueClientUpdateMessageOptions, QueueMessage,
    QueueServiceClientListQueuesOptions,
};
use azure_storage_queue::{QueueClient, QueueServiceClient, QueueServiceClientOptions};
use chrono::{DateTime, Utc};
use futures::TryStreamExt as _;
use storage_azure::{CONNECTING, IDLE};
use storage_core::{Error, Result};
use tokio::sync::Semaphore;

use crate::config::Settings;
use crate::error::{Refusal, code};

/// The service's interface as of then, which emulators know too.
const VERSION: &str = "2024-11-04";
const POP_RECEIPT: HeaderName = HeaderName::from_static("x-ms-popreceipt");
/// How many messages one request receives or looks at, at most.
pub(crate) const MOST: u32 = 32;
/// The longest lease and the longest delay: 7 days.
pub(crate) const LONGEST: u32 = 7 * 86_400;
/// How many queues a request lists.
const PAGE: i32 = 1_000;

/// A storage account's queues.
pub(crate) struct Client {
    service: QueueServiceClient,
    /// How many requests are under way at most.
    slots: Semaphore,
    timeout: Duration,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its address may hold a signature.
        f.debug_struct("Client").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

/// A message as the service gives it.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) id: String,
    /// Empty where it was only looked at.
    pub(crate) pop: String,
    pub(crate) text: String,
    /// How often it was received, this time included.
    pub(crate) received: u32,
    /// In whole seconds.
    pub(crate) inserted: DateTime<Utc>,
}

/// What the service says of a queue.
#[derive(Debug)]
pub(crate) struct Properties {
    /// Never less than there are.
    pub(crate) messages: u64,
    pub(crate) metadata: HashMap<String, String>,
}

impl Client {
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config).
    pub(crate) fn new(settings: &Settings) -> Result<Self> {
        let account = &settings.account;
        let (client_options, credential) = account.client_options(CONNECTING, IDLE)?;
        let options = QueueServiceClientOptions { client_options, version: VERSION.to_owned() };
        let service = QueueServiceClient::new(account.service_url.clone(), credential, Some(options));
        let service = service.map_err(|_| Error::config("the client can't be made: check the endpoint"))?;
        Ok(Self { service, slots: Semaphore::new(settings.concurrency), timeout: account.timeout })
    }

    /// One request.
    async fn call<T>(&self, request: impl Future<Output = azure_core::Result<T>>) -> Result<T, Refusal> {
        let _slot = self.slots.acquire().await.map_err(|_| Error::internal("the client's semaphore was closed"))?;
        match tokio::time::timeout(self.timeout, request).await {
            Ok(answer) => answer.map_err(Into::into),
            Err(_) => Err(Error::timeout("the service does not answer in time").into()),
        }
    }

    fn queue(&self, name: &str) -> Result<QueueClient, Refusal> {
        self.service.queue_client(name).map_err(Into::into)
    }

    /// `true`: it was created; `false`: it was there with the same metadata. With other metadata: [`code::QUEUE_EXISTS`].
    pub(crate) async fn create(&self, queue: &str, metadata: HashMap<String, String>) -> Result<bool, Refusal> {
        let queue = self.queue(queue)?;
        let options = QueueClientCreateOptions { metadata: Some(metadata), ..QueueClientCreateOptions::default() };
        let answer = self.call(queue.create(Some(options))).await?;
        Ok(*answer.status() == 201)
    }

    /// `false`: there was none.
    pub(crate) async fn remove(&self, queue: &str) -> Result<bool, Refusal> {
        let queue = self.queue(queue)?;
        match self.call(queue.delete(None)).await {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.is(code::NO_QUEUE) => Ok(false),
            Err(refusal) => Err(refusal),
        }
    }

    pub(crate) async fn properties(&self, queue: &str) -> Result<Properties, Refusal> {
        let queue = self.queue(queue)?;
        let answer = self.call(queue.get_properties(None)).await?;
        let messages = answer.approximate_messages_count()?.unwrap_or_default();
        Ok(Properties { messages: u64::try_from(messages).unwrap_or_default(), metadata: answer.metadata()? })
    }

    /// One page of queues whose names begin so, with their metadata, and where the next one begins.
    pub(crate) async fn list(
        &self,
        prefix: &str,
        marker: Option<String>,
        most: Option<i32>,
    ) -> Result<(Vec<(String, HashMap<String, String>)>, Option<String>), Refusal> {
        let options = QueueServiceClientListQueuesOptions {
            include: Some(vec![ListQueuesIncludeType::Metadata]),
            marker,
            maxresults: Some(most.unwrap_or(PAGE)),
            prefix: (!prefix.is_empty()).then(|| prefix.to_owned()),
            ..QueueServiceClientListQueuesOptions::default()
        };
        let mut pages = self.service.list_queues(Some(options))?.into_pages();
        let Some(page) = self.call(pages.try_next()).await? else { return Ok((Vec::new(), None)) };
        let page = page.into_model()?;
        let queues = page.queue_items.into_iter().filter_map(|queue| Some((queue.name?, queue.metadata.unwrap_or_default())));
        Ok((queues.collect(), page.next_marker.filter(|marker| !marker.is_empty())))
    }

    /// Answers the message's id. `delay` in seconds. It is kept until it is removed.
    pub(crate) async fn send(&self, queue: &str, text: &str, delay: u32) -> Result<String, Refusal> {
        let queue = self.queue(queue)?;
        let options = QueueClientSendMessageOptions {
            // By default messages vanish after a week.
            message_time_to_live: Some(-1),
            visibility_timeout: (delay > 0).then(|| seconds(delay)),
            ..QueueClientSendMessageOptions::default()
        };
        let answer = self.call(queue.send_message(content(text)?, Some(options))).await?;
        let sent = answer.into_model()?.items.unwrap_or_default().pop().and_then(|sent| sent.message_id);
        sent.ok_or_else(|| Error::unavailable("the service took a message and gave no id").into())
    }

    /// Leases up to `max` messages, [`MOST`] at most, for so many seconds.
    pub(crate) async fn receive(&self, queue: &str, max: u32, visibility: u32) -> Result<Vec<Raw>, Refusal> {
        let queue = self.queue(queue)?;
        let options = QueueClientReceiveMessagesOptions {
            number_of_messages: Some(seconds(max.clamp(1, MOST))),
            visibility_timeout: Some(seconds(visibility)),
            ..QueueClientReceiveMessagesOptions::default()
        };
        let answer = self.call(queue.receive_messages(Some(options))).await?;
        let messages = answer.into_model()?.items.unwrap_or_default();
        let raw = messages.into_iter().map(|message| {
            Some(Raw {
                id: message.message_id?,
                pop: message.pop_receipt?,
                text: message.message_text.unwrap_or_default(),
                received: count(message.dequeue_count),
                inserted: time(message.insertion_time?)?,
            })
        });
        raw.collect::<Option<_>>().ok_or_else(incomplete)
    }

    pub(crate) async fn peek(&self, queue: &str, max: u32) -> Result<Vec<Raw>, Refusal> {
        let queue = self.queue(queue)?;
        let options = QueueClientPeekMessagesOptions {
            number_of_messages: Some(seconds(max.clamp(1, MOST))),
            ..QueueClientPeekMessagesOptions::default()
        };
        let answer = self.call(queue.peek_messages(Some(options))).await?;
        let messages = answer.into_model()?.items.unwrap_or_default();
        let raw = messages.into_iter().map(|message| {
            Some(Raw {
                id: message.message_id?,
                pop: String::new(),
                text: message.message_text.unwrap_or_default(),
                received: count(message.dequeue_count),
                inserted: time(message.insertion_time?)?,
            })
        });
        raw.collect::<Option<_>>().ok_or_else(incomplete)
    }

    /// Makes the lease end in so many seconds, and puts another text in the place of the message's where there is one. Answers the new proof.
    pub(crate) async fn update(
        &self,
        queue: &str,
        (message, pop): (&str, &str),
        visibility: u32,
        text: Option<&str>,
    ) -> Result<String, Refusal> {
        let queue = self.queue(queue)?;
        let queue_message = text.map(content).transpose()?;
        let options = QueueClientUpdateMessageOptions { queue_message, ..QueueClientUpdateMessageOptions::default() };
        let answer = self.call(queue.update_message(message, pop, seconds(visibility), Some(options))).await?;
        let pop = answer.headers().get_optional_str(&POP_RECEIPT).map(str::to_owned);
        pop.ok_or_else(|| Error::unavailable("the service changed a message and gave no receipt").into())
    }

    pub(crate) async fn delete(&self, queue: &str, (message, pop): (&str, &str)) -> Result<(), Refusal> {
        let queue = self.queue(queue)?;
        self.call(queue.delete_message(message, pop, None)).await.map(drop)
    }

    pub(crate) async fn clear(&self, queue: &str) -> Result<(), Refusal> {
        let queue = self.queue(queue)?;
        self.call(queue.clear(None)).await.map(drop)
    }
}

fn incomplete() -> Refusal {
    Error::unavailable("the service's answer lacks parts of a message").into()
}

fn content(text: &str) -> azure_core::Result<RequestContent<QueueMessage, XmlFormat>> {
    QueueMessage { message_text: Some(text.to_owned()) }.try_into()
}

/// All of them are far below the limit.
fn seconds(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

fn count(n: Option<i64>) -> u32 {
    n.and_then(|n| u32::try_from(n).ok()).unwrap_or_default()
}

fn time(time: OffsetDateTime) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(time.unix_timestamp(), 0)
}
