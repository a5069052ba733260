//! The messages of queues in memory, as their file names tell them.
//!
//! Everything that decides what is received next stands in a message's file name:
//!
//! `<9 - priority>-<id>-<visible at>-<expires at>-<deliveries>-<lease>.msg`, numbers in hex, times in microseconds.
//!
//! So a message changes its state by one rename, a folder's listing is the whole queue, and this index of it follows the journal, whoever
//! wrote there.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use storage_core::{QueueSpec, Result};

use crate::base::Base;
use crate::file;
use crate::journal::{Journal, Op};
use crate::state::State;

/// A message's id: the time of its sending in microseconds, a tie break, a random number. Ids sort in the order of sending.
pub(crate) type Id = u128;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: Id,
    pub(crate) priority: u8,
    /// From when on it can be received; 0: it always could.
    pub(crate) visible: i64,
    /// When its time to live is over; 0: never.
    pub(crate) expires: i64,
    pub(crate) deliveries: u32,
    /// The number of its newest lease, a random one; 0 before the first.
    pub(crate) lease: u64,
}

impl Entry {
    pub(crate) fn path(&self, lane: &str) -> String {
        let folder = if self.lease == 0 { "ready" } else { "leased" };
        format!(
            "{lane}/{folder}/{}-{:032x}-{:x}-{:x}-{:x}-{:x}.msg",
            9 - self.priority.min(9),
            self.id,
            self.visible,
            self.expires,
            self.deliveries,
            self.lease
        )
    }

    fn parse(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(".msg")?.split('-');
        let entry = Self {
            priority: 9_u8.checked_sub(parts.next()?.parse().ok()?)?,
            id: u128::from_str_radix(parts.next()?, 16).ok()?,
            visible: i64::from_str_radix(parts.next()?, 16).ok()?,
            expires: i64::from_str_radix(parts.next()?, 16).ok()?,
            deliveries: u32::from_str_radix(parts.next()?, 16).ok()?,
            lease: u64::from_str_radix(parts.next()?, 16).ok()?,
        };
        parts.next().is_none().then_some(entry)
    }

    pub(crate) fn enqueued_at(&self) -> DateTime<Utc> {
        let micros = i64::try_from(self.id >> 64).unwrap_or(i64::MAX);
        DateTime::from_timestamp_micros(micros).unwrap_or_default()
    }

    pub(crate) fn expires_at(&self) -> Option<DateTime<Utc>> {
        (self.expires != 0).then(|| DateTime::from_timestamp_micros(self.expires).unwrap_or_default())
    }
}

/// Every message is in exactly one of `ready` and `waiting`.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    entries: BTreeMap<Id, Entry>,
    /// By rank: 9 less the priority.
    ready: BTreeSet<(u8, Id)>,
    /// Leased or delayed.
    waiting: BTreeSet<(i64, Id)>,
    /// Ready ones with a time to live. One with a consumer is the consumer's until the lease ends.
    expiring: BTreeSet<(i64, Id)>,
    /// The newest id that there ever was.
    last: Id,
}

impl Lane {
    fn insert(&mut self, entry: Entry) {
        self.remove(entry.id);
        self.last = self.last.max(entry.id);
        if entry.visible == 0 {
            self.make_ready(&entry);
        } else {
            self.waiting.insert((entry.visible, entry.id));
        }
        self.entries.insert(entry.id, entry);
    }

    fn make_ready(&mut self, entry: &Entry) {
        self.ready.insert((9 - entry.priority.min(9), entry.id));
        if entry.expires != 0 {
            self.expiring.insert((entry.expires, entry.id));
        }
    }

    fn remove(&mut self, id: Id) {
        let Some(entry) = self.entries.remove(&id) else { return };
        self.ready.remove(&(9 - entry.priority.min(9), id));
        self.waiting.remove(&(entry.visible, id));
        self.expiring.remove(&(entry.expires, id));
    }

