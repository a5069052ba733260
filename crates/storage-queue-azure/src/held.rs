//! What the messages hold that were received here and are not finished: the service gives nobody a message by its id, and to move one, or to change a part of
//! it, the whole is needed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};

use crate::text::Content;

/// How much is kept at most. Bodies are shared with whoever received them.
const MAX_BYTES: usize = 256 << 20;
/// What a message weighs beside its body.
const OVERHEAD: usize = 512;

/// A message that was received here.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) content: Content,
    /// When the service got it.
    pub(crate) inserted: DateTime<Utc>,
    /// When its lease ends.
    pub(crate) until: DateTime<Utc>,
}

impl Held {
    fn weight(&self) -> usize {
        let attributes = self.content.head.attributes.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        self.content.body.len() + attributes + OVERHEAD
    }
}

#[derive(Debug, Default)]
struct Kept {
    messages: HashMap<String, (u64, Held)>,
    /// In the order in which they came.
    order: BTreeMap<u64, String>,
    next: u64,
    bytes: usize,
}

impl Kept {
    fn remove(&mut self, message: &str) -> Option<Held> {
        let (place, held) = self.messages.remove(message)?;
        self.order.remove(&place);
        self.bytes = self.bytes.saturating_sub(held.weight());
        Some(held)
    }

    fn make_room(&mut self, now: DateTime<Utc>) {
        if self.bytes <= MAX_BYTES {
            return;
        }
        let ended: Vec<String> =
            self.messages.iter().filter(|(_, (_, held))| held.until < now).map(|(message, _)| message.clone()).collect();
        for message in ended {
            self.remove(&message);
        }
        while self.bytes > MAX_BYTES
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }
}

/// The messages in hand, by the service's ids.
#[derive(Debug, Default)]
pub(crate) struct Hand(Mutex<Kept>);

impl Hand {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn keep(&self, message: String, held: Held) {
        let mut kept = self.lock();
        kept.remove(&message);
        let place = kept.next;
        kept.next += 1;
        kept.bytes += held.weight();
        kept.order.insert(place, message.clone());
        kept.messages.insert(message, (place, held));
        kept.make_room(Utc::now());
    }

    pub(crate) fn get(&self, message: &str) -> Option<Held> {
        self.lock().messages.get(message).map(|(_, held)| held.clone())
    }

    pub(crate) fn remove(&self, message: &str) {
        self.lock().remove(message);
    }

    pub(crate) fn clear(&self) {
        *self.lock() = Kept::default();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::text::Head;

    fn held(bytes: usize, until: DateTime<Utc>) -> Held {
        Held { content: Content { head: Head::default(), body: vec![0; bytes].into() }, inserted: until, until }
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let hand = Hand::default();
        let (past, future) = (Utc::now() - chrono::TimeDelta::hours(1), Utc::now() + chrono::TimeDelta::hours(1));
        hand.keep("first".into(), held(MAX_BYTES / 4, future));
        hand.keep("ended".into(), held(MAX_BYTES / 4, past));
        hand.keep("second".into(), held(MAX_BYTES / 4, future));
        hand.keep("third".into(), held(MAX_BYTES / 4, future));
        assert!(hand.get("ended").is_none());
        assert!(["first", "second", "third"].iter().all(|message| hand.get(message).is_some()));
        hand.keep("fourth".into(), held(MAX_BYTES / 2, future));
        assert!(hand.get("first").is_none() && hand.get("fourth").is_some());
        hand.keep("fourth".into(), held(1, future));
        hand.remove("second");
        hand.remove("third");
        assert_eq!(hand.lock().bytes, held(1, future).weight());
    }
}
