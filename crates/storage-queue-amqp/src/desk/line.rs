//! The channel on which a queue's messages come.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::ready;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer};
use storage_core::{Error, Result};
use tokio::time::Instant;
use uuid::Uuid;

use crate::error::{lapin, within};
use crate::link::{Link, Role};

/// A message that the broker has given us.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub(super) tag: u64,
    /// Apart, since they are large and arrivals are moved about.
    pub(super) properties: Box<BasicProperties>,
    pub(super) body: Bytes,
    pub(super) redelivered: bool,
    pub(super) at: Instant,
}

impl Arrival {
    fn new(delivery: Delivery) -> Self {
        Self {
            tag: delivery.delivery_tag,
            properties: Box::new(delivery.properties),
            body: delivery.data.into(),
            redelivered: delivery.redelivered,
            at: Instant::now(),
        }
    }

    #[cfg(test)]
    pub(super) fn for_test() -> Self {
        let (properties, body) = (Box::default(), Bytes::new());
        Self { tag: 1, properties, body, redelivered: false, at: Instant::now() }
    }
}

/// A consumer, which may give us so many messages before we settle some of them.
struct Feed {
    consumer: Consumer,
    asked: usize,
    unsettled: usize,
}

/// How many words about messages are handed to the connection at once.
const WINDOW: usize = 256;
/// How many consumers a line has at most.
const FEEDS: usize = 8;

/// The broker pushes messages as far as it was asked to. What is wanted beyond that, another consumer asks for: one that is cancelled while messages
/// are on their way sends them back, and the broker counts that as a delivery. So consumers end when nobody wants messages any more.
///
/// After an error the line is [`reset`](Self::reset): the channel is closed, and with it the broker takes all messages back.
pub(super) struct Line {
    link: Arc<Link>,
    queue: String,
    channel: Option<Channel>,
    feeds: BTreeMap<u64, Feed>,
    /// The number of the next feed.
    next_feed: u64,
    /// Given to us, not handed out.
    pub(super) buffer: VecDeque<Arrival>,
    /// All that we have not settled, and by which feed it came.
    unsettled: BTreeMap<u64, u64>,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("queue", &self.queue).field("unsettled", &self.unsettled.len()).finish_non_exhaustive()
    }
}

impl Line {
    pub(super) fn new(link: Arc<Link>, queue: String) -> Self {
        Self {
            link,
            queue,
            channel: None,
            feeds: BTreeMap::new(),
            next_feed: 0,
            buffer: VecDeque::new(),
            unsettled: BTreeMap::new(),
        }
    }

    /// False where the channel broke: what came over it is with others now.
    pub(super) fn is_sound(&self) -> bool {
        self.channel.as_ref().is_none_or(|channel| channel.status().connected())
    }

    /// Lets go of the channel and all that came over it.
    pub(super) fn reset(&mut self) {
        let (feeds, channel) = (std::mem::take(&mut self.feeds), self.channel.take());
        if let Some(channel) = channel.filter(|channel| channel.status().connected() && !feeds.is_empty()) {
            let limit = self.link.settings().timeout;
            // The client cancels a consumer that is dropped, and takes an answer that comes after the channel's end for a reason to end the connection.
            tokio::spawn(async move {
                drop(tokio::time::timeout(limit, channel.close(200, "done".into())).await);
                drop(feeds);
            });
        }
        self.buffer.clear();
        self.unsettled.clear();
    }

    async fn channel(&mut self) -> Result<Channel> {
        if let Some(channel) = &self.channel {
            return Ok(channel.clone());
        }
        let channel = self.link.channel(Role::Receive).await?;
        self.channel = Some(channel.clone());
        Ok(channel)
    }

    pub(super) fn is_consuming(&self) -> bool {
        !self.feeds.is_empty()
    }

    /// How many messages the broker may still give us.
    fn credit(&self) -> usize {
        self.feeds.values().map(|feed| feed.asked.saturating_sub(feed.unsettled)).sum()
    }

    /// Asks the broker for so many messages, those included that it was asked for already.
    pub(super) async fn ask_for(&mut self, wanted: usize) -> Result<()> {
        let credit = self.credit();
        if credit >= wanted {
            return Ok(());
        }
        if self.feeds.len() >= FEEDS {
            // Nothing is on its way from one that has given us all that it may.
            let spent: Vec<u64> = self.feeds.iter().filter(|(_, f)| f.unsettled >= f.asked).map(|(number, _)| *number).collect();
            for number in spent {
                self.end_feed(number).await?;
            }
        }
        if self.feeds.len() >= FEEDS {
            return Ok(());
        }
        let count = u16::try_from(wanted - credit).unwrap_or(u16::MAX);
        let (channel, limit) = (self.channel().await?, self.link.settings().timeout);
        let tag = Uuid::now_v7().to_string();
        let consume = async {
            channel.basic_qos(count, BasicQosOptions::default()).await.map_err(lapin)?;
            let (queue, options) = (self.queue.as_str().into(), BasicConsumeOptions::default());
            channel.basic_consume(queue, tag.into(), options, FieldTable::default()).await.map_err(lapin)
        };
        let consumer = within(limit, consume).await?;
        self.feeds.insert(self.next_feed, Feed { consumer, asked: count.into(), unsettled: 0 });
        self.next_feed += 1;
        Ok(())
    }

    /// Asks for no more, and takes in what has come.
    pub(super) async fn stop(&mut self) -> Result<()> {
        while let Some(number) = self.feeds.keys().next().copied() {
            self.end_feed(number).await?;
        }
        Ok(())
    }

