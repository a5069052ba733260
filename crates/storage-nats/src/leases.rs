//! Who holds which message, as far as this process knows.
//!
//! The server counts the time of a lease and delivers the message again at its end, but takes an acknowledgement from whoever sends it. So the proof
//! of a lease is kept here: a receipt works in the store that received, until its lease ends by this machine's monotonic clock. That is a little
//! before the server's end of it, since it is counted from before the request. What a receipt of this process no longer proves is refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Subject;
use storage_core::Receipt;

use crate::names::Lane;

/// How many leases are noted between two looks for those that have ended.
const SWEEP: usize = 4096;

/// A message in somebody's hands.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    /// Of the queue.
    pub(crate) life: Arc<str>,
    pub(crate) lane: Lane,
    pub(crate) sequence: u64,
    pub(crate) id: Arc<str>,
    pub(crate) deliveries: u32,
    /// Where to acknowledge.
    pub(crate) reply: Subject,
    pub(crate) ends: Instant,
}

/// A lease, and the number of the receipt that proves it.
#[derive(Debug)]
struct Held {
    lease: Lease,
    number: u64,
}

#[derive(Debug, Default)]
struct Table {
    /// By the queue's life, then by the message's place.
    queues: HashMap<Arc<str>, HashMap<u64, Held>>,
    leases: usize,
    /// How many were noted since the last look for those that have ended.
    noted: usize,
    last: u64,
}

impl Table {
    fn get(&self, own: &Own<'_>) -> Option<&Lease> {
        let held = self.queues.get(own.life)?.get(&own.sequence)?;
        (held.number == own.number).then_some(&held.lease)
    }

    fn get_mut(&mut self, own: &Own<'_>) -> Option<&mut Lease> {
        let held = self.queues.get_mut(own.life)?.get_mut(&own.sequence)?;
        (held.number == own.number).then_some(&mut held.lease)
    }

    fn insert(&mut self, lease: Lease) {
        let held = Held { number: self.last, lease };
        let queue = match self.queues.get_mut(&held.lease.life) {
            Some(queue) => queue,
            None => self.queues.entry(Arc::clone(&held.lease.life)).or_default(),
        };
        if queue.insert(held.lease.sequence, held).is_none() {
            self.leases += 1;
        }
    }

    fn remove(&mut self, own: &Own<'_>) -> Option<Lease> {
        self.get(own)?;
        let held = self.queues.get_mut(own.life)?.remove(&own.sequence)?;
        self.leases -= 1;
        Some(held.lease)
    }

    /// Forgets those that have ended, once so many were noted that it is no more work than that.
    fn sweep(&mut self) {
        self.noted += 1;
        if self.noted < SWEEP.max(self.leases) {
            return;
        }
        let now = Instant::now();
        for queue in self.queues.values_mut() {
            queue.retain(|_, held| held.lease.ends > now);
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        self.leases = self.queues.values().map(HashMap::len).sum();
        self.noted = 0;
    }
}

/// A receipt that this store has made, taken apart.
struct Own<'a> {
    life: &'a str,
    sequence: u64,
    number: u64,
}

/// All leases of one store.
#[derive(Debug)]
pub(crate) struct Leases {
    /// Of this store, and of no other anywhere.
    store: String,
    table: Mutex<Table>,
}

/// What a receipt says by itself, whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) life: String,
    pub(crate) lane: Lane,
    pub(crate) sequence: u64,
    pub(crate) id: String,
}

impl Claim {
    /// `None`: it is none of ours.
    pub(crate) fn read(receipt: &Receipt) -> Option<Self> {
        let parts: Vec<&str> = receipt.0.split('.').collect();
        let [life, lane, sequence, id, _] = parts.as_slice() else { return None };
        let lane = [Lane::Live, Lane::Dead].into_iter().find(|known| known.mark() == *lane)?;
        let plain =
            |text: &str| !text.is_empty() && text.len() <= 64 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if !plain(life) || !plain(id) {
            return None;
        }
        Some(Self { life: (*life).to_owned(), lane, sequence: sequence.parse().ok()?, id: (*id).to_owned() })
    }
}

