//! What a queue is called on the server.
//!
//! Queue `mail` under the prefix `storage` is the stream `storage-mail` with these subjects:
//!
//! | subject | holds |
//! |---|---|
//! | `storage.mail.live.p0.new` | what was sent; other clients publish here |
//! | `storage.mail.live.p0.ID` | what was delayed or dead before, under the id that it has |
//! | `storage.mail.live.later` | what is delayed |
//! | `storage.mail.dead.ID` | dead letters |
//!
//! and a pull consumer for each of the three parts. A prefix has no `-`, so the first one of a stream's name ends it. The consumers' names end with
//! the mark of this life of the queue: what was received of a queue that is gone can't acknowledge anything of another one with its name.

use std::sync::Arc;

use storage_core::QueueName;

/// A part of a queue that messages are received from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Lane {
    /// What is alive and not delayed.
    Live,
    /// Dead letters.
    Dead,
}

impl Lane {
    pub(crate) const fn mark(self) -> &'static str {
        match self {
            Self::Live => "L",
            Self::Dead => "D",
        }
    }
}

/// The stream of a queue.
pub(crate) fn stream(prefix: &str, queue: &QueueName) -> String {
    format!("{prefix}-{queue}")
}

/// The queue that a stream is, if it is one of ours by its name.
pub(crate) fn queue_of(prefix: &str, stream: &str) -> Option<QueueName> {
    stream.strip_prefix(prefix)?.strip_prefix('-')?.parse().ok()
}

/// The names of one life of a queue.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    pub(crate) stream: String,
    /// `storage.mail`.
    root: String,
    /// Of this life.
    pub(crate) life: Arc<str>,
}

impl Names {
    pub(crate) fn new(prefix: &str, queue: &QueueName, life: &str) -> Self {
        Self { stream: stream(prefix, queue), root: format!("{prefix}.{queue}"), life: life.into() }
    }

    /// All subjects of the stream.
    pub(crate) fn all(&self) -> String {
        format!("{}.>", self.root)
    }

    /// Those of what is not dead.
    pub(crate) fn all_live(&self) -> String {
        format!("{}.live.>", self.root)
    }

    pub(crate) fn new_message(&self) -> String {
        format!("{}.live.p0.new", self.root)
    }

    pub(crate) fn live(&self, id: &str) -> String {
        format!("{}.live.p0.{id}", self.root)
    }

    pub(crate) fn later(&self) -> String {
        format!("{}.live.later", self.root)
    }

    pub(crate) fn dead(&self, id: &str) -> String {
        format!("{}.dead.{id}", self.root)
    }

    /// What the consumer of a part filters by.
    pub(crate) fn filter(&self, lane: Lane) -> String {
        match lane {
            Lane::Live => format!("{}.live.p0.*", self.root),
            Lane::Dead => format!("{}.dead.*", self.root),
        }
    }

    /// The consumer of a part.
    pub(crate) fn consumer(&self, lane: Lane) -> String {
        match lane {
            Lane::Live => format!("p0-{}", self.life),
            Lane::Dead => format!("dead-{}", self.life),
        }
    }

    pub(crate) fn later_consumer(&self) -> String {
        format!("later-{}", self.life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_and_queues_go_both_ways() {
        for name in ["a", "a-b", "_x", "q-dead-line"] {
            let queue: QueueName = name.parse().unwrap();
            assert_eq!(queue_of("storage", &stream("storage", &queue)), Some(queue));
        }
        for foreign in ["storage", "storage_x-a", "other-a", "storage-", "KV_x", "storage-1a"] {
            assert_eq!(queue_of("storage", foreign), None, "{foreign}");
        }
    }
}