    async fn end_feed(&mut self, number: u64) -> Result<()> {
        let channel = self.channel().await?;
        let Some(tag) = self.feeds.get(&number).map(|feed| feed.consumer.tag()) else { return Ok(()) };
        let cancel = async { channel.basic_cancel(tag, BasicCancelOptions::default()).await.map_err(lapin) };
        let cancelled = within(self.link.settings().timeout, cancel).await;
        let taken = self.take_in_from(number);
        self.feeds.remove(&number);
        cancelled.and(taken)
    }

    /// The next message and those that came with it, as long as it takes. Safe to cancel.
    pub(super) async fn next(&mut self) -> Result<()> {
        let (number, next) = std::future::poll_fn(|cx| {
            for (number, feed) in &mut self.feeds {
                if let Poll::Ready(next) = feed.consumer.poll_next_unpin(cx) {
                    return Poll::Ready((*number, next));
                }
            }
            Poll::Pending
        })
        .await;
        self.note(number, next)?;
        self.take_in()
    }

    fn note(&mut self, number: u64, next: Option<Result<Delivery, lapin::Error>>) -> Result<()> {
        match next {
            Some(Ok(delivery)) => {
                self.unsettled.insert(delivery.delivery_tag, number);
                if let Some(feed) = self.feeds.get_mut(&number) {
                    feed.unsettled += 1;
                }
                self.buffer.push_back(Arrival::new(delivery));
                Ok(())
            }
            Some(Err(error)) => Err(lapin(error)),
            None => Err(Error::unavailable("the broker ended the consumer: the queue was removed, or has moved")),
        }
    }

    fn take_in_from(&mut self, number: u64) -> Result<()> {
        while let Some(Some(next)) = self.feeds.get_mut(&number).map(|feed| feed.consumer.next().now_or_never()) {
            match next {
                // One that was cancelled ends so.
                None => break,
                some => self.note(number, some)?,
            }
        }
        Ok(())
    }

    /// Takes in what has come already.
    pub(super) fn take_in(&mut self) -> Result<()> {
        let numbers: Vec<u64> = self.feeds.keys().copied().collect();
        for number in numbers {
            self.take_in_from(number)?;
        }
        // Several consumers take turns: what came first is first.
        if self.feeds.len() > 1 {
            self.buffer.make_contiguous().sort_by_key(|arrival| arrival.tag);
        }
        Ok(())
    }

    fn settled(&mut self, tag: u64) {
        if let Some(feed) = self.unsettled.remove(&tag).and_then(|number| self.feeds.get_mut(&number)) {
            feed.unsettled -= 1;
        }
    }

    /// How many messages are ready on the broker. Everything that it gave us before is here afterwards.
    pub(super) async fn ready(&mut self) -> Result<u64> {
        let ready = self.ask().await?;
        // The first answer overtakes messages that were on their way inside the broker; the second does not.
        if self.is_consuming() {
            self.ask().await?;
            self.take_in()?;
        }
        Ok(ready)
    }

    async fn ask(&mut self) -> Result<u64> {
        let channel = self.channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let ask =
            async { channel.queue_declare(self.queue.as_str().into(), options, FieldTable::default()).await.map_err(lapin) };
        within(self.link.settings().timeout, ask).await.map(|queue| queue.message_count().into())
    }

    /// Removes messages for good.
    pub(super) async fn ack(&mut self, tags: &BTreeSet<u64>) -> Result<()> {
        if tags.is_empty() {
            return Ok(());
        }
        let channel = self.channel().await?;
        // All up to here in one word.
        let upto = self.unsettled.keys().take_while(|tag| tags.contains(tag)).last().copied().unwrap_or_default();
        let ack = async {
            if upto > 0 {
                channel.basic_ack(upto, BasicAckOptions { multiple: true }).await.map_err(lapin)?;
            }
            // Each one's turn comes with a write to the connection: many in one.
            let words = tags.iter().filter(|tag| **tag > upto).map(|tag| {
                let (channel, tag) = (channel.clone(), *tag);
                async move { channel.basic_ack(tag, BasicAckOptions::default()).await }.boxed()
            });
            let words: Vec<BoxFuture<'static, lapin::Result<()>>> = words.collect();
            futures::stream::iter(words).buffered(WINDOW).try_for_each(|()| ready(Ok(()))).await.map_err(lapin)
        };
        within(self.link.settings().timeout, ack).await?;
        for tag in tags {
            self.settled(*tag);
        }
        Ok(())
    }

    /// Gives messages back.
    pub(super) async fn give_back(&mut self, tags: Vec<u64>) -> Result<()> {
        let channel = self.channel().await?;
        let (limit, mut given) = (self.link.settings().timeout, Vec::new());
        let give = async {
            let words = tags.into_iter().map(|tag| {
                let channel = channel.clone();
                let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
                async move { channel.basic_nack(tag, options).await.map(|()| tag) }.boxed()
            });
            let words: Vec<BoxFuture<'static, lapin::Result<u64>>> = words.collect();
            let mut words = futures::stream::iter(words).buffered(WINDOW);
            while let Some(tag) = words.next().await {
                given.push(tag.map_err(lapin)?);
            }
            Ok(())
        };
        within(limit, give).await?;
        for tag in given {
            self.settled(tag);
        }
        Ok(())
    }

    /// Removes what is ready on the broker.
    pub(super) async fn purge(&mut self) -> Result<u64> {
        let channel = self.channel().await?;
        let purge = async { channel.queue_purge(self.queue.as_str().into(), Default::default()).await.map_err(lapin) };
        within(self.link.settings().timeout, purge).await.map(u64::from)
    }
}
