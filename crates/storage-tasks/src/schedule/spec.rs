//! [`ScheduleSpec`]: which moments a schedule names.

use std::str::FromStr as _;
use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use chrono_tz::Tz;
use croner::Cron;
use serde::{Deserialize, Serialize};
use storage_core::{ColumnType, ColumnValue, Error, Result};

/// The shortest interval.
const SHORTEST: Duration = Duration::from_millis(1);
/// How many candidates are looked at for one tick, where daylight saving time makes some of them void.
const CANDIDATES: usize = 1000;

/// Which moments a schedule names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum ScheduleSpec {
    /// A cron pattern of five fields, six with seconds in front, seven with the year behind, or `@daily` and the like, on the wall clock of a time zone.
    ///
    /// Where the clock is put forward, a pattern of fixed hours and minutes within the hour that is left out fires at the end of the gap, once (02:30 →
    /// 03:00); one with `*`, ranges or steps in minutes or hours just goes on behind it. Where the clock is put back, a pattern of fixed times within
    /// the hour that comes twice fires the first time only; one with `*`, ranges or steps goes through both.
    Cron {
        /// The pattern.
        pattern: String,
        /// The time zone by its IANA name: `Europe/Berlin`.
        #[serde(default = "utc")]
        timezone: String,
    },
    /// Every so often, counted from the moment the schedule was added. Not shifted by daylight saving time.
    Every {
        /// How often, in milliseconds.
        #[serde(rename = "every_ms", with = "millis")]
        every: Duration,
    },
    /// Once.
    At {
        /// When.
        at: DateTime<Utc>,
    },
}

fn utc() -> String {
    "UTC".to_owned()
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_millis)
    }
}

impl ColumnValue for ScheduleSpec {
    const KIND: ColumnType = ColumnType::Json;
}

/// A spec made ready to be asked.
pub(crate) enum Ticks {
    Cron(Box<Cron>, Tz),
    Every { every: TimeDelta, since: DateTime<Utc> },
    At(DateTime<Utc>),
}

impl ScheduleSpec {
    /// A cron pattern in UTC.
    pub fn cron(pattern: impl Into<String>) -> Self {
        Self::Cron { pattern: pattern.into(), timezone: utc() }
    }

    /// A cron pattern on the wall clock of a time zone.
    pub fn cron_in(pattern: impl Into<String>, timezone: impl Into<String>) -> Self {
        Self::Cron { pattern: pattern.into(), timezone: timezone.into() }
    }

    /// Every so often, to the millisecond.
    #[must_use]
    pub const fn every(every: Duration) -> Self {
        Self::Every { every }
    }

    /// Once.
    #[must_use]
    pub const fn at(at: DateTime<Utc>) -> Self {
        Self::At { at }
    }

    /// The first moment after `after`, for a schedule added at `added`. `None`: there is none any more.
    ///
    /// # Errors
    /// [`InvalidInput`](storage_core::ErrorKind::InvalidInput): the pattern, time zone or interval is bad.
    pub fn next_after(&self, after: DateTime<Utc>, added: DateTime<Utc>) -> Result<Option<DateTime<Utc>>> {
        Ok(self.ticks(added)?.next_after(after))
    }

    /// Checks the spec and makes it ready.
    pub(crate) fn ticks(&self, added: DateTime<Utc>) -> Result<Ticks> {
        match self {
            Self::Cron { pattern, timezone } => {
                let cron = Cron::from_str(pattern).map_err(|e| {
                    Error::invalid(format!("{pattern:?} is no cron pattern (minute, hour, day, month, weekday): {e}"))
                })?;
                let zone = timezone.parse::<Tz>().map_err(|_| unknown_zone(timezone))?;
                Ok(Ticks::Cron(Box::new(cron), zone))
            }
            Self::Every { every } => {
                if *every < SHORTEST || *every > storage_core::message::MAX_DURATION {
                    return Err(Error::invalid(format!("an interval of {every:?}: 1 ms to 366 days are possible")));
                }
                let millis = i64::try_from(every.as_millis()).unwrap_or(i64::MAX);
                Ok(Ticks::Every { every: TimeDelta::milliseconds(millis), since: added })
            }
            Self::At { at } => Ok(Ticks::At(at.trunc_subsecs(6))),
        }
    }
}

fn unknown_zone(name: &str) -> Error {
    let near = storage_core::nearest(name, chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name()));
    let hint =
        near.map_or_else(|| "use an IANA name such as `Europe/Berlin`".to_owned(), |near| format!("did you mean `{near}`?"));
    Error::invalid(format!("there is no time zone {name:?}; {hint}"))
}

impl Ticks {
    /// The first tick after `after`.
    pub(crate) fn next_after(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            // An error means: none within the years that the library searches.
            Self::Cron(cron, zone) => {
                let next = cron.find_next_occurrence(&after.with_timezone(zone), false).ok()?;
                Some(next.to_utc().trunc_subsecs(0))
            }
            Self::Every { every, since } => {
                let passed = (after - since).num_milliseconds().div_euclid(every.num_milliseconds());
                let count = passed.max(0).checked_add(1)?;
                nth(*since, *every, count)
            }
            Self::At(at) => Some(*at).filter(|at| *at > after),
        }
    }

    /// The newest tick up to `until`, `until` included.
    fn last_until(&self, until: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Cron(cron, zone) => {
                let mut before = until;
                let mut inclusive = true;
                for _ in 0..CANDIDATES {
                    let candidate = cron.find_previous_occurrence(&before.with_timezone(zone), inclusive).ok()?;
                    let candidate = candidate.to_utc().trunc_subsecs(0);
                    // Forward is what counts: a fixed time in the hour that comes twice is no tick the second time.
                    if self.next_after(candidate - TimeDelta::seconds(1)) == Some(candidate) && candidate <= until {
                        return Some(candidate);
                    }
                    (before, inclusive) = (candidate, false);
                }
                None
            }
            Self::Every { every, since } => {
                let count = (until - since).num_milliseconds().div_euclid(every.num_milliseconds());
                if count < 1 { None } else { nth(*since, *every, count) }
            }
            Self::At(at) => Some(*at).filter(|at| *at <= until),
        }
    }

    /// The newest `max` ticks from `from` until `until`, both included, oldest first. Takes as long as there are ticks in the answer, however long the span.
    pub(crate) fn newest_within(&self, from: DateTime<Utc>, until: DateTime<Utc>, max: usize) -> Vec<DateTime<Utc>> {
        let mut ticks = Vec::new();
        let mut until = until;
        while ticks.len() < max {
            match self.last_until(until) {
                Some(tick) if tick >= from => {
                    ticks.push(tick);
                    until = tick - TimeDelta::microseconds(1);
                }
                _ => break,
            }
        }
        ticks.reverse();
        ticks
    }
}

