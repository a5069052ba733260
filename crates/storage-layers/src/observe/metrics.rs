//! The numbers, through the `metrics` facade.

use std::sync::OnceLock;
use std::time::Duration;

use ::metrics::{
    Counter, Histogram, Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use super::{Direction, OK, Op};
use crate::policy::BreakerState;

/// The handles of one component on one backend: an operation's are made when it is first called, and kept, since finding them costs more than a call.
pub(super) struct Numbers {
    labels: [Label; 2],
    ops: [OnceLock<Handles>; Op::COUNT],
    bytes: OnceLock<[Counter; 2]>,
}

struct Handles {
    ok: Counter,
    error: Counter,
    cancelled: Counter,
    duration: Histogram,
}

impl Numbers {
    pub(super) fn new(component: &str, driver: &str) -> Self {
        Self {
            labels: [Label::new("component", component.to_owned()), Label::new("backend", driver.to_owned())],
            ops: [const { OnceLock::new() }; Op::COUNT],
            bytes: OnceLock::new(),
        }
    }

    fn labels(&self, op: Op, more: Option<(&'static str, &'static str)>) -> Vec<Label> {
        let own = [Some(("operation", op.name())), more].into_iter().flatten();
        self.labels.iter().cloned().chain(own.map(|(name, value)| Label::from_static_parts(name, value))).collect()
    }

    fn handles(&self, op: Op) -> &Handles {
        self.ops[op as usize].get_or_init(|| {
            describe();
            let calls = |outcome| counter!("storage_calls_total", self.labels(op, Some(("outcome", outcome))));
            Handles {
                ok: calls(OK),
                error: calls("error"),
                cancelled: calls("cancelled"),
                duration: histogram!("storage_call_duration_seconds", self.labels(op, None)),
            }
        })
    }

    pub(super) fn ended(&self, op: Op, outcome: Option<&'static str>, took: Duration) {
        let handles = self.handles(op);
        handles.duration.record(took.as_secs_f64());
        match outcome {
            Some(OK) => handles.ok.increment(1),
            Some(kind) => {
                handles.error.increment(1);
                counter!("storage_errors_total", self.labels(op, Some(("kind", kind)))).increment(1);
            }
            None => handles.cancelled.increment(1),
        }
    }

    pub(super) fn retried(&self, op: Op) {
        counter!("storage_retries_total", self.labels(op, None)).increment(1);
    }

    pub(super) fn bytes(&self, direction: Direction, count: u64) {
        let handles = self.bytes.get_or_init(|| {
            ["read", "written"].map(|direction| {
                let direction = Label::from_static_parts("direction", direction);
                counter!("storage_bytes_total", self.labels.iter().cloned().chain([direction]).collect::<Vec<_>>())
            })
        });
        handles[direction as usize].increment(count);
    }
}

pub(super) fn breaker_changed(name: &str, state: BreakerState) {
    let value = match state {
        BreakerState::Closed => 0.0,
        BreakerState::HalfOpen => 1.0,
        BreakerState::Open => 2.0,
    };
    gauge!("storage_breaker_state", "breaker" => name.to_owned()).set(value);
}

fn describe() {
    describe_counter!("storage_calls_total", "Calls to a backend, by how they ended");
    describe_counter!("storage_errors_total", "Failed calls, by the kind of the error");
    describe_histogram!("storage_call_duration_seconds", Unit::Seconds, "How long calls took, retries included");
    describe_counter!("storage_retries_total", "Tries beyond a call's first");
    describe_counter!("storage_bytes_total", Unit::Bytes, "Bytes of blobs and messages");
    describe_gauge!("storage_breaker_state", "0: closed, 1: half open, 2: open");
}
