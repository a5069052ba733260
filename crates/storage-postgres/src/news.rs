//! Who waits for messages, and how they learn of some: at once within this process, by NOTIFY from others.
//!
//! Notices are sent once their messages are committed, in a statement of their own: within the transaction, the server would commit those that notify one
//! after the other. A program that dies in between has told nobody, so who waits looks by itself every now and then.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use futures::StreamExt as _;
use storage_core::Result;
use storage_sql::SqlValue;
use storage_sql::server::Lanes;
use tokio::sync::Notify;
use tokio_postgres::AsyncMessage;

use crate::bind::Param;
use crate::config::Settings;
use crate::error::{OrExplain as _, explain_connecting, unreachable};
use crate::shared::Shared;
use crate::statements::quote;
use crate::tls::Tls;

/// How often, at most, other processes are told.
const GAP: Duration = Duration::from_millis(2);
/// How long after a failed connection the next is tried.
const AGAIN: Duration = Duration::from_secs(1);
/// How many lanes one notice names: a notice has less than 8,000 bytes.
const MAX_LANES: usize = 256;

/// News of messages, within this process and from others.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) lanes: Lanes,
    /// Lanes that other processes are to hear of.
    untold: Mutex<BTreeSet<i64>>,
    to_tell: Notify,
    started: AtomicBool,
    connected: AtomicBool,
    closed: AtomicBool,
    end: Notify,
}

impl News {
    /// True where other processes' news arrive.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected.load(Ordering::Acquire)
    }

    /// Tells who waits for the lane, here and elsewhere.
    pub(crate) fn announce(&self, lane: i64, count: usize) {
        self.lanes.wake(lane, count);
        self.untold.lock().unwrap_or_else(PoisonError::into_inner).insert(lane);
        self.to_tell.notify_one();
    }

    /// Lets go of the connection.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.end.notify_waiters();
        self.end.notify_one();
        self.lanes.wake_all();
    }

    /// Starts telling and listening, once.
    pub(crate) fn start(&self, shared: &Arc<Shared>) {
        if !self.started.swap(true, Ordering::AcqRel) {
            tokio::spawn(keep_connected(Arc::downgrade(shared)));
        }
    }
}

async fn keep_connected(shared: Weak<Shared>) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        let (settings, tls, schema) = (strong.settings.clone(), strong.pool.tls(), strong.found.schema.clone());
        drop(strong);
        if let Err(error) = live(&shared, &settings, tls, &schema).await {
            tracing::debug!(%error, "no news from other processes for a while");
        }
        let Some(strong) = shared.upgrade() else { return };
        strong.news.connected.store(false, Ordering::Release);
        if strong.news.closed.load(Ordering::Acquire) {
            return;
        }
        // Who waits looks by itself meanwhile.
        strong.news.lanes.wake_all();
        drop(strong);
        tokio::time::sleep(AGAIN).await;
    }
}

/// The channel of all stores in one schema: names of channels are the whole database's.
fn channel(schema: &str) -> String {
    format!("storage_{:016x}", storage_core::fnv1a(&[schema.as_bytes()]))
}

/// One connection, from its beginning to its end.
async fn live(shared: &Weak<Shared>, settings: &Settings, tls: Tls, schema: &str) -> Result<()> {
    let limit = settings.connect_timeout;
    let connecting = tokio::time::timeout(limit, settings.server.connect(tls)).await.map_err(|_| unreachable(limit))?;
    let (client, mut connection) = connecting.map_err(explain_connecting)?;
    let channel = channel(schema);
    let mut incoming = Box::pin(futures::stream::poll_fn(move |context| connection.poll_message(context)).fuse());
    let listen = async {
        client.batch_execute(&settings.preparation()).await.or_explain()?;
        // A notice is no loss: its commit need not wait for the disk, nor make others wait.
        client.batch_execute("SET synchronous_commit = off").await.or_explain()?;
        client.batch_execute(&format!("LISTEN {}", quote(&channel))).await.or_explain()?;
        let tell = client.prepare("SELECT pg_notify($1, $2)").await.or_explain()?;
        if let Some(shared) = shared.upgrade() {
            shared.news.connected.store(true, Ordering::Release);
            // What was sent before the first notice arrives.
            shared.news.lanes.wake_all();
        }
        loop {
            let Some(lanes) = next_to_tell(shared).await else { return Ok(()) };
            let lanes = lanes.iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
            let values = [Param::from(channel.as_str()), Param::One(SqlValue::Text(lanes.into()))];
            client.execute_raw(&tell, values).await.or_explain()?;
            tokio::time::sleep(GAP).await;
        }
    };
    let mut listen = std::pin::pin!(listen);
    loop {
        tokio::select! {
            ended = &mut listen => return ended,
            message = incoming.next() => match message {
                Some(Ok(AsyncMessage::Notification(notice))) => hear(shared, notice.payload()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error).or_explain(),
                None => return Err(storage_core::Error::unavailable("the server ended the connection")),
            },
        }
    }
}

/// Waits for lanes to tell of. `None`: the store is closed.
async fn next_to_tell(shared: &Weak<Shared>) -> Option<Vec<i64>> {
    loop {
        let strong = shared.upgrade()?;
        if strong.news.closed.load(Ordering::Acquire) {
            return None;
        }
        let lanes: Vec<i64> = {
            let mut untold = strong.news.untold.lock().unwrap_or_else(PoisonError::into_inner);
            std::iter::from_fn(|| untold.pop_first()).take(MAX_LANES).collect()
        };
        if !lanes.is_empty() {
            return Some(lanes);
        }
        let (told, end) = (strong.news.to_tell.notified(), strong.news.end.notified());
        tokio::select! { () = told => {}, () = end => {} }
    }
}

/// Wakes who waits for what another process tells of; also for one's own, which changes nothing.
fn hear(shared: &Weak<Shared>, lanes: &str) {
    let Some(shared) = shared.upgrade() else { return };
    lanes.split(' ').filter_map(|lane| lane.parse().ok()).for_each(|lane| shared.news.lanes.wake(lane, usize::MAX));
}
