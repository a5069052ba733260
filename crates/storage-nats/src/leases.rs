//! Who holds which message, as far as this process knows.
//!
//! The server counts the time of a lease and delivers the message again at its end, but takes an acknowledgement from whoever sends it. So the proof
//! of a lease is kept here: a receipt works in the store that received, until its lease ends by this machine's monotonic clock. That is a little
//! before the server's end of it, since it is counted from before the request. What a receipt of this process no longer proves is refused.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
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
    pub(crate) life: String,
    pub(crate) lane: Lane,
    pub(crate) sequence: u64,
    pub(crate) id: String,
    pub(crate) deliveries: u32,
    /// Where to acknowledge.
    pub(crate) reply: Subject,
    pub(crate) ends: Instant,
}

/// A message's place, of whatever queue.
type Place = (String, u64);

#[derive(Debug, Default)]
struct Table {
    leases: HashMap<String, Lease>,
    /// The receipt by which a place is held.
    held: HashMap<Place, String>,
    swept: usize,
    last: u64,
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

    /// Notes a lease and makes its receipt.
    pub(crate) fn note(&self, lease: Lease) -> Receipt {
        let mut table = self.table();
        table.swept += 1;
        if table.swept >= SWEEP.max(table.leases.len()) {
            let now = Instant::now();
            table.leases.retain(|_, lease| lease.ends > now);
            let Table { leases, held, .. } = &mut *table;
            held.retain(|_, receipt| leases.contains_key(receipt));
            table.swept = 0;
        }
        table.last += 1;
        let receipt =
            format!("{}.{}.{}.{}.{}-{}", lease.life, lease.lane.mark(), lease.sequence, lease.id, self.store, table.last);
        let place = (lease.life.clone(), lease.sequence);
        if let Some(stale) = table.held.insert(place, receipt.clone()) {
            table.leases.remove(&stale);
        }
        table.leases.insert(receipt.clone(), lease);
        Receipt(receipt)
    }

    /// The lease that a receipt proves, if it has not ended.
    pub(crate) fn find(&self, receipt: &Receipt, life: &str, lane: Lane) -> Option<Lease> {
        let table = self.table();
        let lease = table.leases.get(&receipt.0)?;
        let good = lease.life == life && lease.lane == lane && lease.ends > Instant::now();
        good.then(|| lease.clone())
    }

    /// The lease under which this store has a message, if it has not ended.
    pub(crate) fn holder(&self, life: &str, sequence: u64) -> Option<Lease> {
        let table = self.table();
        let lease = table.leases.get(table.held.get(&(life.to_owned(), sequence))?)?;
        (lease.ends > Instant::now()).then(|| lease.clone())
    }

    /// Says that a lease may end at `ends` already, since the server has been or is being told so.
    pub(crate) fn shorten(&self, receipt: &Receipt, ends: Instant) {
        if let Some(lease) = self.table().leases.get_mut(&receipt.0) {
            lease.ends = lease.ends.min(ends);
        }
    }

    /// A new receipt for a lease that ends at `ends`; the one before is stale. `None`: it was stale already.
    pub(crate) fn renew(&self, receipt: &Receipt, ends: Instant) -> Option<Receipt> {
        let lease = self.table().leases.remove(&receipt.0)?;
        Some(self.note(Lease { ends, ..lease }))
    }

    /// Forgets a lease. False: somebody else did.
    pub(crate) fn forget(&self, receipt: &Receipt) -> bool {
        let mut table = self.table();
        let Some(lease) = table.leases.remove(&receipt.0) else { return false };
        table.held.remove(&(lease.life, lease.sequence));
        true
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
            id: sequence.to_string(),
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
        assert!(leases.holder("life", 1).is_some());
        leases.shorten(&second, Instant::now());
        assert!(leases.find(&second, "life", Lane::Live).is_none() && leases.holder("life", 1).is_none());
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
        assert!(table.leases.len() <= SWEEP && table.held.len() <= SWEEP, "{} leases", table.leases.len());
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
