//! All queues of a store: what happens under their lock.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use storage_core::message::dead;
use storage_core::{
    Count, Delivery, Error, Message, MessageId, MessageUpdate, NewMessage, QueueName, QueueSpec, QueueStats, Receipt, Receive,
    Result, Sent, clock, value,
};
use tokio::sync::Notify;

use crate::lane::{Lane, Seq};

#[derive(Debug, Default)]
pub(crate) struct Queues {
    queues: BTreeMap<QueueName, Queue>,
    /// Counts messages and leases over the whole store, so that no id and no receipt is ever good for two things.
    counter: u64,
}

#[derive(Debug)]
struct Queue {
    spec: QueueSpec,
    live: Lane,
    dead: Lane,
    dedup: HashMap<String, MessageId>,
    /// Until when each dedup id is remembered. The window is the same for all, so this is sorted.
    remembered: VecDeque<(DateTime<Utc>, String)>,
    live_news: Arc<Notify>,
    dead_news: Arc<Notify>,
}

/// A queue, or its companion: which of the two lanes is meant.
struct Side<'a> {
    queue: &'a mut Queue,
    dead: bool,
}

/// What a receive that found nothing waits for.
pub(crate) struct Pending {
    pub(crate) next: Option<DateTime<Utc>>,
}

fn no_queue(name: &QueueName) -> Error {
    Error::not_found(format!("there is no queue `{name}`: create it first"))
}

fn receipt(seq: Seq, lease: u64) -> Receipt {
    Receipt(format!("{seq}-{lease}"))
}

fn parse(receipt: &Receipt) -> Result<(Seq, u64)> {
    let parts = receipt.0.split_once('-').and_then(|(seq, lease)| Some((seq.parse().ok()?, lease.parse().ok()?)));
    parts.ok_or_else(|| Error::invalid("this is no receipt: use the one that came with the message, as it is"))
}

fn lost() -> Error {
    Error::lease_lost("the message was received again, updated, removed or dead-lettered since this receipt was made")
}

impl Queue {
    /// Brings the queue up to `now`: what is due becomes ready, what is over becomes a dead letter.
    fn settle(&mut self, name: &QueueName, now: DateTime<Utc>) {
        self.dead.wake(now);
        for seq in self.live.wake(now) {
            let deliveries = self.live.get_mut(seq).map_or(0, |entry| entry.message.deliveries);
            if self.spec.max_deliveries.is_some_and(|max| deliveries >= max) {
                self.bury(name, seq, dead::MAX_DELIVERIES, now);
            }
        }
        for seq in self.live.expired(now) {
            self.bury(name, seq, dead::EXPIRED, now);
        }
        while self.remembered.front().is_some_and(|(until, _)| *until <= now) {
            if let Some((_, id)) = self.remembered.pop_front() {
                self.dedup.remove(&id);
            }
        }
    }

    fn bury(&mut self, name: &QueueName, seq: Seq, reason: &str, now: DateTime<Utc>) {
        let Some(mut message) = self.live.remove(seq) else { return };
        let about = [
            (dead::REASON, reason.to_owned()),
            (dead::SOURCE, name.to_string()),
            (dead::DELIVERIES, message.deliveries.to_string()),
            (dead::AT, value::timestamp(now)),
        ];
        message.attributes.extend(about.map(|(name, value)| (name.to_owned(), value)));
        message.deliveries = 0;
        message.expires_at = None;
        self.dead.insert(seq, message, now, now);
        self.dead_news.notify_one();
    }

    fn resurrect(&mut self, seq: Seq, now: DateTime<Utc>) {
        let Some(mut message) = self.dead.remove(seq) else { return };
        for name in [dead::REASON, dead::SOURCE, dead::DELIVERIES, dead::AT] {
            message.attributes.remove(name);
        }
        message.deliveries = 0;
        self.live.insert(seq, message, now, now);
        self.live_news.notify_one();
    }
}

impl Side<'_> {
    fn lanes(&mut self) -> (&mut Lane, &mut Lane) {
        if self.dead { (&mut self.queue.dead, &mut self.queue.live) } else { (&mut self.queue.live, &mut self.queue.dead) }
    }

    fn lane(&mut self) -> &mut Lane {
        self.lanes().0
    }

    /// The message of a receipt. `None`: it is gone for good.
    fn leased(&mut self, receipt: &Receipt) -> Result<Option<Seq>> {
        let (seq, lease) = parse(receipt)?;
        let (here, other) = self.lanes();
        match here.get_mut(seq) {
            Some(entry) if entry.lease == lease => Ok(Some(seq)),
            Some(_) => Err(lost()),
            None if other.contains(seq) => Err(lost()),
            None => Ok(None),
        }
    }
}