    pub(crate) fn get(&self, id: Id) -> Option<&Entry> {
        self.entries.get(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Makes what is due ready. Answers with those that have become so.
    pub(crate) fn wake(&mut self, now: i64) -> Vec<Entry> {
        let mut woken = Vec::new();
        while let Some((_, id)) = self.waiting.first().copied().filter(|(at, _)| *at <= now) {
            self.waiting.pop_first();
            if let Some(entry) = self.entries.get(&id).cloned() {
                self.make_ready(&entry);
                woken.push(entry);
            }
        }
        woken
    }

    /// Ready messages whose time to live is over.
    pub(crate) fn expired(&self, now: i64) -> Vec<Entry> {
        let due = self.expiring.iter().take_while(|(at, _)| *at <= now);
        due.filter_map(|(_, id)| self.entries.get(id).cloned()).collect()
    }

    /// The ready messages in the order in which they are received.
    pub(crate) fn ready(&self) -> impl Iterator<Item = &Entry> {
        self.ready.iter().filter_map(|(_, id)| self.entries.get(id))
    }

    /// When the next message becomes ready.
    pub(crate) fn next_visible(&self) -> Option<i64> {
        self.waiting.first().map(|(at, _)| *at)
    }

    /// When the next ready message expires.
    pub(crate) fn next_expiry(&self) -> Option<i64> {
        self.expiring.first().map(|(at, _)| *at)
    }

    /// Ready, delayed and leased.
    pub(crate) fn counts(&self) -> [usize; 3] {
        let leased = self.waiting.iter().filter(|(_, id)| self.entries.get(id).is_some_and(|e| e.lease > 0)).count();
        [self.ready.len(), self.waiting.len() - leased, leased]
    }

    pub(crate) fn oldest(&self) -> Option<&Entry> {
        self.entries.values().next()
    }

    /// An id behind all that were here.
    pub(crate) fn next_id(&mut self, now: i64) -> Id {
        let micros = u128::try_from(now).unwrap_or_default();
        // The random part keeps an id from coming back where the newest message has been removed under a clock that stands still.
        let random = u128::from(random() & 0xffff_ffff);
        let (last_micros, last_tie) = (self.last >> 64, (self.last >> 32) & 0xffff_ffff);
        let id = if micros > last_micros { micros << 64 } else { (last_micros << 64) + ((last_tie + 1) << 32) };
        self.last = id | random;
        self.last
    }
}

/// A random number that is not 0.
pub(crate) fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().1.max(1)
}

/// A queue's messages and its dead letters.
#[derive(Debug, Default)]
pub(crate) struct Pair {
    /// How the queue behaves.
    pub(crate) spec: QueueSpec,
    pub(crate) live: Lane,
    pub(crate) dead: Lane,
}

/// The folder of a queue's dead letters.
pub(crate) fn dead_folder(folder: &str) -> String {
    format!("{folder}/dead")
}

impl Pair {
    fn apply(&mut self, folder: &str, op: &Op) {
        let (gone, there) = match op {
            Op::Write { path, .. } => (None, Some(path)),
            Op::Remove { path } => (Some(path), None),
            Op::Rename { from, to } => (Some(from), Some(to)),
        };
        if let Some((lane, entry)) = gone.and_then(|path| self.locate(folder, path)) {
            // The path tells of one state of the message: a newer one stays.
            if lane.get(entry.id) == Some(&entry) {
                lane.remove(entry.id);
            }
        }
        if let Some((lane, entry)) = there.and_then(|path| self.locate(folder, path)) {
            lane.insert(entry);
        }
    }

    fn locate(&mut self, folder: &str, path: &str) -> Option<(&mut Lane, Entry)> {
        let rest = path.strip_prefix(folder)?.strip_prefix('/')?;
        let (lane, rest) = match rest.strip_prefix("dead/") {
            Some(rest) => (&mut self.dead, rest),
            None => (&mut self.live, rest),
        };
        let (_, name) = rest.split_once('/').filter(|(state, _)| matches!(*state, "ready" | "leased"))?;
        Entry::parse(name).map(|entry| (lane, entry))
    }
}

/// The queues that this process has worked with.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    pairs: HashMap<String, Pair>,
    /// Up to where the journal is in here: structure, era and offset.
    position: (u64, u64, u64),
}

impl Lanes {
    pub(crate) fn pair(&mut self, folder: &str) -> &mut Pair {
        self.pairs.entry(folder.to_owned()).or_default()
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        let (Op::Write { path, .. } | Op::Remove { path } | Op::Rename { to: path, .. }) = op;
        let mut parts = path.splitn(3, '/');
        let (Some("queues"), Some(queue)) = (parts.next(), parts.next()) else { return };
        let folder = &path[.."queues/".len() + queue.len()];
        if let Some(pair) = self.pairs.get_mut(folder) {
            pair.apply(folder, op);
        }
    }

