//! What wakes waiting receives: one connection per handle, subscribed to the queues that somebody waits for.
//!
//! A lost connection comes back by itself. Until it is there, and until a subscription is confirmed, waiting receives look now and then.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use redis::aio::PubSubSink;
use storage_core::{Error, Result};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};

use crate::client::Client;
use crate::error::{explain, silent};

/// How often a waiting receive looks although nothing was heard: a net below the news.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The same while news can't be heard.
const LOOK_WHEN_DEAF: Duration = Duration::from_millis(100);
/// How often the connection for news is asked for a sign of life, and rid of what nobody waits for.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long after a lost connection the next is tried; doubled until the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// What is told when a queue was removed.
const REMOVED: i64 = -1;

/// The news of a store. Dropped, it falls silent.
pub(crate) struct News {
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    client: Arc<Client>,
    channels: Mutex<HashMap<String, Arc<Channel>>>,
    /// There is a channel more.
    wanted: Notify,
}

/// The news of one queue, or of its dead letters.
struct Channel {
    news: Notify,
    waiting: AtomicUsize,
    /// True while the server has confirmed the subscription.
    heard: watch::Sender<bool>,
    /// When something becomes ready by itself, as far as is known.
    due: watch::Sender<Option<Instant>>,
}

/// Somebody who waits for news of a channel.
pub(crate) struct Listener(Arc<Channel>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl News {
    pub(crate) fn new(client: Arc<Client>) -> Self {
        let shared = Arc::new(Shared { client, channels: Mutex::default(), wanted: Notify::new() });
        Self { shared, task: Mutex::default() }
    }

    /// Begins to listen.
    pub(crate) fn listen(&self, channel: &str) -> Listener {
        let listener = {
            let mut channels = lock(&self.shared.channels);
            let channel = channels.entry(channel.to_owned()).or_insert_with(|| {
                self.shared.wanted.notify_one();
                Arc::new(Channel::new())
            });
            channel.waiting.fetch_add(1, Ordering::Relaxed);
            Listener(Arc::clone(channel))
        };
        let mut task = lock(&self.task);
        // Also where the runtime that it ran on is gone.
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            *task = Some(tokio::spawn(run(Arc::clone(&self.shared))));
        }
        listener
    }

    /// Wakes everybody, and listens no more.
    pub(crate) fn close(&self) {
        if let Some(task) = lock(&self.task).take() {
            task.abort();
        }
        self.shared.wake_all();
    }
}

impl Drop for News {
    fn drop(&mut self) {
        self.close();
    }
}

impl Channel {
    fn new() -> Self {
        Self {
            news: Notify::new(),
            waiting: AtomicUsize::new(0),
            heard: watch::Sender::new(false),
            due: watch::Sender::new(None),
        }
    }

    /// So many messages have become ready.
    fn tell(&self, count: i64) {
        if count == REMOVED {
            return self.news.notify_waiters();
        }
        let waiting = self.waiting.load(Ordering::Relaxed);
        // One at least, who learns when the next is due.
        for _ in 0..usize::try_from(count).unwrap_or(1).clamp(1, waiting.max(1)) {
            self.news.notify_one();
        }
    }
}

impl Listener {
    /// True while news can be heard.
    pub(crate) fn is_heard(&self) -> bool {
        *self.0.heard.borrow()
    }

    /// Waits until news can be heard. `false`: not in this time.
    pub(crate) async fn until_heard(&self, limit: Duration) -> bool {
        let mut heard = self.0.heard.subscribe();
        timeout(limit, async { heard.wait_for(|heard| *heard).await.is_ok() }).await.unwrap_or(false)
    }

    /// News from now on.
    pub(crate) fn news(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.news.notified()
    }

    /// Somebody else of this handle may find something.
    pub(crate) fn pass_on(&self) {
        self.0.news.notify_one();
    }

    /// Something becomes ready by itself then; `None`: nothing will.
    pub(crate) fn set_due(&self, due: Option<Instant>) {
        let now = Instant::now();
        self.0.due.send_if_modified(|known| {
            let sooner = match (*known, due) {
                (Some(known), Some(due)) => due + Duration::from_millis(1) < known || known <= now,
                (None, Some(_)) => true,
                (_, None) => false,
            };
            if sooner || due.is_none() {
                *known = due;
            }
            sooner
        });
    }

