//! Works that only add: what has to be known before them is that nothing is there, which the database says when they are written.

use std::sync::atomic::{AtomicU32, Ordering};

use storage_core::{Expect, NewMessage, Write};

use super::{Catalog, Queue, Statements, Work};

/// How many groups are not tried after one that failed.
const PAUSE: u32 = 16;

/// True where all that is done is to insert records that are expected to be absent, and to send messages without dedup ids. Tables with unique values are
/// out: there the database could not say which write is at fault.
pub fn only_adds<S: Statements>(catalog: &Catalog<S>, works: &[&Work]) -> bool {
    let plain = |message: &NewMessage| message.dedup_id.is_none();
    let adds = |write: &Write| match write {
        Write::Put { table, expect, .. } => {
            *expect == Expect::Absent && catalog.table(table).is_ok_and(|entry| !entry.has_unique())
        }
        Write::Enqueue { message, .. } => plain(message),
        Write::Merge { .. } | Write::Delete { .. } | Write::Check { .. } => false,
    };
    works.iter().all(|work| match work {
        Work::Batch(writes) => writes.iter().all(adds),
        Work::Send(_, messages) => messages.iter().all(plain),
    })
}

/// The queue that all messages go to, where they are all that is written.
pub fn only_queue(works: &[&Work], queues: impl IntoIterator<Item = Queue>) -> Option<Queue> {
    let mut queues = queues.into_iter();
    let queue = queues.next().filter(|_| works.iter().all(|work| matches!(work, Work::Send(..))))?;
    queues.next().is_none().then_some(queue)
}

/// Whether it is worth trying: where records were there, the next are likely to be there as well.
#[derive(Debug, Default)]
pub struct Luck(AtomicU32);

impl Luck {
    /// Asked before each group.
    pub fn holds(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err()
    }

    /// It failed.
    pub fn left(&self) {
        self.0.store(PAUSE, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn luck_comes_back() {
        let luck = Luck::default();
        assert!(luck.holds() && luck.holds());
        luck.left();
        assert_eq!((0..=PAUSE).filter(|_| luck.holds()).count(), 1);
        assert!(luck.holds());
    }
}
