//! What the metrics say, for a Prometheus server to scrape.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use storage_core::{Error, Result};

/// Upper bounds of the histogram's buckets, in seconds: from a call to memory to the longest timeout anybody waits for.
const BUCKETS: [f64; 16] = [1e-6, 1e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.5, 1.0, 5.0, 30.0];

/// What histograms are given adds up until it is put into their buckets: so often, also where nobody reads them.
const UPKEEP: Duration = Duration::from_secs(5);

/// The recorder of this process, which keeps the numbers.
#[derive(Clone)]
pub struct Prometheus {
    handle: PrometheusHandle,
}

impl Prometheus {
    /// Becomes the process's recorder of metrics. With an address, `GET /metrics` there answers the numbers, as long as the process lives.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config): the process has a recorder already, or the address can't be listened on.
    pub fn install(listen: Option<SocketAddr>) -> Result<Self> {
        // A thread and runtime of its own: the numbers outlive the runtime that the program called from, and are there while that is busy.
        let (answer, answered) = std::sync::mpsc::channel();
        let work = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(answer.send(Err(Error::from(error)))),
            };
            runtime.block_on(async {
                let installed = install(listen);
                let (outcome, keep) =
                    installed.map_or_else(|error| (Err(error), None), |(handle, keep)| (Ok(handle), Some(keep)));
                // Nobody went away: the caller waits.
                drop(answer.send(outcome));
                if let Some(keep) = keep {
                    keep.await;
                }
            });
        };
        std::thread::Builder::new().name("storage-metrics".into()).spawn(work)?;
        let answer = answered.recv().map_err(|e| Error::internal("the thread for metrics ended").with_source(e))?;
        Ok(Self { handle: answer? })
    }

    /// The numbers in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }
}

/// Installs the recorder; the future keeps it going, and never ends. Within a runtime.
fn install(listen: Option<SocketAddr>) -> Result<(PrometheusHandle, BoxFuture<'static, ()>)> {
    let fail = |e: &dyn fmt::Display| Error::config(format!("metrics: {e}"));
    let matcher = Matcher::Full("storage_call_duration_seconds".into());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(matcher, &BUCKETS).map_err(|e| fail(&e))?;
    let Some(address) = listen else {
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|e| fail(&e))?;
        let kept = handle.clone();
        let upkeep = async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                kept.run_upkeep();
            }
        };
        return Ok((handle, upkeep.boxed()));
    };
    // The exporter sees to the upkeep itself.
    let built = builder.with_http_listener(address).build();
    let (recorder, serve) = built.map_err(|e| Error::config(format!("metrics: can't listen on {address}: {e}")))?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|e| fail(&e))?;
    let serve = async move {
        if let Err(error) = serve.await {
            tracing::error!(?error, "the endpoint for metrics ended");
        }
    };
    Ok((handle, serve.boxed()))
}

impl fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prometheus")
    }
}