    /// Waits until it is worth a look: something is due, or it is time to look anyway.
    pub(crate) async fn until_due(&self, deadline: Instant) {
        let mut due = self.0.due.subscribe();
        let every = if self.is_heard() { LOOK_EVERY } else { LOOK_WHEN_DEAF };
        let look = deadline.min(Instant::now() + every);
        loop {
            let until = due.borrow_and_update().map_or(look, |due| due.min(look));
            tokio::select! {
                () = sleep_until(until) => return,
                changed = due.changed() => if changed.is_err() { return },
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    fn wake_all(&self) {
        for channel in lock(&self.channels).values() {
            channel.heard.send_replace(false);
            channel.news.notify_waiters();
        }
    }

    fn is_wanted(&self) -> bool {
        !lock(&self.channels).is_empty()
    }

    /// The channels that are not among those subscribed to.
    fn missing(&self, subscribed: &HashSet<String>) -> Vec<(String, Arc<Channel>)> {
        let channels = lock(&self.channels);
        let missing = channels.iter().filter(|(name, _)| !subscribed.contains(*name));
        missing.map(|(name, channel)| (name.clone(), Arc::clone(channel))).collect()
    }

    /// Forgets the channels that nobody waits for.
    fn unwanted(&self) -> Vec<String> {
        let mut channels = lock(&self.channels);
        let idle = channels.iter().filter(|(_, channel)| channel.waiting.load(Ordering::Relaxed) == 0);
        let idle: Vec<String> = idle.map(|(name, _)| name.clone()).collect();
        for name in &idle {
            channels.remove(name);
        }
        idle
    }

    fn tell(&self, message: &redis::Msg) {
        let channel = lock(&self.channels).get(message.get_channel_name()).cloned();
        let count = message.get_payload::<i64>().unwrap_or(1);
        if let Some(channel) = channel {
            channel.tell(count);
        }
    }
}

/// Listens for as long as the handle lives.
async fn run(shared: Arc<Shared>) {
    let mut pause = FIRST_PAUSE;
    loop {
        while !shared.is_wanted() {
            shared.wanted.notified().await;
        }
        let started = Instant::now();
        if let Err(error) = serve(&shared).await {
            tracing::debug!(store = %shared.client.info(), %error, "lost the connection for news; waiting receives look by themselves");
        }
        // Something may have been told meanwhile.
        shared.wake_all();
        pause = if started.elapsed() > HEARTBEAT { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
        sleep(pause).await;
    }
}

/// Listens on one connection until it fails.
async fn serve(shared: &Shared) -> Result<()> {
    let limit = shared.client.timeout();
    let (mut sink, mut stream) = shared.client.subscriber().await?.split();
    let mut subscribed = HashSet::new();
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.reset();
    loop {
        for (name, channel) in shared.missing(&subscribed) {
            in_time(limit, sink.subscribe(&name)).await?;
            subscribed.insert(name);
            channel.heard.send_replace(true);
        }
        tokio::select! {
            message = stream.next() => match message {
                Some(message) => shared.tell(&message),
                None => return Err(Error::unavailable("the server closed the connection")),
            },
            () = shared.wanted.notified() => {}
            _ = heartbeat.tick() => tend(shared, limit, &mut sink, &mut subscribed).await?,
        }
    }
}

async fn tend(shared: &Shared, limit: Duration, sink: &mut PubSubSink, subscribed: &mut HashSet<String>) -> Result<()> {
    in_time(limit, sink.ping::<redis::Value>()).await?;
    for name in shared.unwanted() {
        if subscribed.remove(&name) {
            in_time(limit, sink.unsubscribe(&name)).await?;
        }
    }
    Ok(())
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = redis::RedisResult<T>>) -> Result<T> {
    timeout(limit, work).await.map_err(|_| silent(Some(limit)))?.map_err(explain)
}

impl fmt::Debug for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("News").field("channels", &lock(&self.shared.channels).len()).finish_non_exhaustive()
    }
}
