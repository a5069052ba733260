//! What the metrics say, for a Prometheus server to scrape.

use std::fmt;
use std::net::SocketAddr;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use storage_core::{Error, Result};

/// Upper bounds of the histogram's buckets, in seconds: from a call to memory to the longest timeout anybody waits for.
const BUCKETS: [f64; 16] = [1e-6, 1e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.5, 1.0, 5.0, 30.0];

/// The recorder of this process, which keeps the numbers.
#[derive(Clone)]
pub struct Prometheus {
    handle: PrometheusHandle,
}

impl Prometheus {
    /// Becomes the process's recorder of metrics. With an address, `GET /metrics` there answers the numbers; within a tokio runtime.
    ///
    /// # Errors
    /// [`Config`](storage_core::ErrorKind::Config): the process has a recorder already, or the address can't be listened on.
    pub fn install(listen: Option<SocketAddr>) -> Result<Self> {
        let matcher = Matcher::Full("storage_call_duration_seconds".into());
        let fail = |e: &dyn fmt::Display| Error::config(format!("metrics: {e}"));
        let builder = PrometheusBuilder::new().set_buckets_for_metric(matcher, &BUCKETS).map_err(|e| fail(&e))?;
        let Some(address) = listen else {
            return Ok(Self { handle: builder.install_recorder().map_err(|e| fail(&e))? });
        };
        let build = builder.with_http_listener(address).build();
        let (recorder, serve) = build.map_err(|e| Error::config(format!("metrics: can't listen on {address}: {e}")))?;
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).map_err(|e| fail(&e))?;
        tokio::spawn(async move {
            if let Err(error) = serve.await {
                tracing::error!(?error, "the endpoint for metrics ended");
            }
        });
        Ok(Self { handle })
    }

    /// The numbers in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }
}

impl fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prometheus")
    }
}
