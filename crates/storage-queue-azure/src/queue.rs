//! The queue backend.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::Utc;
use futures::StreamExt as _;
use storage_core::clock::add;
use storage_core::{
    BackendInfo, BlobStore, Delivery, DriverConfig, Error, ErrorKind, Message, MessageUpdate, NewMessage, QueueBackend,
    QueueCapabilities, QueueName, QueueSpec, QueueStats, Receipt, Receive, Result, Sent,
};

use crate::admin;
use crate::client::MOST;
use crate::config::Settings;
use crate::error::code;
use crate::held::Held;
use crate::moves;
use crate::receipt::{Claim, Kind};
use crate::receive::{self, uninterrupted};
use crate::send;
use crate::spill::Spill;
use crate::store::{Found, Lane, Store, in_seconds};
use crate::text::{Content, Head, max_body_bytes};

/// Queues on Azure Storage Queue.
#[derive(Clone, Debug)]
pub struct AzureQueue {
    store: Arc<Store>,
    capabilities: QueueCapabilities,
}

impl AzureQueue {
    /// The queues of a storage account. Nothing is asked of the service yet.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config).
    pub fn open(config: &DriverConfig) -> Result<Self> {
        let settings = Settings::new(config)?;
        let max = max_body_bytes(settings.encoding);
        let opened = Self { store: Arc::new(Store::new(&settings)?), capabilities: capabilities(max) };
        match &config.blobs {
            _ if !settings.spill => Ok(opened),
            Some(blobs) => Ok(opened.with_spill(blobs.clone())),
            None => Err(Error::config("option `spill`: there are no blobs to spill to: set the component `blobs`")),
        }
    }

    /// The same queues, with bodies that are too large for the service in blobs `queues/NAME/UUID`. All who receive need the same `blobs`. A body goes with its
    /// message when that is deleted; those of a queue that is purged stay.
    #[must_use]
    pub fn with_spill(&self, blobs: BlobStore) -> Self {
        let spill = Spill::to(blobs);
        let max = spill.max_bytes().max(max_body_bytes(self.store.encoding));
        Self { store: Arc::new(self.store.with_spill(spill)), capabilities: capabilities(max) }
    }

    fn lane(&self, queue: &QueueName) -> Result<Lane> {
        self.store.open.check()?;
        Ok(self.store.lane(queue))
    }

    /// What a receipt says; where it says nothing, whether the queue is there at least.
    async fn claim(&self, lane: &Lane, receipt: &Receipt) -> Result<Claim> {
        match Claim::read(receipt, &lane.there) {
            Some(claim) => Ok(claim),
            None => {
                admin::fresh_spec(&self.store, &lane.source).await?;
                Err(Error::lease_lost("that is no receipt of this queue"))
            }
        }
    }

