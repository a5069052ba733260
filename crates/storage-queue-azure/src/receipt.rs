//! Receipts.

use chrono::{DateTime, Utc};
use storage_core::Receipt;
use uuid::Uuid;

/// What the message is beside its text, so far as another process must know it to finish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A body and nothing else.
    Plain,
    /// With attributes and the like.
    Enveloped,
    /// With its body in a blob.
    Spilled(Uuid),
}

/// What a receipt says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The service's own id of the message.
    pub(crate) message: String,
    /// The service's proof of the lease.
    pub(crate) pop: String,
    pub(crate) deliveries: u32,
    /// When the lease ends.
    pub(crate) until: DateTime<Utc>,
    pub(crate) kind: Kind,
}

/// The longest part of a receipt that is read.
const MAX: usize = 256;

impl Claim {
    pub(crate) fn receipt(&self) -> Receipt {
        let kind = match self.kind {
            Kind::Plain => "p".to_owned(),
            Kind::Enveloped => "e".to_owned(),
            Kind::Spilled(blob) => blob.simple().to_string(),
        };
        let Self { message, pop, deliveries, until, .. } = self;
        Receipt(format!("{message}|{pop}|{deliveries}|{}|{kind}", until.timestamp_millis()))
    }

    /// `None`: not a receipt of ours.
    pub(crate) fn read(receipt: &Receipt) -> Option<Self> {
        let mut parts = receipt.0.split('|');
        let mut part = || parts.next();
        let (message, pop, deliveries, until, kind) = (part()?, part()?, part()?, part()?, part()?);
        // Both go into a URL.
        let id = !message.is_empty() && message.len() <= MAX && message.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let proof = !pop.is_empty() && pop.len() <= MAX && pop.bytes().all(|b| b.is_ascii_graphic());
        if !id || !proof || part().is_some() {
            return None;
        }
        Some(Self {
            message: message.to_owned(),
            pop: pop.to_owned(),
            deliveries: deliveries.parse().ok()?,
            until: DateTime::from_timestamp_millis(until.parse().ok()?)?,
            kind: match kind {
                "p" => Kind::Plain,
                "e" => Kind::Enveloped,
                blob => Kind::Spilled(Uuid::try_parse(blob).ok()?),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn receipts_come_back() {
        for kind in [Kind::Plain, Kind::Enveloped, Kind::Spilled(Uuid::now_v7())] {
            let until = DateTime::from_timestamp_millis(1_764_000_000_123).unwrap();
            let claim = Claim { message: Uuid::new_v4().to_string(), pop: "AgAAAAMAAAAA+/8=".into(), deliveries: 3, until, kind };
            assert_eq!(Claim::read(&claim.receipt()), Some(claim));
        }
        for bad in
            ["", "x", "a|b", "a|b|1|0", "a|b|1|0|p|x", "../a|b|1|0|p", "a|b c|1|0|p", "a|b|-1|0|p", "|b|1|0|p", "a|b|1|0|z"]
        {
            assert_eq!(Claim::read(&Receipt(bad.into())), None, "{bad}");
        }
    }
}
