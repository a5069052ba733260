//! Which calls may be tried again after which failures: the one place where that is decided.
//!
//! A call may be tried again where its failure is retryable ([`Error::is_retryable`]), and
//!
//! - either the failure says that nothing was done: [`Throttled`](ErrorKind::Throttled), or a connection that was refused;
//! - or the call is [`Repeat::Safe`]: done twice it leaves what it leaves done once, and answers the same. For after
//!   [`Timeout`](ErrorKind::Timeout) and [`Unavailable`](ErrorKind::Unavailable) nobody knows whether it was done.
//!
//! | call | repeat | why |
//! |---|---|---|
//! | `get` `scan` `count` `history` `tables`; `queues` `queue_spec` `peek` `stats`; `get` `head` `list` `signed_url`; `ping` | safe | reads change nothing |
//! | `commit` of checks alone | safe | a read |
//! | any other `commit` | unsafe | versions count writes; an insert would find itself; a message would be sent twice; what another has removed since would come back |
//! | `create_table` `create_queue` `create_container` | unsafe | would answer that it was there before |
//! | `drop_table` `delete_queue`, blob `delete` | unsafe | would answer that there was none, and could remove what another has made since |
//! | `alter_table` `backup` | unsafe | would be refused as done before |
//! | `send`, each message with a dedup id | safe within the dedup window | the queue drops the duplicate; the answer may call it one |
//! | `send`, else | unsafe | the messages would be there twice |
//! | `receive` | unsafe | what the lost answer held is leased and counts a delivery; the consumer asks again by itself |
//! | `delete` of received messages | safe | one that is gone is fine |
//! | `update` `dead_letter` | unsafe | the receipt is spent: it would answer that the lease is lost |
//! | `redrive` `purge` `sweep` | unsafe | the count would be wrong |
//! | `put` with `Overwrite`, of bytes or a file | safe | the same blob |
//! | `put` of a stream | as its mode, until the stream is first read | its bytes are gone |
//! | `put` with `Create` or `Update` | unsafe | would be refused because of itself |
//! | `copy` with `Overwrite` | safe | the same blob |
//! | `copy` with `Create` or `Update` | unsafe | as `put` |
//!
//! `close` is not guarded at all.

use std::error::Error as StdError;
use std::io;

use storage_core::{Batch, Error, ErrorKind, NewMessage, PutMode, Write};

/// Whether a call may be repeated when nobody knows whether it was done. See the [table](self).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Done twice, it leaves the same and answers the same.
    Safe,
    /// It does not.
    Unsafe,
}

impl Repeat {
    /// Of a commit.
    #[must_use]
    pub fn of_batch(batch: &Batch) -> Self {
        Self::safe_if(batch.writes.iter().all(|write| matches!(write, Write::Check { .. })))
    }

    /// Of a send.
    #[must_use]
    pub fn of_messages(messages: &[NewMessage]) -> Self {
        Self::safe_if(messages.iter().all(|message| message.dedup_id.is_some()))
    }

    /// Of a put or a copy.
    #[must_use]
    pub fn of_mode(mode: &PutMode) -> Self {
        Self::safe_if(*mode == PutMode::Overwrite)
    }

    fn safe_if(safe: bool) -> Self {
        if safe { Self::Safe } else { Self::Unsafe }
    }

    /// Whether the call may be tried again after this failure.
    #[must_use]
    pub fn allows(self, error: &Error) -> bool {
        error.is_retryable() && (self == Self::Safe || nothing_was_done(error))
    }
}

/// True where the failure itself says so.
pub(crate) fn nothing_was_done(error: &Error) -> bool {
    error.kind() == ErrorKind::Throttled || (error.kind() == ErrorKind::Unavailable && was_refused(error))
}

/// True where the connection was refused: nothing was sent.
fn was_refused(error: &Error) -> bool {
    // Chains are short; the bound is against one that bites its tail.
    const DEEPEST: usize = 16;
    let mut source = error.source();
    for _ in 0..DEEPEST {
        let Some(cause) = source else { return false };
        if cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        source = cause.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use storage_core::{Expect, Fields};

    use super::*;

    #[test]
    fn only_retryable_failures_are_repeated() {
        for kind in [ErrorKind::NotFound, ErrorKind::Conflict, ErrorKind::LeaseLost, ErrorKind::Internal, ErrorKind::Unauthorized]
        {
            assert!(!Repeat::Safe.allows(&Error::new(kind, "x")), "{kind}");
        }
        let full_disk = Error::from(io::Error::from(io::ErrorKind::StorageFull));
        assert!(!Repeat::Safe.allows(&full_disk));
        for kind in [ErrorKind::Throttled, ErrorKind::Timeout, ErrorKind::Unavailable] {
            assert!(Repeat::Safe.allows(&Error::new(kind, "x")), "{kind}");
        }
    }

    #[test]
    fn after_a_refusal_everything_is_safe() {
        let unsafe_after = |error: &Error| Repeat::Unsafe.allows(error);
        assert!(unsafe_after(&Error::new(ErrorKind::Throttled, "slow down")));
        assert!(unsafe_after(&Error::from(io::Error::from(io::ErrorKind::ConnectionRefused))));
        let deeper = Error::unavailable("no answer").with_source(Error::from(io::Error::from(io::ErrorKind::ConnectionRefused)));
        assert!(unsafe_after(&deeper));
        assert!(!unsafe_after(&Error::from(io::Error::from(io::ErrorKind::ConnectionReset))));
        assert!(!unsafe_after(&Error::timeout("no answer")));
        assert!(!unsafe_after(&Error::unavailable("no answer")));
    }

    #[test]
    fn writes_are_safe_where_the_table_says_so() {
        let table = "t".parse().unwrap();
        let (any, absent) = (Expect::Anything, Expect::Absent);
        assert_eq!(Repeat::of_batch(&Batch::new().check(&table, 1, absent)), Repeat::Safe);
        assert_eq!(Repeat::of_batch(&Batch::new().put(&table, 1, Fields::new(), any)), Repeat::Unsafe);
        assert_eq!(Repeat::of_batch(&Batch::new().check(&table, 1, absent).delete(&table, 2, any)), Repeat::Unsafe);
        let (plain, deduplicated) = (NewMessage::new("a"), NewMessage::new("a").dedup_id("1"));
        assert_eq!(Repeat::of_messages(&[deduplicated.clone(), deduplicated.clone()]), Repeat::Safe);
        assert_eq!(Repeat::of_messages(&[deduplicated, plain]), Repeat::Unsafe);
        assert_eq!(Repeat::of_mode(&PutMode::Overwrite), Repeat::Safe);
        assert_eq!(Repeat::of_mode(&PutMode::Create), Repeat::Unsafe);
    }
}