    async fn delete_one(&self, lane: &Lane, receipt: &Receipt) -> Result<()> {
        let store = &self.store;
        let claim = self.claim(lane, receipt).await?;
        match store.client.delete(&lane.there, (&claim.message, &claim.pop)).await {
            Ok(()) => {
                store.hand.remove(&claim.message);
                if let (Kind::Spilled(blob), Some(spill)) = (claim.kind, &store.spill) {
                    spill.remove(&lane.home, blob).await;
                }
                Ok(())
            }
            // Deleted before, or moved away?
            Err(refusal) if refusal.is(code::NO_MESSAGE) => match self.died(lane, &claim.message).await? {
                true => Err(Error::lease_lost("the message is a dead letter by now")),
                false => Ok(()),
            },
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// True where the message that had this id is among the dead letters, as far as a look at them shows.
    async fn died(&self, lane: &Lane, message: &str) -> Result<bool> {
        if lane.dead {
            return Ok(false);
        }
        let companion = self.store.companion(lane)?;
        let looked = match self.store.client.peek(&companion.there, MOST).await {
            Err(refusal) if refusal.is(code::NO_QUEUE) => return Ok(false),
            looked => looked?,
        };
        Ok(looked
            .into_iter()
            .map(|raw| self.store.read(raw))
            .any(|found| found.first_id() == message || found.content.head.was.as_deref() == Some(message)))
    }

    /// A leased message, as it was received here.
    fn held(&self, claim: &Claim) -> Option<Found> {
        let held = self.store.hand.get(&claim.message)?;
        let Claim { message, pop, deliveries, .. } = claim.clone();
        Some(Found { id: message, pop, received: deliveries, inserted: held.inserted, content: held.content })
    }

    /// A message that another process received: given back, so that a look can show it. Until somebody receives it, the claim is good. `None`: there is more in
    /// front of it than a look shows.
    async fn recall(&self, lane: &Lane, claim: &mut Claim) -> Result<Option<Found>> {
        let client = &self.store.client;
        claim.pop = client.update(&lane.there, (&claim.message, &claim.pop), 0, None).await?;
        let looked = client.peek(&lane.there, MOST).await?;
        let raw = looked.into_iter().find(|raw| raw.id == claim.message);
        Ok(raw.map(|raw| Found { pop: claim.pop.clone(), received: claim.deliveries, ..self.store.read(raw) }))
    }

    /// A leased message, whoever received it.
    ///
    /// # Errors
    /// [`LeaseLost`](ErrorKind::LeaseLost); [`Unsupported`](ErrorKind::Unsupported) where it is not to be had: then the lease goes on.
    async fn found(&self, lane: &Lane, claim: &mut Claim) -> Result<Found> {
        if let Some(found) = self.held(claim) {
            return Ok(found);
        }
        if let Some(found) = self.recall(lane, claim).await? {
            return Ok(found);
        }
        let left = in_seconds("visibility", (claim.until - Utc::now()).to_std().unwrap_or_default())?.max(1);
        self.store.client.update(&lane.there, (&claim.message, &claim.pop), left, None).await?;
        Err(Error::unsupported(
            "another process received the message, or this one received too many since, and it is not among the first 32: \
             it can be deleted, renewed and given back, but what is in it is not known here",
        ))
    }

    /// What the message holds after the change; `None` where it is to hold what it does.
    async fn changed(&self, lane: &Lane, claim: &mut Claim, change: &MessageUpdate) -> Result<Option<Content>> {
        let content = match (&change.body, &change.attributes, claim.kind) {
            (None, None, _) => return Ok(None),
            // Then there is nothing else that it could hold.
            (Some(body), None, Kind::Plain) => Content { head: Head::default(), body: body.clone() },
            _ => {
                let mut content = self.found(lane, claim).await?.content;
                if let Some(attributes) = &change.attributes {
                    content.head.attributes = attributes.clone();
                }
                if let Some(body) = &change.body {
                    content.body = body.clone();
                    content.head.spilled = None;
                }
                content
            }
        };
        Ok(Some(content))
    }

    /// Gives a message back; one that must not be delivered any more becomes a dead letter. Where what is in it is not to be had, whoever receives next makes it
    /// one.
    async fn give_back(&self, lane: &Lane, mut claim: Claim) -> Result<Receipt> {
        let cap = if lane.dead { None } else { admin::spec(&self.store, &lane.source).await?.max_deliveries };
        let may_die = !lane.dead && (claim.kind != Kind::Plain || cap.is_some_and(|cap| claim.deliveries >= cap));
        let found = match self.held(&claim) {
            None if may_die => self.recall(lane, &mut claim).await?,
            held => held.filter(|_| may_die),
        };
        if let Some(found) = found
            && let Some(reason) = moves::doom(&found.content, claim.deliveries, cap)
        {
            self.bury(lane.clone(), found, reason.to_owned()).await?;
            return Ok(Claim { until: Utc::now(), pop: "gone".to_owned(), ..claim }.receipt());
        }
        self.change(lane, claim, &MessageUpdate::visibility(Duration::ZERO)).await
    }

    async fn bury(&self, lane: Lane, found: Found, reason: String) -> Result<()> {
        let store = Arc::clone(&self.store);
        uninterrupted(async move { moves::bury(&store, &lane, &found, &reason, found.received).await }).await
    }

    async fn change(&self, lane: &Lane, mut claim: Claim, change: &MessageUpdate) -> Result<Receipt> {
        let now = Utc::now();
        let left = (claim.until - now).to_std().unwrap_or_default();
        // Without a word on it the lease goes on as it was: at least for the second that is the least.
        let seconds = match change.visibility {
            Some(visibility) => in_seconds("visibility", visibility)?,
            None => in_seconds("visibility", left)?.max(1),
        };
        let content = self.changed(lane, &mut claim, change).await?;
        let (text, spilled) = match content.clone() {
            Some(content) => {
                let (text, spilled) = self.spell(lane, content).await?;
                (Some(text), spilled)
            }
            None => (None, None),
        };
        let store = &self.store;
        let pop = store.client.update(&lane.there, (&claim.message, &claim.pop), seconds, text.as_deref()).await?;
        let until = add(now, Duration::from_secs(seconds.into()));
        let mut renewed = Claim { pop, until, ..claim };
        let held = store.hand.get(&renewed.message);
        if let Some(mut content) = content {
            if let (Kind::Spilled(blob), true, Some(spill)) = (renewed.kind, change.body.is_some(), &store.spill) {
                spill.remove(&lane.home, blob).await;
            }
            if spilled.is_some() {
                (content.head.spilled, content.body) = (spilled, bytes::Bytes::new());
            }
            renewed.kind = match content.head.spilled {
                Some(spilled) => Kind::Spilled(spilled.blob),
                None if content.head == Head::default() => Kind::Plain,
                None => Kind::Enveloped,
            };
            if let Some(held) = held {
                store.hand.keep(renewed.message.clone(), Held { content, until, ..held });
            }
        } else if seconds == 0 {
            store.hand.remove(&renewed.message);
        } else if let Some(held) = held {
            store.hand.keep(renewed.message.clone(), Held { until, ..held });
        }
        Ok(renewed.receipt())
    }

    async fn spell(&self, lane: &Lane, content: Content) -> Result<(String, Option<crate::text::Spilled>)> {
        if content.head.spilled.is_some() {
            // Its body stays where it is.
            let text = content.encode(self.store.encoding);
            return text.map(|text| (text, None)).ok_or_else(|| Error::invalid("the attributes are too large"));
        }
        send::spelled(&self.store, lane, content).await
    }
}

fn capabilities(max_body_bytes: usize) -> QueueCapabilities {
    QueueCapabilities {
        delay: true,
        ttl: true,
        priority: false,
        dedup: false,
        fifo: false,
        peek: true,
        update_body: true,
        dead_letter: true,
        atomic_send: false,
        receipts_across_processes: true,
        wakes: false,
        max_body_bytes,
        durable: true,
    }
}

#[async_trait]
impl QueueBackend for AzureQueue {
    fn info(&self) -> &BackendInfo {
        &self.store.info
    }

    fn capabilities(&self) -> &QueueCapabilities {
        &self.capabilities
    }

    async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
        self.store.open.check()?;
        admin::create(&self.store, queue, spec).await
    }

    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        self.store.open.check()?;
        admin::delete(&self.store, queue).await
    }

    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.store.open.check()?;
        admin::list(&self.store).await
    }

    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        let lane = self.lane(queue)?;
        let spec = admin::fresh_spec(&self.store, &lane.source).await?;
        Ok(if lane.dead { spec.max_deliveries(None) } else { spec })
    }

    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        let lane = self.lane(queue)?;
        send::send(&self.store, &lane, messages).await
    }

    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        let lane = self.lane(queue)?;
        receive::receive(&self.store, &lane, request).await
    }

    async fn delete(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        let lane = self.lane(queue)?;
        let (this, lane) = (self, &lane);
        let deletes =
            receipts.iter().enumerate().map(|(index, receipt)| async move { (index, this.delete_one(lane, receipt).await) });
        let deletes: Vec<_> = deletes.collect();
        let mut outcomes: Vec<_> = futures::stream::iter(deletes).buffer_unordered(self.store.concurrency).collect().await;
        outcomes.sort_unstable_by_key(|(index, _)| *index);
        let outcomes: Vec<_> = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
        // What all of them fail by is the call's failure.
        match outcomes.iter().position(|outcome| outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound)) {
            Some(at) => outcomes.into_iter().nth(at).map_or_else(|| Ok(Vec::new()), |missing| missing.map(|()| Vec::new())),
            None => Ok(outcomes),
        }
    }

    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        let lane = self.lane(queue)?;
        let claim = self.claim(&lane, receipt).await?;
        let is_given_back = change.visibility.is_some_and(|visibility| visibility.is_zero());
        let only_that = change.body.is_none() && change.attributes.is_none();
        if is_given_back && only_that {
            return self.give_back(&lane, claim).await;
        }
        self.change(&lane, claim, change).await
    }

    async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        let lane = self.lane(queue)?;
        let mut claim = self.claim(&lane, receipt).await?;
        let found = self.found(&lane, &mut claim).await?;
        self.bury(lane, found, reason.to_owned()).await
    }

    async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        let lane = self.lane(queue)?;
        let store = Arc::clone(&self.store);
        uninterrupted(async move { moves::redrive(&store, &lane, max).await }).await
    }

    async fn peek(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        let lane = self.lane(queue)?;
        receive::peek(&self.store, &lane, max).await
    }

    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        let lane = self.lane(queue)?;
        admin::stats(&self.store, &lane).await
    }

    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        let lane = self.lane(queue)?;
        admin::purge(&self.store, &lane).await
    }

    async fn ping(&self) -> Result<()> {
        self.store.open.check()?;
        self.store.client.list(&self.store.prefix, None, Some(1)).await.map(drop).map_err(Into::into)
    }

    async fn close(&self) -> Result<()> {
        self.store.close();
        Ok(())
    }
}