impl Queues {
    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// The queue, or companion, of that name, brought up to `now`.
    fn side(&mut self, name: &QueueName, now: DateTime<Utc>) -> Result<Side<'_>> {
        let dead = name.is_dead_letter();
        let home = name.dead_letter_of().unwrap_or_else(|| name.clone());
        let queue = self.queues.get_mut(&home).ok_or_else(|| no_queue(name))?;
        queue.settle(&home, now);
        Ok(Side { queue, dead })
    }

    /// Checks that messages can be sent to `name`.
    pub(crate) fn check_home(&self, name: &QueueName) -> Result<()> {
        name.dead_letter()?;
        self.queues.contains_key(name).then_some(()).ok_or_else(|| no_queue(name))
    }

    pub(crate) fn create(&mut self, name: &QueueName, spec: &QueueSpec) -> Result<bool> {
        name.dead_letter()?;
        spec.check()?;
        match self.queues.get(name) {
            Some(there) if there.spec == *spec => Ok(false),
            Some(there) => Err(Error::already_exists(format!("it is there with another spec: {:?}", there.spec))),
            None => {
                let queue = Queue {
                    spec: *spec,
                    live: Lane::default(),
                    dead: Lane::default(),
                    dedup: HashMap::new(),
                    remembered: VecDeque::new(),
                    live_news: Arc::default(),
                    dead_news: Arc::default(),
                };
                self.queues.insert(name.clone(), queue);
                Ok(true)
            }
        }
    }

    pub(crate) fn remove(&mut self, name: &QueueName) -> Result<bool> {
        name.dead_letter()?;
        let Some(queue) = self.queues.remove(name) else { return Ok(false) };
        queue.live_news.notify_waiters();
        queue.dead_news.notify_waiters();
        Ok(true)
    }

    pub(crate) fn names(&self) -> Vec<QueueName> {
        self.queues.keys().cloned().collect()
    }

    pub(crate) fn spec(&mut self, name: &QueueName, now: DateTime<Utc>) -> Result<QueueSpec> {
        let side = self.side(name, now)?;
        Ok(if side.dead { side.queue.spec.max_deliveries(None) } else { side.queue.spec })
    }

    /// Wakes everybody who waits.
    pub(crate) fn wake_all(&self) {
        for queue in self.queues.values() {
            queue.live_news.notify_waiters();
            queue.dead_news.notify_waiters();
        }
    }

    /// What tells of news for receivers of `name`.
    pub(crate) fn news(&mut self, name: &QueueName, now: DateTime<Utc>) -> Result<Arc<Notify>> {
        let side = self.side(name, now)?;
        Ok(Arc::clone(if side.dead { &side.queue.dead_news } else { &side.queue.live_news }))
    }

    /// Sends to a queue that [`check_home`](Self::check_home) found.
    pub(crate) fn send(&mut self, name: &QueueName, messages: Vec<NewMessage>, now: DateTime<Utc>) -> Vec<Sent> {
        let first = self.counter + 1;
        self.counter += messages.len() as u64;
        let Ok(Side { queue, .. }) = self.side(name, now) else { return Vec::new() };
        let sent = (first..).zip(messages).map(|(seq, message)| send_one(queue, seq, message, now)).collect();
        queue.live_news.notify_one();
        sent
    }

    pub(crate) fn receive(&mut self, name: &QueueName, request: &Receive, now: DateTime<Utc>) -> Result<Vec<Delivery>> {
        let mut lease = self.counter;
        let mut side = self.side(name, now)?;
        let mut deliveries = Vec::new();
        while deliveries.len() < request.max as usize {
            lease += 1;
            let Some((seq, leased_until, message)) = side.lane().lease(lease, request.visibility, now) else { break };
            deliveries.push(Delivery { message, receipt: receipt(seq, lease), leased_until });
        }
        // One call for news wakes one receiver; who leaves something wakes the next.
        if side.lane().has_ready() {
            if side.dead { &side.queue.dead_news } else { &side.queue.live_news }.notify_one();
        }
        self.counter = lease;
        Ok(deliveries)
    }

    /// What a receive that found nothing waits for.
    pub(crate) fn pending(&mut self, name: &QueueName, now: DateTime<Utc>) -> Result<Pending> {
        let mut side = self.side(name, now)?;
        let mut next = side.lane().next_visible();
        if side.dead {
            // Dead letters come from the other lane.
            let live = &side.queue.live;
            next = [next, live.next_visible(), live.next_expiry()].into_iter().flatten().min();
        }
        Ok(Pending { next })
    }

    pub(crate) fn delete(&mut self, name: &QueueName, receipts: &[Receipt], now: DateTime<Utc>) -> Result<Vec<Result<()>>> {
        let mut side = self.side(name, now)?;
        let mut one = |receipt| {
            if let Some(seq) = side.leased(receipt)? {
                side.lane().remove(seq);
            }
            Ok(())
        };
        Ok(receipts.iter().map(&mut one).collect())
    }

    pub(crate) fn update(
        &mut self,
        name: &QueueName,
        old: &Receipt,
        change: &MessageUpdate,
        now: DateTime<Utc>,
    ) -> Result<Receipt> {
        let lease = self.next();
        let mut side = self.side(name, now)?;
        let seq = side.leased(old)?.ok_or_else(lost)?;
        let entry = side.lane().get_mut(seq).ok_or_else(lost)?;
        entry.lease = lease;
        if let Some(body) = &change.body {
            entry.message.body = Bytes::clone(body);
        }
        if let Some(attributes) = &change.attributes {
            entry.message.attributes.clone_from(attributes);
        }
        if let Some(visibility) = change.visibility {
            // Also one given back at once passes through `waiting`, where the cap is looked at.
            side.lane().place(seq, clock::add(now, visibility), DateTime::<Utc>::MIN_UTC);
            let Side { queue, dead } = side;
            queue.settle(&name.dead_letter_of().unwrap_or_else(|| name.clone()), now);
            if dead { &queue.dead_news } else { &queue.live_news }.notify_one();
        }
        Ok(receipt(seq, lease))
    }

    pub(crate) fn dead_letter(&mut self, name: &QueueName, receipt: &Receipt, reason: &str, now: DateTime<Utc>) -> Result<()> {
        name.dead_letter()?;
        let mut side = self.side(name, now)?;
        let seq = side.leased(receipt)?.ok_or_else(lost)?;
        side.queue.bury(name, seq, reason, now);
        Ok(())
    }

    pub(crate) fn redrive(&mut self, name: &QueueName, max: u32, now: DateTime<Utc>) -> Result<u64> {
        name.dead_letter()?;
        let side = self.side(name, now)?;
        // By age, whatever the priority; what somebody is looking at stays.
        let mut letters: Vec<Seq> = side.queue.dead.ready().map(|(seq, _)| seq).collect();
        letters.sort_unstable();
        letters.truncate(max as usize);
        for seq in &letters {
            side.queue.resurrect(*seq, now);
        }
        Ok(letters.len() as u64)
    }

    pub(crate) fn peek(&mut self, name: &QueueName, max: u32, now: DateTime<Utc>) -> Result<Vec<Message>> {
        let mut side = self.side(name, now)?;
        Ok(side.lane().ready().take(max as usize).map(|(_, message)| message.clone()).collect())
    }

    pub(crate) fn stats(&mut self, name: &QueueName, now: DateTime<Utc>) -> Result<QueueStats> {
        let mut side = self.side(name, now)?;
        let dead = if side.dead { 0 } else { side.queue.dead.len() as u64 };
        let [ready, delayed, leased] = side.lane().counts();
        Ok(QueueStats { ready, delayed, leased, dead: Count::Exact(dead), oldest: side.lane().oldest() })
    }

    pub(crate) fn purge(&mut self, name: &QueueName, now: DateTime<Utc>) -> Result<u64> {
        Ok(self.side(name, now)?.lane().clear() as u64)
    }
}

fn send_one(queue: &mut Queue, seq: Seq, new: NewMessage, now: DateTime<Utc>) -> Sent {
    if let Some(first) = new.dedup_id.as_ref().and_then(|id| queue.dedup.get(id)) {
        return Sent { id: first.clone(), duplicate: true };
    }
    let id = MessageId(seq.to_string());
    if let Some(dedup) = new.dedup_id
        && !queue.spec.dedup_window.is_zero()
    {
        queue.remembered.push_back((clock::add(now, queue.spec.dedup_window), dedup.clone()));
        queue.dedup.insert(dedup, id.clone());
    }
    let message = Message {
        id: id.clone(),
        body: new.body,
        attributes: new.attributes,
        content_type: new.content_type,
        priority: new.priority,
        deliveries: 0,
        enqueued_at: now,
        expires_at: new.ttl.map(|ttl| clock::add(now, ttl)),
    };
    queue.live.insert(seq, message, clock::add(now, new.delay), now);
    Sent { id, duplicate: false }
}