fn nth(since: DateTime<Utc>, every: TimeDelta, count: i64) -> Option<DateTime<Utc>> {
    let offset = every.num_milliseconds().checked_mul(count)?;
    since.checked_add_signed(TimeDelta::try_milliseconds(offset)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// The next `count` ticks in UTC, and the same read backwards.
    fn ticks(spec: &ScheduleSpec, after: &str, count: usize) -> Vec<String> {
        let ticks = spec.ticks(at(after)).unwrap();
        let mut forward = Vec::new();
        let mut last = at(after);
        while forward.len() < count {
            let Some(next) = ticks.next_after(last) else { break };
            assert!(next > last);
            forward.push(next);
            last = next;
        }
        let backward = ticks.newest_within(at(after) + TimeDelta::microseconds(1), last, 10_000);
        assert_eq!(forward, backward, "backwards it is the same");
        forward.iter().map(|tick| tick.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)).collect()
    }

    #[test]
    fn cron_is_on_the_wall_clock_of_its_zone() {
        let spec = ScheduleSpec::cron_in("30 9 * * MON-FRI", "Europe/Berlin");
        // Winter, then summer time begins on Sunday the 29th.
        assert_eq!(
            ticks(&spec, "2026-03-26T12:00:00Z", 3),
            ["2026-03-27T08:30:00Z", "2026-03-30T07:30:00Z", "2026-03-31T07:30:00Z"]
        );
        assert_eq!(
            ticks(&ScheduleSpec::cron("*/20 * * * * *"), "2026-01-01T00:00:00Z", 2),
            ["2026-01-01T00:00:20Z", "2026-01-01T00:00:40Z"]
        );
        assert_eq!(ticks(&ScheduleSpec::cron("@daily"), "2026-01-01T00:00:00Z", 1), ["2026-01-02T00:00:00Z"]);
    }

    #[test]
    fn a_fixed_time_in_the_hour_left_out_fires_at_the_end_of_the_gap() {
        let spec = ScheduleSpec::cron_in("30 2 * * *", "Europe/Berlin");
        assert_eq!(
            ticks(&spec, "2026-03-28T00:00:00Z", 3),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"]
        );
        let every = ScheduleSpec::cron_in("*/30 * * * *", "Europe/Berlin");
        assert_eq!(
            ticks(&every, "2026-03-29T00:15:00Z", 3),
            ["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"]
        );
    }

    #[test]
    fn a_fixed_time_in_the_hour_that_comes_twice_fires_once() {
        let spec = ScheduleSpec::cron_in("30 2 * * *", "Europe/Berlin");
        assert_eq!(ticks(&spec, "2026-10-24T12:00:00Z", 2), ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        let every = ScheduleSpec::cron_in("30 * * * *", "Europe/Berlin");
        assert_eq!(
            ticks(&every, "2026-10-24T23:45:00Z", 3),
            ["2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"]
        );
    }

    #[test]
    fn intervals_count_from_the_beginning() {
        let spec = ScheduleSpec::every(Duration::from_millis(1500));
        assert_eq!(ticks(&spec, "2026-01-01T00:00:00Z", 2), ["2026-01-01T00:00:01.500Z", "2026-01-01T00:00:03Z"]);
        let old = spec.ticks(at("2000-01-01T00:00:00Z")).unwrap();
        let newest = old.newest_within(at("2000-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"), 2);
        assert_eq!(newest, [at("2025-12-31T23:59:58.5Z"), at("2026-01-01T00:00:00Z")]);
    }

    #[test]
    fn once_is_once() {
        let spec = ScheduleSpec::at(at("2026-01-01T00:00:00Z"));
        assert_eq!(ticks(&spec, "2025-01-01T00:00:00Z", 5), ["2026-01-01T00:00:00Z"]);
        assert_eq!(spec.next_after(at("2026-01-01T00:00:00Z"), at("2025-01-01T00:00:00Z")).unwrap(), None);
    }

    #[test]
    fn bad_specs_are_explained() {
        let error = |spec: ScheduleSpec| spec.ticks(Utc::now()).err().unwrap().to_string();
        assert!(error(ScheduleSpec::cron("61 * * * *")).contains("61 * * * *"));
        assert!(error(ScheduleSpec::cron_in("* * * * *", "Europe/Berln")).contains("did you mean `Europe/Berlin`"));
        assert!(error(ScheduleSpec::every(Duration::ZERO)).contains("1 ms"));
    }

    #[test]
    fn a_pattern_that_never_comes_has_no_next() {
        assert_eq!(ScheduleSpec::cron("0 0 30 2 *").next_after(Utc::now(), Utc::now()).unwrap(), None);
    }
}
