//! The messages of one queue, or of its dead-letter companion, by what becomes of them next.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use storage_core::{Count, Message, clock};

/// When a message was sent, counted over the whole store: the order within a priority.
pub(crate) type Seq = u64;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) message: Message,
    /// The number of its newest lease; 0 before the first.
    pub(crate) lease: u64,
    visible_at: DateTime<Utc>,
}

/// Every message is in exactly one of `ready` and `waiting`.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    entries: BTreeMap<Seq, Entry>,
    ready: BTreeSet<(Reverse<u8>, Seq)>,
    /// Leased or delayed.
    waiting: BTreeSet<(DateTime<Utc>, Seq)>,
    /// Ready ones with a time to live. One with a consumer is the consumer's until the lease ends.
    expiring: BTreeSet<(DateTime<Utc>, Seq)>,
}

impl Lane {
    pub(crate) fn insert(&mut self, seq: Seq, message: Message, visible_at: DateTime<Utc>, now: DateTime<Utc>) {
        self.entries.insert(seq, Entry { message, lease: 0, visible_at });
        self.place(seq, visible_at, now);
    }

    pub(crate) fn get_mut(&mut self, seq: Seq) -> Option<&mut Entry> {
        self.entries.get_mut(&seq)
    }

    pub(crate) fn contains(&self, seq: Seq) -> bool {
        self.entries.contains_key(&seq)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(crate) fn remove(&mut self, seq: Seq) -> Option<Message> {
        self.unplace(seq);
        self.entries.remove(&seq).map(|entry| entry.message)
    }

    /// Makes the message visible at `visible_at`.
    pub(crate) fn place(&mut self, seq: Seq, visible_at: DateTime<Utc>, now: DateTime<Utc>) {
        self.unplace(seq);
        let Some(entry) = self.entries.get_mut(&seq) else { return };
        entry.visible_at = visible_at;
        if visible_at > now {
            self.waiting.insert((visible_at, seq));
            return;
        }
        self.ready.insert((Reverse(entry.message.priority), seq));
        if let Some(at) = entry.message.expires_at {
            self.expiring.insert((at, seq));
        }
    }

    fn unplace(&mut self, seq: Seq) {
        let Some(entry) = self.entries.get(&seq) else { return };
        self.waiting.remove(&(entry.visible_at, seq));
        self.ready.remove(&(Reverse(entry.message.priority), seq));
        if let Some(at) = entry.message.expires_at {
            self.expiring.remove(&(at, seq));
        }
    }

    /// Makes what is due ready. Answers with those that have become so.
    pub(crate) fn wake(&mut self, now: DateTime<Utc>) -> Vec<Seq> {
        let mut woken = Vec::new();
        while let Some(&(at, seq)) = self.waiting.first().filter(|(at, _)| *at <= now) {
            self.place(seq, at, now);
            woken.push(seq);
        }
        woken
    }

    /// Ready messages whose time to live is over.
    pub(crate) fn expired(&self, now: DateTime<Utc>) -> Vec<Seq> {
        self.expiring.iter().take_while(|(at, _)| *at <= now).map(|(_, seq)| *seq).collect()
    }

    /// Leases the next ready message.
    pub(crate) fn lease(
        &mut self,
        lease: u64,
        visibility: Duration,
        now: DateTime<Utc>,
    ) -> Option<(Seq, DateTime<Utc>, Message)> {
        let &(_, seq) = self.ready.first()?;
        let entry = self.entries.get_mut(&seq)?;
        entry.message.deliveries = entry.message.deliveries.saturating_add(1);
        entry.lease = lease;
        let message = entry.message.clone();
        let until = clock::add(now, visibility);
        self.place(seq, until, now);
        Some((seq, until, message))
    }

    /// The ready messages in the order in which they would be leased.
    pub(crate) fn ready(&self) -> impl Iterator<Item = (Seq, &Message)> {
        self.ready.iter().filter_map(|(_, seq)| self.entries.get(seq).map(|entry| (*seq, &entry.message)))
    }

    /// When the next message becomes ready.
    pub(crate) fn next_visible(&self) -> Option<DateTime<Utc>> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// When the next ready message expires.
    pub(crate) fn next_expiry(&self) -> Option<DateTime<Utc>> {
        self.expiring.first().map(|(at, _)| *at)
    }

    /// Ready, delayed and leased.
    pub(crate) fn counts(&self) -> [Count; 3] {
        let leased = self.waiting.iter().filter(|(_, seq)| self.entries.get(seq).is_some_and(|e| e.lease > 0)).count();
        [self.ready.len(), self.waiting.len() - leased, leased].map(|n| Count::Exact(n as u64))
    }

    pub(crate) fn oldest(&self) -> Option<DateTime<Utc>> {
        self.entries.values().next().map(|entry| entry.message.enqueued_at)
    }

    pub(crate) fn clear(&mut self) -> usize {
        let removed = self.entries.len();
        *self = Self::default();
        removed
    }
}
