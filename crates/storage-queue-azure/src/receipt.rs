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
    /// What its queue is called on the service.
    pub(crate) queue: String,
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
        let Self { queue, message, pop, deliveries, until, .. } = self;
        Receipt(format!("{queue}|{message}|{pop}|{deliveries}|{}|{kind}", until.timestamp_millis()))
    }

    /// `None`: not a receipt of this queue.
    pub(crate) fn read(receipt: &Receipt, queue: &str) -> Option<Self> {
        let mut parts = receipt.0.split('|');
        let mut part = || parts.next();
        let (its, message, pop, deliveries, until, kind) = (part()?, part()?, part()?, part()?, part()?, part()?);
        // Both go into a URL.
        let id = !message.is_empty() && message.len() <= MAX && message.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let proof = !pop.is_empty() && pop.len() <= MAX && pop.bytes().all(|b| b.is_ascii_graphic());
        if its != queue || !id || !proof || part().is_some() {
            return None;
        }
        Some(Self {
            queue: queue.to_owned(),
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
            let (message, pop) = (Uuid::new_v4().to_string(), "AgAAAAMAAAAA+/8=".to_owned());
            let claim = Claim { queue: "q".into(), message, pop, deliveries: 3, until, kind };
            assert_eq!(Claim::read(&claim.receipt(), "q"), Some(claim.clone()));
            assert_eq!(Claim::read(&claim.receipt(), "q-dead"), None);
        }
        let bad =
            ["", "x", "a|b", "a|b|1|0", "a|b|1|0|p|x", "../a|b|1|0|p", "a|b c|1|0|p", "a|b|-1|0|p", "|b|1|0|p", "a|b|1|0|z"];
        for bad in bad {
            assert_eq!(Claim::read(&Receipt(format!("q|{bad}")), "q"), None, "{bad}");
        }
    }
}
