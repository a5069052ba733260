//! The order in which changes of an entry take effect, whoever is done first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::folder::Name;

const STRIPES: usize = 64;

/// Changes of entries, numbered as they begin: one takes effect only where no later one of its entry has begun.
#[derive(Debug)]
pub(crate) struct Order {
    next: AtomicU64,
    /// Changes up to this one take no effect any more.
    cleared: AtomicU64,
    stripes: Vec<Mutex<HashMap<Name, Changing>>>,
}

#[derive(Debug, Default)]
struct Changing {
    latest: u64,
    /// The last that took effect.
    done: u64,
    /// How many are under way.
    count: usize,
}

/// A change that is under way.
#[derive(Debug)]
pub(crate) struct Turn {
    order: Arc<Order>,
    name: Name,
    number: u64,
}

impl Order {
    pub(crate) fn new() -> Arc<Self> {
        let stripes = (0..STRIPES).map(|_| Mutex::default()).collect();
        Arc::new(Self { next: AtomicU64::new(1), cleared: AtomicU64::new(0), stripes })
    }

    fn stripe(&self, name: Name) -> MutexGuard<'_, HashMap<Name, Changing>> {
        let index = usize::from(name.folder()) % STRIPES;
        // It is changed by steps that don't panic.
        self.stripes[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::AcqRel)
    }

    /// Begins a change: earlier ones that are under way take no effect any more.
    pub(crate) fn begin(self: &Arc<Self>, name: Name) -> Turn {
        let mut stripe = self.stripe(name);
        let number = self.number();
        let changing = stripe.entry(name).or_default();
        changing.latest = number;
        changing.count += 1;
        Turn { order: Arc::clone(self), name, number }
    }

    /// All changes that are under way take no effect any more.
    pub(crate) fn clear(&self) {
        self.cleared.fetch_max(self.number(), Ordering::AcqRel);
        // Whoever decided otherwise before that has done so when its stripe is free.
        for stripe in &self.stripes {
            drop(stripe.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Does something while nothing of this entry can take effect, if no change of it is under way.
    pub(crate) fn if_idle(&self, name: Name, work: impl FnOnce()) {
        let stripe = self.stripe(name);
        if !stripe.contains_key(&name) {
            work();
        }
    }
}

impl Turn {
    /// Takes effect, unless a later change has begun.
    pub(crate) fn commit(&self, work: impl FnOnce()) {
        let mut stripe = self.order.stripe(self.name);
        let Some(changing) = stripe.get_mut(&self.name) else { return };
        if changing.latest == self.number && self.number > self.order.cleared.load(Ordering::Acquire) {
            changing.done = self.number;
            work();
        }
    }

    /// Removes what is there of earlier changes, as the caller does: unless this change, or a later one, has put something in its place.
    pub(crate) fn settle(&self, remove: impl FnOnce()) {
        let stripe = self.order.stripe(self.name);
        if stripe.get(&self.name).is_none_or(|changing| changing.done < self.number) {
            remove();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut stripe = self.order.stripe(self.name);
        if let Some(changing) = stripe.get_mut(&self.name) {
            changing.count -= 1;
            if changing.count == 0 {
                stripe.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_takes_effect_whoever_is_done_first() {
        let (order, name) = (Order::new(), Name::parse(&"a".repeat(32)).unwrap());
        let took_effect = |turn: &Turn| {
            let mut done = false;
            turn.commit(|| done = true);
            done
        };
        let first = order.begin(name);
        assert!(took_effect(&first));
        let second = order.begin(name);
        assert!(!took_effect(&first));
        let settles = |turn: &Turn| {
            let mut done = false;
            turn.settle(|| done = true);
            done
        };
        assert!(!settles(&first), "it took effect itself");
        assert!(settles(&second));
        assert!(took_effect(&second) && !settles(&first) && !settles(&second));
        drop(second);
        assert!(!took_effect(&first), "also when the later one is done");
        let mut idle = false;
        order.if_idle(name, || idle = true);
        assert!(!idle);
        drop(first);
        order.if_idle(name, || idle = true);
        assert!(idle && order.stripe(name).is_empty());
        let before = order.begin(name);
        order.clear();
        assert!(!took_effect(&before) && took_effect(&order.begin(name)));
    }
}
