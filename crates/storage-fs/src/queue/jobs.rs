//! What happens to queues under the store's lock.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use storage_core::message::dead;
use storage_core::{
    Count, Delivery, Error, Message, MessageId, MessageUpdate, NewMessage, QueueName, QueueSpec, QueueStats, Receipt, Receive,
    Result, Sent, clock,
};

use super::message::{Header, id_text};
use super::spec::{self, folder, home, no_queue};
use crate::group::{Group, Stage};
use crate::journal::Op;
use crate::lane::{Entry, Id, Lane, dead_folder, random};
use crate::{names, sweep};

/// How many bytes of messages one job works with: there is room for them in memory.
const JOB_BYTES: usize = 64 << 20;
/// How many dead letters one job sends home.
pub(super) const REDRIVEN: u32 = 256;

fn lost() -> Error {
    Error::lease_lost("the message was received again, updated, removed or dead-lettered since this receipt was made")
}

/// How the queue behaves, with its messages brought into memory. `None`: there is no such queue.
fn known_spec(group: &mut Group<'_>, queue: &QueueName, folder: &str) -> Result<Option<QueueSpec>> {
    if let Some(spec) = group.lanes.spec(folder) {
        return Ok(Some(spec));
    }
    let spec = spec::load(group.base, queue)?;
    if let Some(spec) = spec {
        group.load_lanes(folder, spec)?;
    }
    Ok(spec)
}

/// A queue, or its companion, that is being worked with.
struct Side {
    home: QueueName,
    folder: String,
    dead: bool,
    spec: QueueSpec,
    now: i64,
}

impl Side {
    /// The queue brought up to now.
    fn of(group: &mut Group<'_>, queue: &QueueName) -> Result<Self> {
        let home = home(queue);
        let folder = folder(&home);
        let spec = known_spec(group, &home, &folder)?.ok_or_else(|| no_queue(queue))?;
        let side = Self { home, folder, dead: queue.is_dead_letter(), spec, now: group.now.timestamp_micros() };
        side.settle(group)?;
        Ok(side)
    }

    /// What is due becomes ready, what is over becomes a dead letter.
    fn settle(&self, group: &mut Group<'_>) -> Result<()> {
        let pair = group.lanes.pair(&self.folder);
        pair.dead.wake(self.now);
        let woken = pair.live.wake(self.now);
        let expired = pair.live.expired(self.now);
        for entry in woken.iter().chain(&expired) {
            // What does not fit into one job is still buried before it could be received.
            if group.size() < JOB_BYTES {
                self.bury_if_over(group, entry)?;
            }
        }
        Ok(())
    }

    /// Makes a message that is not to be received any more a dead letter.
    fn bury_if_over(&self, group: &mut Group<'_>, entry: &Entry) -> Result<bool> {
        let reason = if self.spec.max_deliveries.is_some_and(|max| entry.deliveries >= max) {
            dead::MAX_DELIVERIES
        } else if entry.expires != 0 && entry.expires <= self.now {
            dead::EXPIRED
        } else {
            return Ok(false);
        };
        // Both may be true of one message, which is buried once.
        if group.lanes.pair(&self.folder).live.get(entry.id).is_some() {
            self.bury(group, entry, reason)?;
        }
        Ok(true)
    }

    fn lane_folder(&self) -> String {
        if self.dead { dead_folder(&self.folder) } else { self.folder.clone() }
    }

    fn lane<'g>(&self, group: &'g mut Group<'_>) -> &'g mut Lane {
        let pair = group.lanes.pair(&self.folder);
        if self.dead { &mut pair.dead } else { &mut pair.live }
    }

