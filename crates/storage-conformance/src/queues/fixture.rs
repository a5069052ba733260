//! A queue in a fresh store, and short words for what cases do with it.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use storage_core::message::dead;
use storage_core::{
    Delivery, Message, NewMessage, QueueCapabilities, QueueName, QueueSpec, QueueStats, QueueStore, Receive, Result, Sent,
};

use crate::Harness;
use crate::opened::{Opened, PATIENCE};

/// A lease that does not end within a case.
pub(crate) const LONG: Duration = Duration::from_secs(120);
/// A lease or delay whose end a case waits for.
pub(crate) const SHORT: Duration = Duration::from_millis(250);

/// A queue `q` in a fresh store.
pub(crate) struct Fixture<'h> {
    pub(crate) opened: Opened<'h>,
    pub(crate) store: QueueStore,
    pub(crate) name: QueueName,
}

/// A queue without a delivery cap.
pub(crate) fn uncapped() -> QueueSpec {
    QueueSpec::default().max_deliveries(None)
}

/// The bodies of deliveries.
pub(crate) fn bodies(deliveries: &[Delivery]) -> Vec<&str> {
    deliveries.iter().map(|d| std::str::from_utf8(&d.message.body).expect("a body of text")).collect()
}

impl<'h> Fixture<'h> {
    pub(crate) async fn new(harness: &'h dyn Harness, spec: QueueSpec) -> Result<Self> {
        Self::within(Opened::fresh(harness).await?, spec).await
    }

    pub(crate) async fn open(harness: &'h dyn Harness) -> Result<Self> {
        Self::new(harness, uncapped()).await
    }

    /// In a store that the case has opened itself.
    pub(crate) async fn within(opened: Opened<'h>, spec: QueueSpec) -> Result<Self> {
        let store = opened.queues();
        let name: QueueName = "q".parse()?;
        assert!(store.create_queue(&name, &spec).await?, "a fresh store has no queue `q`");
        Ok(Self { opened, store, name })
    }

    pub(crate) fn capabilities(&self) -> &QueueCapabilities {
        self.store.capabilities()
    }

    pub(crate) fn dead(&self) -> QueueName {
        self.name.dead_letter().expect("`q` is not a dead-letter queue")
    }

    pub(crate) async fn send(&self, body: &str) -> Result<Sent> {
        self.send_message(NewMessage::new(Bytes::copy_from_slice(body.as_bytes()))).await
    }

    pub(crate) async fn send_message(&self, message: NewMessage) -> Result<Sent> {
        self.store.send(&self.name, message).await
    }

    /// Sends `count` messages with their numbers as bodies, in order.
    pub(crate) async fn send_numbers(&self, count: usize) -> Result<Vec<Sent>> {
        self.store.send_all(&self.name, (0..count).map(|n| NewMessage::new(n.to_string())).collect()).await
    }

    /// What is ready now, `max` at most.
    pub(crate) async fn receive(&self, max: u32, visibility: Duration) -> Result<Vec<Delivery>> {
        self.store.receive(&self.name, &Receive::up_to(max).visibility(visibility)).await
    }

    /// Exactly `count` messages, which must be ready.
    pub(crate) async fn take(&self, count: usize, visibility: Duration) -> Result<Vec<Delivery>> {
        self.take_from(&self.name, count, visibility).await
    }

    pub(crate) async fn take_from(&self, queue: &QueueName, count: usize, visibility: Duration) -> Result<Vec<Delivery>> {
        let mut taken = Vec::new();
        while taken.len() < count {
            let left = u32::try_from(count - taken.len()).expect("a small number");
            let deliveries = patient_receive(&self.store, queue, &Receive::up_to(left).visibility(visibility)).await?;
            assert!(!deliveries.is_empty(), "{left} of {count} messages of `{queue}` are missing");
            assert!(deliveries.len() <= left as usize, "{} messages, {left} asked for", deliveries.len());
            taken.extend(deliveries);
        }
        Ok(taken)
    }

    pub(crate) async fn take_one(&self, visibility: Duration) -> Result<Delivery> {
        Ok(self.take(1, visibility).await?.remove(0))
    }

    /// Checks that nothing is ready.
    pub(crate) async fn nothing(&self) -> Result<()> {
        let ready = self.receive(10, LONG).await?;
        assert!(ready.is_empty(), "nothing was to be ready, but: {:?}", bodies(&ready));
        Ok(())
    }

    /// The next message, which must not become ready before `due` of the store's elapsed time.
    pub(crate) async fn comes_not_before(&self, due: Duration) -> Result<Delivery> {
        let what = format!("a message is due in `{}`", self.name);
        let wait = due.saturating_sub(self.opened.elapsed()) + Duration::from_millis(100);
        let look = async || {
            let mut received = self.receive(1, LONG).await?;
            let now = self.opened.elapsed();
            assert!(received.is_empty() || now >= due, "ready at {now:?}, due at {due:?}: {:?}", bodies(&received));
            Ok(received.pop())
        };
        self.opened.until(&what, wait, look).await
    }

    /// Waits until there are so many dead letters, and nothing is delivered meanwhile.
    pub(crate) async fn until_dead(&self, count: u64) -> Result<Vec<Message>> {
        let look = async || {
            let received = self.receive(10, LONG).await?;
            assert!(received.is_empty(), "received instead of dead: {:?}", bodies(&received));
            let letters = self.dead_letters().await?;
            Ok((letters.len() as u64 >= count).then_some(letters))
        };
        let letters = self.opened.until("dead letters are due", SHORT * 2, look).await?;
        assert_eq!(letters.len() as u64, count, "dead letters");
        Ok(letters)
    }

    /// All dead letters, of which there are 100 at most, without taking them.
    pub(crate) async fn dead_letters(&self) -> Result<Vec<Message>> {
        self.store.dead_letters(&self.name, 100).await
    }

    pub(crate) async fn stats(&self) -> Result<QueueStats> {
        self.store.stats(&self.name).await
    }

    /// Checks the exact counts; estimates and unknowns are let be.
    pub(crate) async fn assert_counts(&self, ready: u64, delayed: u64, leased: u64, dead: u64) -> Result<()> {
        let stats = self.stats().await?;
        for (what, count, expected) in [
            ("ready", stats.ready, ready),
            ("delayed", stats.delayed, delayed),
            ("leased", stats.leased, leased),
            ("dead", stats.dead, dead),
        ] {
            if let storage_core::Count::Exact(found) = count {
                assert_eq!(found, expected, "{what} messages: {stats:?}");
            }
        }
        Ok(())
    }
}

/// Receives with a wait that is much longer than a case has patience for: a message must end the wait, not the wait's own end.
pub(crate) async fn patient_receive(store: &QueueStore, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
    let request = request.wait(PATIENCE * 10);
    let received = tokio::time::timeout(PATIENCE, store.receive(queue, &request)).await;
    received.unwrap_or_else(|_| panic!("nothing came out of `{queue}` within {PATIENCE:?}, nor did the wait end"))
}

/// The reason why a message is dead.
pub(crate) fn reason(message: &Message) -> &str {
    message.attributes.get(dead::REASON).map_or("none", String::as_str)
}

/// The ids of sent messages.
pub(crate) fn ids(sent: &[Sent]) -> BTreeSet<String> {
    sent.iter().map(|s| s.id.to_string()).collect()
}
