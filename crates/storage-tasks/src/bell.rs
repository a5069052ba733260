//! [`Bell`]: waking those in this process who wait for something by name.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

type Waiters<K> = Arc<Mutex<HashMap<K, Arc<Notify>>>>;

/// Rings for a name. It holds no more than there are waiters.
#[derive(Debug)]
pub(crate) struct Bell<K>(Waiters<K>);

impl<K> Default for Bell<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

/// Someone waiting. Register before looking, so that nothing rings unheard in between.
#[derive(Debug)]
pub(crate) struct Waiter<K: Eq + Hash> {
    name: K,
    notify: Arc<Notify>,
    waiters: Waiters<K>,
}

impl<K: Eq + Hash + Clone> Bell<K> {
    pub(crate) fn register(&self, name: &K) -> Waiter<K> {
        let mut waiters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let notify = Arc::clone(waiters.entry(name.clone()).or_default());
        Waiter { name: name.clone(), notify, waiters: Arc::clone(&self.0) }
    }

    pub(crate) fn ring(&self, name: &K) {
        if let Some(notify) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            notify.notify_waiters();
        }
    }
}

impl<K: Eq + Hash> Waiter<K> {
    /// Ready with the next ring after this call.
    pub(crate) fn rung(&self) -> tokio::sync::futures::Notified<'_> {
        self.notify.notified()
    }
}

impl<K: Eq + Hash> Drop for Waiter<K> {
    fn drop(&mut self) {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and this one's.
        if Arc::strong_count(&self.notify) <= 2 {
            waiters.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn wakes_those_of_that_name_and_forgets_them() {
        let bell = Bell::default();
        let (first, second) = (bell.register(&1), bell.register(&1));
        let (a, b) = (first.rung(), second.rung());
        bell.ring(&2);
        bell.ring(&1);
        tokio::join!(a, b);
        drop(first);
        assert_eq!(bell.0.lock().unwrap().len(), 1);
        drop(second);
        assert!(bell.0.lock().unwrap().is_empty());
    }
}
