//! What things are called on the broker.

use std::time::Duration;

use storage_core::{Error, QueueName, Result};

/// The longest delay, in milliseconds: what a broker takes for a time to live, less what rounding adds.
const MAX_DELAY_MILLIS: u64 = 45 * 86_400_000;
/// Delays are rounded up to so many leading bits: at most 3.2 % are added, and a doubling of delays has 32 queues.
const DELAY_BITS: u32 = 6;

/// The names of a handle. A `.` separates what no queue of the toolkit can have in its name.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    pub(crate) fn queue(&self, queue: &QueueName) -> String {
        format!("{}{queue}", self.prefix)
    }

    /// Where messages wait that are delayed by so many milliseconds.
    pub(crate) fn delay(&self, queue: &QueueName, millis: u64) -> String {
        format!("{}{queue}.delay.{millis}", self.prefix)
    }

    /// The log of what queues there are.
    pub(crate) fn catalogue(&self) -> String {
        format!("{}storage.catalogue", self.prefix)
    }
}

/// The step for a delay, in milliseconds: the delay or a little more.
pub(crate) fn delay_step(delay: Duration) -> Result<u64> {
    let millis = u64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1);
    if millis > MAX_DELAY_MILLIS {
        return Err(Error::invalid(format!("a delay of {delay:?} is too long for this broker: 45 days at most")));
    }
    let bits = u64::BITS - millis.leading_zeros();
    let unit = 1 << bits.saturating_sub(DELAY_BITS);
    Ok(millis.div_ceil(unit) * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_never_shorter_and_hardly_longer() {
        let mut steps = std::collections::BTreeSet::new();
        for millis in (1..5_000).chain([60_000, 61_234, 3_600_000, 86_400_001, MAX_DELAY_MILLIS]) {
            let step = delay_step(Duration::from_millis(millis)).unwrap();
            assert!(step >= millis && step * 100 <= millis * 104, "{millis}: {step}");
            assert!(u32::try_from(step).is_ok());
            steps.insert(step);
        }
        assert!(steps.len() < 300, "{}", steps.len());
        assert_eq!(delay_step(Duration::from_nanos(1)).unwrap(), 1);
        assert_eq!(delay_step(Duration::from_micros(1_001)).unwrap(), 2);
        assert!(delay_step(Duration::from_secs(46 * 86_400)).is_err());
    }
}