    /// How the queue behaves, where it is in memory.
    pub(crate) fn spec(&self, folder: &str) -> Option<QueueSpec> {
        self.pairs.get(folder).map(|pair| pair.spec)
    }

    /// Reads a queue's folders. `pending`: what the group will do to them.
    pub(crate) fn load(&mut self, base: &Base, folder: &str, spec: QueueSpec, pending: &[Op]) -> Result<()> {
        let mut pair = Pair { spec, ..Pair::default() };
        for (lane, path) in [(&mut pair.live, folder.to_owned()), (&mut pair.dead, dead_folder(folder))] {
            for state in ["ready", "leased"] {
                file::names(&base.path(&format!("{path}/{state}")))?
                    .iter()
                    .filter_map(|name| Entry::parse(name))
                    .for_each(|entry| lane.insert(entry));
            }
        }
        pending.iter().for_each(|op| pair.apply(folder, op));
        self.pairs.insert(folder.to_owned(), pair);
        Ok(())
    }

    /// Follows what other processes have written since.
    pub(crate) fn catch_up(&mut self, journal: &Journal, state: &State) -> Result<()> {
        let (structure, era, mut end) = self.position;
        if self.pairs.is_empty() {
            self.seen(state);
            return Ok(());
        }
        while (structure, era) == (state.structure, state.era) && end < state.end {
            let Some((ops, next)) = journal.read(era, end)? else { break };
            ops.iter().for_each(|op| self.apply(op));
            end = next;
        }
        if (structure, era, end) != (state.structure, state.era, state.end) {
            self.forget();
        }
        self.seen(state);
        Ok(())
    }

    pub(crate) fn seen(&mut self, state: &State) {
        self.position = (state.structure, state.era, state.end);
    }

    /// Reads everything anew when it is needed.
    pub(crate) fn forget(&mut self) {
        self.pairs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: Id, visible: i64, lease: u64) -> Entry {
        Entry { id, priority: 3, visible, expires: 77, deliveries: 2, lease }
    }

    #[test]
    fn names_come_back() {
        for entry in [entry(7, 0, 0), entry(u128::MAX, i64::MAX, u64::MAX)] {
            let path = entry.path("queues/a");
            assert_eq!(Entry::parse(path.rsplit('/').next().unwrap()).unwrap(), entry, "{path}");
        }
        for foreign in ["", "x.msg", "notes.txt", "1-2-3-4-5.msg", "10-2-3-4-5-6.msg", "1-2-3-4-5-6-7.msg"] {
            assert!(Entry::parse(foreign).is_none(), "{foreign}");
        }
    }

    #[test]
    fn lanes_follow_the_files() {
        let mut lanes = Lanes::default();
        lanes.pair("queues/q");
        let (sent, leased) = (entry(1, 0, 0), entry(1, 50, 9));
        let path = |e: &Entry| e.path("queues/q");
        lanes.apply(&Op::Write { path: path(&sent), bytes: Default::default() });
        lanes.apply(&Op::Write { path: "queues/other/ready/x.msg".into(), bytes: Default::default() });
        assert_eq!(lanes.pair("queues/q").live.counts(), [1, 0, 0]);
        lanes.apply(&Op::Rename { from: path(&sent), to: path(&leased) });
        assert_eq!(lanes.pair("queues/q").live.counts(), [0, 0, 1]);
        // The order of the two halves of a rewrite does not count.
        lanes.apply(&Op::Remove { path: path(&sent) });
        assert_eq!(lanes.pair("queues/q").live.wake(50), std::slice::from_ref(&leased));
        lanes.apply(&Op::Remove { path: path(&leased) });
        lanes.apply(&Op::Write { path: sent.path(&dead_folder("queues/q")), bytes: Default::default() });
        let pair = lanes.pair("queues/q");
        assert_eq!((pair.live.len(), pair.dead.len()), (0, 1));
    }

    #[test]
    fn ids_sort_by_sending_even_when_the_clock_goes_back() {
        let mut lane = Lane::default();
        let ids: Vec<Id> = [5, 5, 3, 9, 9].into_iter().map(|now| lane.next_id(now)).collect();
        assert!(ids.is_sorted() && ids.windows(2).all(|w| w[0] != w[1]));
        assert_eq!(ids[2] >> 64, 5);
        assert_eq!(ids[3] >> 64, 9);
    }
}
