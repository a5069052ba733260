//! Receipts: the number of a message and the mark of its lease.

use std::collections::HashSet;

use storage_core::{Error, Receipt, Result};

/// A receipt, taken apart.
#[derive(Clone, Copy, Debug)]
pub struct Lease {
    /// The message.
    pub id: i64,
    /// The mark.
    pub lease: i64,
}

/// The mark of a new lease: random, so that a receipt can't be guessed, nor ever be good again.
#[must_use]
pub fn new_lease() -> i64 {
    let random = uuid::Uuid::new_v4().as_u64_pair().1 & i64::MAX.unsigned_abs();
    i64::try_from(random).unwrap_or(1).max(1)
}

/// The receipt for a lease.
#[must_use]
pub fn receipt_for(id: i64, lease: i64) -> Receipt {
    Receipt(format!("{id}-{lease}"))
}

/// Takes a receipt apart.
///
/// # Errors
/// [`InvalidInput`](storage_core::ErrorKind::InvalidInput) for what is none.
pub fn parse_receipt(receipt: &Receipt) -> Result<Lease> {
    let parts =
        receipt.0.split_once('-').and_then(|(id, lease)| Some(Lease { id: id.parse().ok()?, lease: lease.parse().ok()? }));
    // Zero stands for no lease at all.
    let parts = parts.filter(|parts| parts.lease > 0);
    parts.ok_or_else(|| Error::invalid("this is no receipt: use the one that came with the message, as it is"))
}

/// The receipt is good no longer.
#[must_use]
pub fn lease_lost() -> Error {
    Error::lease_lost("the message was received again, updated, removed or dead-lettered since this receipt was made")
}

/// The messages that are to be removed, each by its receipt.
#[derive(Debug)]
pub struct Deletion(Vec<Result<Lease>>);

impl Deletion {
    /// Takes the receipts apart.
    #[must_use]
    pub fn new(receipts: &[Receipt]) -> Self {
        Self(receipts.iter().map(parse_receipt).collect())
    }

    /// Those that are receipts.
    pub fn leases(&self) -> impl Iterator<Item = Lease> + Clone {
        self.0.iter().filter_map(|lease| lease.as_ref().ok().copied())
    }

    /// An answer to each: of these messages something is `left` that is somebody else's by now.
    #[must_use]
    pub fn answers(self, left: &HashSet<i64>) -> Vec<Result<()>> {
        self.0.into_iter().map(|lease| if left.contains(&lease?.id) { Err(lease_lost()) } else { Ok(()) }).collect()
    }
}
