//! Which messages somebody has, and until when.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use storage_core::Receipt;
use tokio::time::Instant;
use uuid::Uuid;

use super::line::Arrival;

/// How many receipts of deleted messages are remembered: deleting twice is fine.
const REMEMBERED: usize = 10_000;

/// A message that somebody has.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) arrival: Arrival,
    pub(super) until: Instant,
}

/// What a receipt is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It holds this lease.
    Holds(u64),
    /// Its message was deleted.
    Gone,
    /// It never held one here, or does so no longer.
    Stale,
}

/// The leases of one queue. Receipts are numbers behind an id of the table, so that those of others are told apart.
#[derive(Debug)]
pub(super) struct Leases {
    id: String,
    next: u64,
    held: HashMap<u64, Lease>,
    ends: BTreeSet<(Instant, u64)>,
    gone: HashSet<u64>,
    gone_in_order: VecDeque<u64>,
}

impl Leases {
    pub(super) fn new() -> Self {
        Self {
            id: Uuid::new_v4().simple().to_string(),
            next: 0,
            held: HashMap::new(),
            ends: BTreeSet::new(),
            gone: HashSet::new(),
            gone_in_order: VecDeque::new(),
        }
    }

    /// A receipt that is good for nothing yet.
    pub(super) fn fresh(&mut self) -> (u64, Receipt) {
        self.next += 1;
        (self.next, Receipt(format!("{}-{}", self.id, self.next)))
    }

    pub(super) fn add(&mut self, lease: Lease) -> Receipt {
        let (number, receipt) = self.fresh();
        self.ends.insert((lease.until, number));
        self.held.insert(number, lease);
        receipt
    }

    pub(super) fn standing(&self, receipt: &Receipt) -> Standing {
        let number = receipt.0.strip_prefix(&self.id).and_then(|rest| rest.strip_prefix('-')).and_then(|n| n.parse().ok());
        match number {
            Some(number) if self.held.contains_key(&number) => Standing::Holds(number),
            Some(number) if self.gone.contains(&number) => Standing::Gone,
            _ => Standing::Stale,
        }
    }

    pub(super) fn get(&self, number: u64) -> Option<&Lease> {
        self.held.get(&number)
    }

    pub(super) fn take(&mut self, number: u64) -> Option<Lease> {
        let lease = self.held.remove(&number)?;
        self.ends.remove(&(lease.until, number));
        Some(lease)
    }

    /// Remembers that the message of a receipt was deleted.
    pub(super) fn remember(&mut self, number: u64) {
        if self.gone.insert(number) {
            self.gone_in_order.push_back(number);
        }
        if self.gone_in_order.len() > REMEMBERED
            && let Some(oldest) = self.gone_in_order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }

    pub(super) fn next_end(&self) -> Option<Instant> {
        self.ends.first().map(|(until, _)| *until)
    }

    /// Those that have ended.
    pub(super) fn take_ended(&mut self, now: Instant) -> Vec<Lease> {
        let mut ended = Vec::new();
        while let Some((until, number)) = self.ends.first().copied().filter(|(until, _)| *until <= now) {
            self.ends.remove(&(until, number));
            ended.extend(self.held.remove(&number));
        }
        ended
    }

    /// All of them, whose messages are deleted.
    pub(super) fn take_all_as_gone(&mut self) -> Vec<Lease> {
        self.ends.clear();
        let all: Vec<(u64, Lease)> = self.held.drain().collect();
        all.into_iter()
            .map(|(number, lease)| {
                self.remember(number);
                lease
            })
            .collect()
    }

    /// Forgets all of them: the broker gives their messages to others.
    pub(super) fn lose_all(&mut self) {
        self.held.clear();
        self.ends.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.held.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn lease(until: Instant) -> Lease {
        Lease { arrival: Arrival::for_test(), until }
    }

    #[tokio::test]
    async fn receipts_hold_until_their_lease_ends() {
        let (mut leases, now) = (Leases::new(), Instant::now());
        let short = leases.add(lease(now + Duration::from_secs(1)));
        let long = leases.add(lease(now + Duration::from_secs(9)));
        assert_eq!(leases.standing(&short), Standing::Holds(1));
        assert_eq!(leases.take_ended(now + Duration::from_secs(1)).len(), 1);
        assert_eq!((leases.standing(&short), leases.standing(&long)), (Standing::Stale, Standing::Holds(2)));
        assert_eq!(Leases::new().standing(&long), Standing::Stale, "another table's");
        assert_eq!(leases.take_all_as_gone().len(), 1);
        assert_eq!((leases.standing(&long), leases.next_end()), (Standing::Gone, None));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut leases = Leases::new();
        for number in 0..2 * REMEMBERED as u64 {
            leases.remember(number);
        }
        assert_eq!((leases.gone.len(), leases.gone_in_order.len()), (REMEMBERED, REMEMBERED));
    }
}
