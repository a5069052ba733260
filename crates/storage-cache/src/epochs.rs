//! Who changes what, so that nothing is kept that was read while it was changed.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use storage_core::{Error, ErrorKind};

/// Things that fall together look out for each other.
const STRIPES: usize = 256;

/// After a change of which it is not known whether and when it takes effect, nothing is kept for so long.
pub(crate) const DOUBT: Duration = Duration::from_secs(60);

/// Counts changes, and those that are under way.
#[derive(Debug)]
pub(crate) struct Epochs {
    stripes: Vec<Mutex<Stripe>>,
    hasher: RandomState,
    doubt: Duration,
}

#[derive(Debug, Default)]
struct Stripe {
    /// Counts the beginnings and ends of changes.
    changes: u64,
    /// Changes that are under way.
    changing: usize,
    doubted_until: Option<Instant>,
}

impl Stripe {
    fn is_quiet(&mut self) -> bool {
        if self.doubted_until.is_some_and(|until| until <= Instant::now()) {
            self.doubted_until = None;
        }
        self.changing == 0 && self.doubted_until.is_none()
    }
}

/// Changes that are under way: until it is dropped, what they are about is neither read from a cache nor kept. Dropped before it is [known](Self::known) how they came out, that holds
/// on for a while: what was asked for may still be done.
#[derive(Debug)]
pub(crate) struct Changing<'a> {
    epochs: &'a Epochs,
    stripes: Vec<usize>,
    /// The count of the first stripe as this change has left it.
    seen: u64,
    known: bool,
}

impl Epochs {
    pub(crate) fn new(doubt: Duration) -> Self {
        Self { stripes: (0..STRIPES).map(|_| Mutex::default()).collect(), hasher: RandomState::new(), doubt }
    }

    fn index<T: Hash + ?Sized>(&self, of: &T) -> usize {
        usize::try_from(self.hasher.hash_one(of) % STRIPES as u64).unwrap_or_default()
    }

    fn stripe(&self, index: usize) -> MutexGuard<'_, Stripe> {
        // Counters are right whoever panicked.
        self.stripes[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many changes there have been. `None`: there is one under way.
    pub(crate) fn seen<T: Hash + ?Sized>(&self, of: &T) -> Option<u64> {
        let mut stripe = self.stripe(self.index(of));
        stripe.is_quiet().then_some(stripe.changes)
    }

    /// Keeps what was read since there had been `seen` changes, unless somebody has begun to change it. `false`: it was not kept.
    pub(crate) fn keep<T: Hash + ?Sized>(&self, of: &T, seen: u64, keep: impl FnOnce()) -> bool {
        let mut stripe = self.stripe(self.index(of));
        let unchanged = stripe.is_quiet() && stripe.changes == seen;
        if unchanged {
            keep();
        }
        unchanged
    }

    /// Begins to change some things.
    pub(crate) fn begin<T: Hash>(&self, things: impl IntoIterator<Item = T>) -> Changing<'_> {
        let mut stripes: Vec<usize> = things.into_iter().map(|thing| self.index(&thing)).collect();
        stripes.sort_unstable();
        stripes.dedup();
        self.begin_stripes(stripes)
    }

    /// Begins to change everything.
    pub(crate) fn begin_all(&self) -> Changing<'_> {
        self.begin_stripes((0..STRIPES).collect())
    }

    fn begin_stripes(&self, stripes: Vec<usize>) -> Changing<'_> {
        let mut first = None;
        for index in &stripes {
            let mut stripe = self.stripe(*index);
            stripe.changes += 1;
            stripe.changing += 1;
            first = first.or(Some(stripe.changes));
        }
        Changing { epochs: self, stripes, seen: first.unwrap_or_default(), known: false }
    }
}

impl Changing<'_> {
    /// It is known how it came out.
    pub(crate) fn known(&mut self) {
        self.known = true;
    }

    /// Ends the change of one thing, and keeps what it was changed to, unless others have begun to change it too.
    pub(crate) fn end_with(mut self, keep: impl FnOnce()) {
        self.known = true;
        if let [only] = *self.stripes {
            let stripe = self.epochs.stripe(only);
            if stripe.changing == 1 && stripe.changes == self.seen && stripe.doubted_until.is_none() {
                keep();
            }
        }
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        for index in &self.stripes {
            let mut stripe = self.epochs.stripe(*index);
            stripe.changes += 1;
            stripe.changing -= 1;
            if !self.known {
                stripe.doubted_until = Some(Instant::now() + self.epochs.doubt);
            }
        }
    }
}

/// True where an error says that a change was not made, and will not be.
pub(crate) fn is_final(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Throttled | ErrorKind::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_that_was_read_while_it_was_changed() {
        let epochs = Epochs::new(Duration::ZERO);
        let kept = |seen| epochs.keep("a", seen, || {});
        let seen = epochs.seen("a").unwrap();
        assert!(kept(seen));
        let mut changing = epochs.begin(["a"]);
        assert!(epochs.seen("a").is_none() && !kept(seen));
        changing.known();
        drop(changing);
        assert!(!kept(seen) && kept(epochs.seen("a").unwrap()));
    }

    #[test]
    fn what_may_still_be_done_is_in_doubt_for_a_while() {
        let epochs = Epochs::new(Duration::from_secs(3600));
        drop(epochs.begin(["a"]));
        assert_eq!(epochs.seen("a"), None);
        let epochs = Epochs::new(Duration::ZERO);
        drop(epochs.begin(["a"]));
        assert!(epochs.seen("a").is_some());
    }

    #[test]
    fn what_it_was_changed_to_is_kept_if_nobody_else_changed_it() {
        let epochs = Epochs::new(DOUBT);
        let ends = |changing: Changing<'_>| {
            let mut kept = false;
            changing.end_with(|| kept = true);
            kept
        };
        assert!(ends(epochs.begin(["a"])));
        let (first, second) = (epochs.begin(["a"]), epochs.begin(["a"]));
        assert!(!ends(first) && !ends(second), "which of them came last is not known");
        assert!(ends(epochs.begin(["a"])));
    }
}
