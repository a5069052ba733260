//! Loads that are under way: one a key.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Keys that fall together take turns at changing the cache.
const STRIPES: usize = 64;

/// A load of one key, which whoever has the turn does. The value is there once it was loaded.
///
/// A turn that is given up, because who had it failed, panicked or went away, is the next one's.
#[derive(Debug, Default)]
pub(super) struct Flight {
    pub(super) turn: tokio::sync::Mutex<Option<Bytes>>,
    /// How many are in it; changed under the lock of its stripe.
    parts: AtomicUsize,
}

#[derive(Debug, Default)]
pub(super) struct Stripe {
    flights: Mutex<HashMap<Box<str>, Arc<Flight>>>,
    /// Held while the cache is changed.
    pub(super) order: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
pub(super) struct Flights {
    stripes: Vec<Stripe>,
    hasher: RandomState,
}

impl Flights {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { stripes: (0..STRIPES).map(|_| Stripe::default()).collect(), hasher: RandomState::new() })
    }

    /// Joins the load of a key, or begins one.
    pub(super) fn join(self: &Arc<Self>, key: &str) -> Joined {
        let mut flights = self.stripe(key).flights();
        let flight = match flights.get(key) {
            Some(flight) => Arc::clone(flight),
            None => Arc::clone(flights.entry(key.into()).or_default()),
        };
        flight.parts.fetch_add(1, Ordering::Relaxed);
        Joined { flights: Arc::clone(self), key: key.into(), flight }
    }

    /// Begins a load. `None`: there is one.
    pub(super) fn begin(self: &Arc<Self>, key: &str) -> Option<Joined> {
        let mut flights = self.stripe(key).flights();
        if flights.contains_key(key) {
            return None;
        }
        let flight = Arc::clone(flights.entry(key.into()).or_default());
        flight.parts.fetch_add(1, Ordering::Relaxed);
        Some(Joined { flights: Arc::clone(self), key: key.into(), flight })
    }

    pub(super) fn stripe(&self, key: &str) -> &Stripe {
        let index = usize::try_from(self.hasher.hash_one(key) % STRIPES as u64).unwrap_or_default();
        &self.stripes[index]
    }

    pub(super) fn all(&self) -> &[Stripe] {
        &self.stripes
    }
}

impl Stripe {
    fn flights(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Flight>>> {
        // It is changed by steps that don't panic.
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is being loaded is of before now: it is not kept, and nobody joins it any more.
    pub(super) fn detach(&self, key: &str) {
        self.flights().remove(key);
    }

    /// The same of all keys.
    pub(super) fn detach_all(&self) {
        self.flights().clear();
    }

    /// Takes a load out, unless it has been, and another one of its key stands there.
    fn end(flights: &mut HashMap<Box<str>, Arc<Flight>>, key: &str, flight: &Arc<Flight>) {
        if flights.get(key).is_some_and(|current| Arc::ptr_eq(current, flight)) {
            flights.remove(key);
        }
    }
}

/// Somebody's part in a load. The last to leave ends it.
pub(super) struct Joined {
    flights: Arc<Flights>,
    pub(super) key: Box<str>,
    pub(super) flight: Arc<Flight>,
}

impl Joined {
    pub(super) fn stripe(&self) -> &Stripe {
        self.flights.stripe(&self.key)
    }

    /// True where nothing has changed the key since this load began.
    pub(super) fn is_current(&self) -> bool {
        self.stripe().flights().get(&self.key).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight))
    }

    /// The load is done: those who are in it get its value, who comes later asks the cache.
    pub(super) fn land(&self) {
        Stripe::end(&mut self.stripe().flights(), &self.key, &self.flight);
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        let mut flights = self.stripe().flights();
        if self.flight.parts.fetch_sub(1, Ordering::Relaxed) == 1 {
            Stripe::end(&mut flights, &self.key, &self.flight);
        }
    }
}
