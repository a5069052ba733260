//! The settings of each part of a policy, in code and in configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use storage_core::OptionSpec;

use super::config::{Settings, duration};

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

const fn spec(name: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { name, help }
}

/// How long one try may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Until a call answers; for a blob that is read, until its first byte. A receive's own wait comes on top, and a second for each MiB of a
    /// blob's bytes that are sent.
    #[serde(with = "duration")]
    pub call: Duration,
    /// Between two pieces of a blob that is streamed, and two entries of a listing.
    #[serde(with = "duration")]
    pub idle: Duration,
    /// Until what goes through a whole table, queue or store is done: `alter_table`, `drop_table`, `delete_queue`, `purge`, `redrive`, `sweep`, `backup`.
    #[serde(with = "duration")]
    pub long: Duration,
}

impl Default for Timeouts {
    /// 30 seconds, 30 seconds, an hour.
    fn default() -> Self {
        Self::calls(Duration::from_secs(30))
    }
}

impl Timeouts {
    /// So long for a call and between two pieces of a stream, an hour for the long ones.
    #[must_use]
    pub const fn calls(call: Duration) -> Self {
        Self { call, idle: call, long: HOUR }
    }
}

impl Settings for Timeouts {
    const KEYS: &'static [OptionSpec] = &[
        spec("call", "is how long one try may take until it answers: a time like \"30s\" (or seconds), 1ms to 1h (default 30s)"),
        spec("idle", "is how long a stream may give nothing: a time like \"30s\" (or seconds), 1ms to 1h (default 30s)"),
        spec(
            "long",
            "is how long a backup, a purge or a change of a table may take: a time like \"1h\" (or seconds), 1ms to 1 day (default 1h)",
        ),
    ];

    fn wrong_key(&self) -> Option<&'static str> {
        first_wrong([("call", within(self.call, HOUR)), ("idle", within(self.idle, HOUR)), ("long", within(self.long, DAY))])
    }
}

/// What is tried again, how often, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// How many tries a call has in all, 1 to 100.
    pub attempts: u32,
    /// The wait before the second try; doubled before each further one, less up to half of it by chance.
    #[serde(with = "duration")]
    pub first: Duration,
    /// The longest of these waits. A service that asks for a longer one (`Retry-After`) is obeyed, up to [`max_wait`](Self::max_wait).
    #[serde(with = "duration")]
    pub longest: Duration,
    /// The longest that a service may ask to wait; asked for more, the call fails with what the service said.
    #[serde(with = "duration")]
    pub max_wait: Duration,
    /// How many retries there may be for each call that succeeds, 0 to 10: a service that is down does not get many times the load.
    pub budget: f32,
    /// How many retries there may be in a second besides, for programs with few calls.
    pub reserve: u32,
}

impl Default for Retry {
    /// 4 tries, waits from 100 ms to 10 s, up to a minute where the service asks for it; 0.2 retries per success, and 10 per second besides.
    fn default() -> Self {
        Self {
            attempts: 4,
            first: Duration::from_millis(100),
            longest: Duration::from_secs(10),
            max_wait: Duration::from_secs(60),
            budget: 0.2,
            reserve: 10,
        }
    }
}

impl Retry {
    /// So many tries in all.
    #[must_use]
    pub fn attempts(attempts: u32) -> Self {
        Self { attempts, ..Self::default() }
    }
}

impl Settings for Retry {
    const KEYS: &'static [OptionSpec] = &[
        spec("attempts", "is how many tries a call has in all, 1 to 100 (default 4)"),
        spec(
            "first",
            "is the wait before the second try, doubled before each further one: a time like \"100ms\", 1ms to 1h (default 100ms)",
        ),
        spec("longest", "is the longest of these waits: a time like \"10s\" (or seconds), 1ms to 1h (default 10s)"),
        spec(
            "max_wait",
            "is the longest that a service may ask to wait: a time like \"1m\" (or seconds), 1ms to 1h (default 1m)",
        ),
        spec("budget", "is how many retries there may be for each success, 0 to 10 (default 0.2)"),
        spec("reserve", "is how many retries there may be in a second besides, 0 to 10000 (default 10)"),
    ];

    fn wrong_key(&self) -> Option<&'static str> {
        first_wrong([
            ("attempts", (1..=100).contains(&self.attempts)),
            ("first", within(self.first, HOUR)),
            ("longest", within(self.longest, HOUR)),
            ("max_wait", within(self.max_wait, HOUR)),
            ("budget", (0.0..=10.0).contains(&self.budget)),
            ("reserve", self.reserve <= 10_000),
        ])
    }
}