    /// A message's file. One that was taken away by hand is forgotten; one that can't be read is made a dead letter as it is.
    fn read(&self, group: &mut Group<'_>, entry: &Entry) -> Result<Option<(Header, Bytes)>> {
        let path = entry.path(&self.lane_folder());
        let Some(file) = group.read(&path)? else {
            group.push(Op::Remove { path });
            return Ok(None);
        };
        match Header::decode(&file) {
            Ok(found) => Ok(Some(found)),
            Err(what) if self.dead => Err(group.base.corrupt(&path, format_args!("this is not a message: {what}"))),
            Err(what) => {
                tracing::warn!(path, what, "a damaged message becomes a dead letter");
                let header = Header::new(entry, None, Default::default());
                self.bury_as(group, entry, header, &file, &format!("damaged: {what}"))?;
                Ok(None)
            }
        }
    }

    fn bury(&self, group: &mut Group<'_>, entry: &Entry, reason: &str) -> Result<()> {
        let live = Self { dead: false, home: self.home.clone(), folder: self.folder.clone(), ..*self };
        let Some((header, body)) = live.read(group, entry)? else { return Ok(()) };
        self.bury_as(group, entry, header, &body, reason)
    }

    fn bury_as(&self, group: &mut Group<'_>, entry: &Entry, mut header: Header, body: &[u8], reason: &str) -> Result<()> {
        header.bury(self.home.as_str(), reason, entry.deliveries, group.now);
        let letter = Entry { visible: 0, expires: 0, deliveries: 0, lease: 0, ..entry.clone() };
        let bytes = header.encode(body)?;
        group.push(Op::Write { path: letter.path(&dead_folder(&self.folder)), bytes });
        group.push(Op::Remove { path: entry.path(&self.folder) });
        group.tell();
        Ok(())
    }

    /// The message of a receipt. `None`: it is gone for good.
    fn leased(&self, group: &mut Group<'_>, receipt: &Receipt) -> Result<Option<Entry>> {
        let (id, lease) = parse(receipt)?;
        let pair = group.lanes.pair(&self.folder);
        let (here, other) = if self.dead { (&pair.dead, &pair.live) } else { (&pair.live, &pair.dead) };
        match here.get(id) {
            Some(entry) if entry.lease == lease => Ok(Some(entry.clone())),
            Some(_) => Err(lost()),
            None if other.get(id).is_some() => Err(lost()),
            None => Ok(None),
        }
    }

    /// When a receive that finds nothing should look again.
    fn next(&self, group: &mut Group<'_>) -> Option<i64> {
        let pair = group.lanes.pair(&self.folder);
        if !self.dead {
            return pair.live.next_visible();
        }
        // Dead letters come from the other lane.
        [pair.dead.next_visible(), pair.live.next_visible(), pair.live.next_expiry()].into_iter().flatten().min()
    }
}

fn receipt(entry: &Entry) -> Receipt {
    Receipt(format!("{}-{:016x}", id_text(entry.id), entry.lease))
}

fn parse(receipt: &Receipt) -> Result<(Id, u64)> {
    let parts = receipt.0.split_once('-').and_then(|(id, lease)| {
        // What else `from_str_radix` takes: signs, and fewer digits.
        let right = id.len() == 32 && lease.len() == 16 && !receipt.0.contains('+');
        let (id, lease) = (Id::from_str_radix(id, 16).ok()?, u64::from_str_radix(lease, 16).ok()?);
        (right && lease != 0).then_some((id, lease))
    });
    parts.ok_or_else(|| Error::invalid("this is no receipt: use the one that came with the message, as it is"))
}

/// A dedup id that is remembered.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    dedup_id: String,
    message: String,
    expires_at: chrono::DateTime<chrono::Utc>,
}

/// Sends a message with a batch.
pub(crate) fn enqueue(stage: &mut Stage<'_, '_>, queue: &QueueName, message: &NewMessage) -> Result<Sent> {
    queue.dead_letter()?;
    let folder = folder(queue);
    let spec = known_spec(stage.group, queue, &folder)?.ok_or_else(|| no_queue(queue))?;
    send_one(stage, &folder, &spec, message)
}

pub(super) fn send(group: &mut Group<'_>, queue: &QueueName, messages: &[NewMessage]) -> Result<Vec<Sent>> {
    queue.dead_letter()?;
    let side = Side::of(group, queue)?;
    let mut stage = Stage::new(group);
    let sent = messages.iter().map(|message| send_one(&mut stage, &side.folder, &side.spec, message)).collect::<Result<_>>()?;
    stage.accept()?;
    if !messages.is_empty() {
        group.must_be_durable();
    }
    Ok(sent)
}

