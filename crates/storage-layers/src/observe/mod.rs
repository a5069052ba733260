//! What is told of each call: a `tracing` span, and numbers through the `metrics` facade (cargo feature `metrics`).
//!
//! The span is named `storage`, of level debug, and has the fields `component`, `operation`, `backend`, `subject` (the table or queue; no keys, paths or
//! contents) and `outcome` (`ok`, the [kind](storage_core::ErrorKind) of the error, or `cancelled`).
//!
//! | metric | kind | labels |
//! |---|---|---|
//! | `storage_calls_total` | counter | `component` `operation` `backend` `outcome`: `ok`, `error`, `cancelled` |
//! | `storage_errors_total` | counter | `component` `operation` `backend` `kind` |
//! | `storage_call_duration_seconds` | histogram | `component` `operation` `backend` |
//! | `storage_retries_total` | counter | `component` `operation` `backend` |
//! | `storage_bytes_total` | counter | `component` `backend` `direction`: `read`, `written` |
//! | `storage_breaker_state` | gauge | `breaker`; 0 closed, 1 half open, 2 open |
//!
//! `operation` is what errors call it (`records.commit`), `backend` the driver's name. Bytes are those of blobs and of messages' bodies; records are not
//! counted, since a backend doesn't say how large they are. The duration of a read of a blob, or of a listing, is that to its first answer.

#[cfg(feature = "metrics")]
mod metrics;
mod op;
#[cfg(feature = "prometheus")]
mod prometheus;

use std::fmt::{self, Display};
use std::sync::Arc;

use storage_core::{BackendInfo, Result};
use tracing::Instrument as _;
use tracing::field::Empty;

#[cfg(feature = "metrics")]
use self::metrics::Numbers;
pub(crate) use self::op::Op;
#[cfg(feature = "prometheus")]
pub use self::prometheus::Prometheus;
use crate::policy::BreakerState;

/// Tells of the calls of one component on one backend. Cheap to clone; [`Observer::default`] tells nothing and costs nothing.
#[derive(Clone, Default)]
pub struct Observer(Option<Arc<Inner>>);

struct Inner {
    component: String,
    info: BackendInfo,
    #[cfg(feature = "metrics")]
    numbers: Numbers,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Read,
    Written,
}

impl Observer {
    /// Of a component, as spans and metrics shall call it, on a backend.
    ///
    /// Metrics go to the recorder that is there when an operation is first called: install it before.
    #[must_use]
    pub fn new(component: &str, info: &BackendInfo) -> Self {
        Self(Some(Arc::new(Inner {
            component: component.to_owned(),
            info: info.clone(),
            #[cfg(feature = "metrics")]
            numbers: Numbers::new(component, &info.driver),
        })))
    }

    /// Makes a call, and tells of it.
    pub(crate) async fn watch<T>(
        &self,
        op: Op,
        subject: Option<&(dyn Display + Sync)>,
        call: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let Some(inner) = &self.0 else { return call.await };
        let span = tracing::debug_span!(
            target: "storage",
            "storage",
            component = %inner.component,
            operation = op.name(),
            backend = %inner.info,
            subject = subject.map(tracing::field::display),
            outcome = Empty,
        );
        let mut watch = Watch { inner, op, span, began: std::time::Instant::now(), outcome: None };
        let outcome = call.instrument(watch.span.clone()).await;
        watch.outcome = Some(outcome.as_ref().map_or_else(|error| error.kind().as_str(), |_| OK));
        outcome
    }

    /// A call is tried again.
    pub(crate) fn retried(&self, op: Op) {
        #[cfg(feature = "metrics")]
        if let Some(inner) = &self.0 {
            inner.numbers.retried(op);
        }
        #[cfg(not(feature = "metrics"))]
        let _ = op;
    }

    /// So many bytes went there.
    pub(crate) fn bytes(&self, direction: Direction, count: u64) {
        #[cfg(feature = "metrics")]
        if let Some(inner) = &self.0 {
            inner.numbers.bytes(direction, count);
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (direction, count);
    }

    /// False where nothing is told.
    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&self.0.as_ref().map(|inner| &inner.component)).finish()
    }
}

const OK: &str = "ok";

/// A call under way. Dropped before its end, it was cancelled.
struct Watch<'a> {
    inner: &'a Inner,
    op: Op,
    span: tracing::Span,
    began: std::time::Instant,
    outcome: Option<&'static str>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.span.record("outcome", self.outcome.unwrap_or("cancelled"));
        #[cfg(feature = "metrics")]
        self.inner.numbers.ended(self.op, self.outcome, self.began.elapsed());
        #[cfg(not(feature = "metrics"))]
        let _ = (self.inner, self.op, self.began);
    }
}

/// A circuit breaker is in another state.
pub(crate) fn breaker_changed(name: &str, state: BreakerState) {
    #[cfg(feature = "metrics")]
    metrics::breaker_changed(name, state);
    #[cfg(not(feature = "metrics"))]
    let _ = (name, state);
}