/// When calls fail at once because the service fails.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Breaker {
    /// The share of calls that fail, above 0 up to 1, at which the breaker opens.
    pub error_rate: f32,
    /// Over how long that is counted.
    #[serde(with = "duration")]
    pub window: Duration,
    /// How many calls there must have been in that time.
    pub min_calls: u32,
    /// How long it stays open.
    #[serde(with = "duration")]
    pub open: Duration,
    /// How many calls may then try whether the service is back, and must succeed.
    pub probes: u32,
}

impl Default for Breaker {
    /// Half of at least 20 calls within 30 seconds; open for 10 seconds; 3 probes.
    fn default() -> Self {
        Self { error_rate: 0.5, window: Duration::from_secs(30), min_calls: 20, open: Duration::from_secs(10), probes: 3 }
    }
}

impl Settings for Breaker {
    const KEYS: &'static [OptionSpec] = &[
        spec("error_rate", "is the share of failed calls at which the breaker opens, above 0 up to 1 (default 0.5)"),
        spec("window", "is over how long failures are counted: a time like \"30s\" (or seconds), 1s to 1h (default 30s)"),
        spec("min_calls", "is how many calls there must have been in that time, 1 to 1000000 (default 20)"),
        spec("open", "is how long the breaker stays open: a time like \"10s\" (or seconds), 1ms to 1h (default 10s)"),
        spec("probes", "is how many calls then try whether the service is back, 1 to 1000 (default 3)"),
    ];

    fn wrong_key(&self) -> Option<&'static str> {
        first_wrong([
            ("error_rate", self.error_rate > 0.0 && self.error_rate <= 1.0),
            ("window", self.window >= Duration::from_secs(1) && within(self.window, HOUR)),
            ("min_calls", (1..=1_000_000).contains(&self.min_calls)),
            ("open", within(self.open, HOUR)),
            ("probes", (1..=1000).contains(&self.probes)),
        ])
    }
}

/// How many tries there may be in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimit {
    /// How many in a second, evenly spread.
    pub per_second: u32,
    /// How many at once after a pause. `None`: [`per_second`](Self::per_second), at least one.
    pub burst: Option<u32>,
    /// How long a call waits for its turn at most; then it is [`Throttled`](storage_core::ErrorKind::Throttled).
    #[serde(with = "duration")]
    pub max_wait: Duration,
}

impl Default for RateLimit {
    /// 1,000 in a second, all at once after a pause; calls wait 10 seconds at most.
    fn default() -> Self {
        Self::per_second(1000)
    }
}

impl RateLimit {
    /// So many in a second.
    #[must_use]
    pub const fn per_second(per_second: u32) -> Self {
        Self { per_second, burst: None, max_wait: Duration::from_secs(10) }
    }
}

impl Settings for RateLimit {
    const KEYS: &'static [OptionSpec] = &[
        spec("per_second", "is how many tries there may be in a second, 1 to 1000000 (default 1000)"),
        spec("burst", "is how many there may be at once after a pause, 1 to 1000000 (default: those of a second)"),
        spec("max_wait", "is how long a call waits for its turn: a time like \"10s\" (or seconds), 1ms to 1h (default 10s)"),
    ];

    fn wrong_key(&self) -> Option<&'static str> {
        first_wrong([
            ("per_second", (1..=1_000_000).contains(&self.per_second)),
            ("burst", self.burst.is_none_or(|burst| (1..=1_000_000).contains(&burst))),
            ("max_wait", within(self.max_wait, HOUR)),
        ])
    }
}

/// How many calls there may be at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Concurrency {
    /// How many run at a time. A blob that is read counts until its first byte is there, so that a program may hold as many streams as it likes.
    pub max: u32,
    /// How many wait for their turn; one more is [`Throttled`](storage_core::ErrorKind::Throttled).
    pub max_waiting: u32,
}

impl Default for Concurrency {
    /// 64, and 1,024 that wait.
    fn default() -> Self {
        Self::at_most(64)
    }
}

impl Concurrency {
    /// So many at a time.
    #[must_use]
    pub const fn at_most(max: u32) -> Self {
        Self { max, max_waiting: 1024 }
    }
}

impl Settings for Concurrency {
    const KEYS: &'static [OptionSpec] = &[
        spec("max", "is how many calls run at a time, 1 to 100000 (default 64)"),
        spec("max_waiting", "is how many calls wait for their turn, 0 to 100000 (default 1024)"),
    ];

    fn wrong_key(&self) -> Option<&'static str> {
        first_wrong([("max", (1..=100_000).contains(&self.max)), ("max_waiting", self.max_waiting <= 100_000)])
    }
}

fn within(duration: Duration, longest: Duration) -> bool {
    duration >= Duration::from_millis(1) && duration <= longest
}

fn first_wrong<const N: usize>(keys: [(&'static str, bool); N]) -> Option<&'static str> {
    keys.into_iter().find(|(_, right)| !right).map(|(key, _)| key)
}