impl Leases {
    pub(crate) fn new() -> Self {
        Self { store: uuid::Uuid::new_v4().simple().to_string(), table: Mutex::default() }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: it is of another store, or none at all.
    fn own<'a>(&self, receipt: &'a Receipt) -> Option<Own<'a>> {
        let (claim, mark) = receipt.0.rsplit_once('.')?;
        let number = mark.strip_prefix(self.store.as_str())?.strip_prefix('-')?.parse().ok()?;
        let mut parts = claim.split('.');
        let (life, _lane, sequence) = (parts.next()?, parts.next()?, parts.next()?.parse().ok()?);
        Some(Own { life, sequence, number })
    }

    /// Notes a lease and makes its receipt.
    pub(crate) fn note(&self, lease: Lease) -> Receipt {
        let mut table = self.table();
        table.sweep();
        table.last += 1;
        let receipt =
            format!("{}.{}.{}.{}.{}-{}", lease.life, lease.lane.mark(), lease.sequence, lease.id, self.store, table.last);
        table.insert(lease);
        Receipt(receipt)
    }

    /// The lease that a receipt proves, if it has not ended.
    pub(crate) fn find(&self, receipt: &Receipt, life: &str, lane: Lane) -> Option<Lease> {
        let own = self.own(receipt).filter(|own| own.life == life)?;
        let table = self.table();
        let lease = table.get(&own)?;
        (lease.lane == lane && lease.ends > Instant::now()).then(|| lease.clone())
    }

    /// When the lease ends under which this store has a message, if it has not ended.
    pub(crate) fn held_until(&self, life: &str, sequence: u64) -> Option<Instant> {
        let table = self.table();
        let ends = table.queues.get(life)?.get(&sequence)?.lease.ends;
        (ends > Instant::now()).then_some(ends)
    }

    /// Says that a lease may end at `ends` already, since the server has been or is being told so.
    pub(crate) fn shorten(&self, receipt: &Receipt, ends: Instant) {
        let Some(own) = self.own(receipt) else { return };
        if let Some(lease) = self.table().get_mut(&own) {
            lease.ends = lease.ends.min(ends);
        }
    }

    /// A new receipt for a lease that ends at `ends`; the one before is stale. `None`: it was stale already.
    pub(crate) fn renew(&self, receipt: &Receipt, ends: Instant) -> Option<Receipt> {
        let own = self.own(receipt)?;
        let lease = self.table().remove(&own)?;
        Some(self.note(Lease { ends, ..lease }))
    }

    /// Forgets a lease. False: somebody else did.
    pub(crate) fn forget(&self, receipt: &Receipt) -> bool {
        let Some(own) = self.own(receipt) else { return false };
        self.table().remove(&own).is_some()
    }

    /// A receipt that proves nothing: what is answered where a lease was given up.
    pub(crate) fn spent(&self, lease: &Lease) -> Receipt {
        let receipt = self.note(Lease { ends: Instant::now() + Duration::from_secs(1), ..lease.clone() });
        self.forget(&receipt);
        receipt
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(sequence: u64, ends: Duration) -> Lease {
        Lease {
            life: "life".into(),
            lane: Lane::Live,
            sequence,
            id: sequence.to_string().into(),
            deliveries: 1,
            reply: "reply".into(),
            ends: Instant::now() + ends,
        }
    }

    const LONG: Duration = Duration::from_secs(100);

    #[test]
    fn a_receipt_works_once_and_for_a_time() {
        let leases = Leases::new();
        let first = leases.note(lease(1, LONG));
        assert_eq!(leases.find(&first, "life", Lane::Live).unwrap().sequence, 1);
        assert!(leases.find(&first, "other", Lane::Live).is_none() && leases.find(&first, "life", Lane::Dead).is_none());
        let second = leases.renew(&first, Instant::now() + LONG).unwrap();
        assert_ne!(first, second);
        assert!(leases.find(&first, "life", Lane::Live).is_none() && leases.renew(&first, Instant::now()).is_none());
        assert!(leases.held_until("life", 1).is_some());
        leases.shorten(&second, Instant::now());
        assert!(leases.find(&second, "life", Lane::Live).is_none() && leases.held_until("life", 1).is_none());
        let third = leases.note(lease(1, LONG));
        assert!(leases.forget(&third) && !leases.forget(&third) && !leases.forget(&second));
    }

    #[test]
    fn what_has_ended_is_swept() {
        let leases = Leases::new();
        for n in 0..3 * SWEEP as u64 {
            leases.note(lease(n, Duration::ZERO));
        }
        let table = leases.table();
        let (held, queues) = (table.queues.values().map(HashMap::len).sum::<usize>(), table.queues.len());
        assert!(held <= SWEEP && held == table.leases && queues <= 1, "{held} leases, {} by count", table.leases);
    }

    #[test]
    fn receipts_are_read_or_are_none() {
        let leases = Leases::new();
        let receipt = leases.note(lease(5, LONG));
        let claim = Claim { life: "life".into(), lane: Lane::Live, sequence: 5, id: "5".into() };
        assert_eq!(Claim::read(&receipt), Some(claim));
        for none in ["", "x", "1-1", "a.b.c.d.e", "life.L.5.*.x", "life.L.x.5.x", "life.L.5.>.x"] {
            assert_eq!(Claim::read(&Receipt(none.into())), None, "{none}");
        }
    }
}
