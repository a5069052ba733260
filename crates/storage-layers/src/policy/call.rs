//! What the chain is told of a call.

use std::time::Duration;

use super::{Repeat, Timeouts};
use crate::observe::Op;

/// A call that is about to be made.
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) op: Op,
    pub(crate) repeat: Repeat,
    pub(crate) limit: Limit,
}

/// What bounds a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// [`Timeouts::call`].
    Call,
    /// [`Timeouts::call`], and what the call itself needs besides: the wait of a receive, the bytes of a blob.
    Plus(Duration),
    /// [`Timeouts::long`]; no deadline.
    Long,
    /// Nothing here: the try watches over itself.
    Own,
}

impl Limit {
    /// For so many bytes that are sent: a second for each MiB, slower than any line worth waiting for.
    pub(crate) const fn bytes(size: u64) -> Self {
        Self::Plus(Duration::from_secs(size >> 20))
    }

    pub(crate) fn of_try(self, timeouts: Option<&Timeouts>) -> Option<Duration> {
        let timeouts = timeouts?;
        match self {
            Self::Call => Some(timeouts.call),
            Self::Plus(more) => Some(timeouts.call + more),
            Self::Long => Some(timeouts.long),
            Self::Own => None,
        }
    }

    pub(super) fn of_call(self, deadline: Option<Duration>) -> Option<Duration> {
        match self {
            Self::Call | Self::Own => deadline,
            Self::Plus(more) => deadline.map(|deadline| deadline + more),
            Self::Long => None,
        }
    }
}