fn send_one(stage: &mut Stage<'_, '_>, folder: &str, spec: &QueueSpec, message: &NewMessage) -> Result<Sent> {
    let now = stage.group.now;
    let dedup = message.dedup_id.as_ref().filter(|_| !spec.dedup_window.is_zero());
    let dedup = dedup.map(|id| (id, format!("{folder}/dedup/{}.json", names::hash(id.as_bytes()))));
    if let Some((_, path)) = &dedup
        && let Some(bytes) = stage.read(path)?
    {
        let known: Remembered = serde_json::from_slice(&bytes)
            .map_err(|e| stage.group.base.corrupt(path, format_args!("this is not a remembered dedup id: {e}")))?;
        if known.expires_at > now {
            return Ok(Sent { id: MessageId(known.message), duplicate: true });
        }
    }
    let micros = now.timestamp_micros();
    let visible = if message.delay.is_zero() { 0 } else { clock::add(now, message.delay).timestamp_micros() };
    let entry = Entry {
        id: stage.group.lanes.pair(folder).live.next_id(micros),
        priority: message.priority,
        visible,
        expires: message.ttl.map_or(0, |ttl| clock::add(now, ttl).timestamp_micros()),
        deliveries: 0,
        lease: 0,
    };
    if let Some((id, path)) = dedup {
        let expires_at = clock::add(now, spec.dedup_window);
        let known = Remembered { dedup_id: id.clone(), message: id_text(entry.id), expires_at };
        sweep::remind(stage, expires_at, &path)?;
        stage.write(path, serde_json::to_vec(&known)?);
    }
    let header = Header::new(&entry, message.content_type.clone(), message.attributes.clone());
    stage.write(entry.path(folder), header.encode(&message.body)?);
    stage.group.tell();
    Ok(Sent { id: MessageId(id_text(entry.id)), duplicate: false })
}

/// Leases messages. Answers with them, and with the time at which to look again where there are none.
pub(super) fn receive(group: &mut Group<'_>, queue: &QueueName, request: &Receive) -> Result<(Vec<Delivery>, Option<i64>)> {
    let side = Side::of(group, queue)?;
    let until = clock::add(group.now, request.visibility);
    let (mut deliveries, mut bytes) = (Vec::new(), 0);
    while deliveries.len() < request.max as usize && bytes < JOB_BYTES && group.size() < JOB_BYTES {
        let Some(entry) = side.lane(group).ready().next().cloned() else { break };
        if !side.dead && side.bury_if_over(group, &entry)? {
            continue;
        }
        let Some((header, body)) = side.read(group, &entry)? else { continue };
        let leased = Entry {
            visible: until.timestamp_micros(),
            deliveries: entry.deliveries.saturating_add(1),
            lease: random(),
            ..entry.clone()
        };
        let lane = side.lane_folder();
        bytes += body.len();
        group.push(Op::Rename { from: entry.path(&lane), to: leased.path(&lane) });
        deliveries.push(Delivery { message: header.into_message(&leased, body), receipt: receipt(&leased), leased_until: until });
    }
    let next = if deliveries.is_empty() { side.next(group) } else { None };
    Ok((deliveries, next))
}

pub(super) fn delete(group: &mut Group<'_>, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
    let side = Side::of(group, queue)?;
    let lane = side.lane_folder();
    let mut one = |receipt| {
        if let Some(entry) = side.leased(group, receipt)? {
            group.push(Op::Remove { path: entry.path(&lane) });
            group.must_be_durable();
        }
        Ok(())
    };
    Ok(receipts.iter().map(&mut one).collect())
}

