//! What is done every now and then by every open store.

use std::sync::Weak;
use std::time::Duration;

use storage_core::Result;

use super::Shared;

/// How often it is done.
const EVERY: Duration = Duration::from_secs(30);

/// A store that has something to do every now and then, such as removing what has expired and comparing the clocks.
pub trait Maintained: Shared {
    /// Does it, once.
    fn round(&self) -> impl Future<Output = Result<()>> + Send;
}

/// Until the store is closed.
pub async fn maintain<T: Maintained>(shared: Weak<T>) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        // Processes that were started together need not do it together.
        let wait = EVERY + Duration::from_millis(u64::from(chrono::Utc::now().timestamp_subsec_micros() % 5_000));
        if !strong.common().users.sleep(wait).await {
            return;
        }
        if let Err(error) = strong.round().await {
            // Nobody waits for an answer: what goes wrong here goes wrong in the next call too, which says so.
            tracing::debug!(%error, "maintenance of the database was put off");
        }
    }
}