pub(super) fn update(group: &mut Group<'_>, queue: &QueueName, old: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
    let side = Side::of(group, queue)?;
    let entry = side.leased(group, old)?.ok_or_else(lost)?;
    let visible = change.visibility.map_or(entry.visible, |visibility| clock::add(group.now, visibility).timestamp_micros());
    let changed = Entry { lease: random(), visible, ..entry.clone() };
    let lane = side.lane_folder();
    let (from, to) = (entry.path(&lane), changed.path(&lane));
    if change.body.is_none() && change.attributes.is_none() {
        group.push(Op::Rename { from, to });
    } else {
        let (mut header, body) = side.read(group, &entry)?.ok_or_else(lost)?;
        if let Some(attributes) = &change.attributes {
            header.attributes.clone_from(attributes);
        }
        let bytes = header.encode(change.body.as_ref().unwrap_or(&body))?;
        group.push(Op::Write { path: to, bytes });
        group.push(Op::Remove { path: from });
        group.must_be_durable();
    }
    side.settle(group)?;
    group.tell();
    Ok(receipt(&changed))
}

pub(super) fn dead_letter(group: &mut Group<'_>, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
    queue.dead_letter()?;
    let side = Side::of(group, queue)?;
    let entry = side.leased(group, receipt)?.ok_or_else(lost)?;
    side.bury(group, &entry, reason)?;
    group.must_be_durable();
    Ok(())
}

/// Sends some dead letters home, up to `max` and up to [`REDRIVEN`]. None: there are no more.
pub(super) fn redrive(group: &mut Group<'_>, queue: &QueueName, max: u32) -> Result<u32> {
    queue.dead_letter()?;
    let side = Side::of(group, queue)?;
    let letters = Side { dead: true, home: side.home.clone(), folder: side.folder.clone(), ..side };
    // By age, whatever the priority; what somebody is looking at stays.
    let mut ready: Vec<Entry> = letters.lane(group).ready().cloned().collect();
    ready.sort_unstable_by_key(|entry| entry.id);
    ready.truncate(max.min(REDRIVEN) as usize);
    let mut count = 0;
    for entry in ready {
        if group.size() > JOB_BYTES {
            break;
        }
        let Some((mut header, body)) = letters.read(group, &entry)? else { continue };
        header.resurrect();
        let alive = Entry { visible: 0, deliveries: 0, lease: 0, ..entry.clone() };
        let bytes = header.encode(&body)?;
        group.push(Op::Write { path: alive.path(&side.folder), bytes });
        group.push(Op::Remove { path: entry.path(&letters.lane_folder()) });
        count += 1;
    }
    group.must_be_durable();
    group.tell();
    Ok(count)
}

pub(super) fn peek(group: &mut Group<'_>, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
    let side = Side::of(group, queue)?;
    let ready: Vec<Entry> = side.lane(group).ready().take(max as usize).cloned().collect();
    let (mut messages, mut bytes) = (Vec::new(), 0);
    for entry in ready {
        if bytes > JOB_BYTES {
            break;
        }
        let read = side.read(group, &entry)?;
        bytes += read.as_ref().map_or(0, |(_, body)| body.len());
        messages.extend(read.map(|(header, body)| header.into_message(&entry, body)));
    }
    Ok(messages)
}

pub(super) fn stats(group: &mut Group<'_>, queue: &QueueName) -> Result<QueueStats> {
    let side = Side::of(group, queue)?;
    let dead = if side.dead { 0 } else { group.lanes.pair(&side.folder).dead.len() };
    let lane = side.lane(group);
    let [ready, delayed, leased] = lane.counts().map(|n| Count::Exact(n as u64));
    let oldest = lane.oldest().map(Entry::enqueued_at);
    Ok(QueueStats { ready, delayed, leased, dead: Count::Exact(dead as u64), oldest })
}

pub(super) fn purge(group: &mut Group<'_>, queue: &QueueName) -> Result<u64> {
    let side = Side::of(group, queue)?;
    let lane = side.lane_folder();
    let paths: Vec<String> = side.lane(group).entries().map(|entry| entry.path(&lane)).collect();
    let count = paths.len() as u64;
    paths.into_iter().for_each(|path| group.push(Op::Remove { path }));
    group.must_be_durable();
    Ok(count)
}
