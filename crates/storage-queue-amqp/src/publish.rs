//! Sending with confirms that are in flight together.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt as _, TryStreamExt as _};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use storage_core::{Error, Result};
use tokio::sync::Semaphore;

use crate::error::{blocked, lapin, no_queue, within};
use crate::link::{Link, Role};
use crate::wire::Parcel;

/// How many messages of one call are handed to the connection before the first is on its way.
const WINDOW: usize = 256;

/// How often to look whether the channel is still there.
const LOOK_AGAIN: std::time::Duration = std::time::Duration::from_millis(250);

/// A parcel and the queue that it goes to.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) to: String,
    pub(crate) parcel: Parcel,
}

/// Channels in confirm mode. Each call has one to itself: what the broker returns of a channel can't be told apart by the client library.
#[derive(Debug)]
pub(crate) struct Publisher {
    link: Arc<Link>,
    idle: Mutex<Vec<Channel>>,
    permits: Semaphore,
}

impl Publisher {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        let permits = Semaphore::new(link.settings().senders);
        Self { link, idle: Mutex::default(), permits }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn channel(&self) -> Result<Channel> {
        // Before the idle ones: a channel is idle on a connection that is not blocked.
        if self.link.connection(Role::Send).await?.status().blocked() {
            return Err(blocked());
        }
        loop {
            let Some(channel) = self.idle().pop() else { break };
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        let channel = self.link.channel(Role::Send).await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await.map_err(lapin)?;
        Ok(channel)
    }

    /// Sends all, in order, and waits until the broker has them all. After an error some of them may have arrived; after `NotFound` those whose queue
    /// is there.
    pub(crate) async fn publish(&self, letters: Vec<Letter>) -> Result<()> {
        let limit = self.link.settings().timeout;
        let outcome = within(limit, async {
            let Ok(_permit) = self.permits.acquire().await else { return Err(Error::internal("the semaphore was closed")) };
            let channel = self.channel().await?;
            let missing = tokio::select! {
                biased;
                missing = send(&channel, letters) => missing?,
                // The client library may forget who waits for a confirm when the connection breaks.
                () = broken(&channel) => return Err(Error::unavailable("the connection broke before the broker confirmed; it is made again")),
            };
            if let Some(missing) = missing.into_iter().next() {
                // Not used again: what was returned may still be told of others.
                return Err(no_queue(&missing));
            }
            self.idle().push(channel);
            Ok(())
        });
        match outcome.await {
            Err(error) if error.kind() == storage_core::ErrorKind::Timeout && self.is_blocked().await => Err(Error::timeout(
                "the broker has raised an alarm (memory or disk) in the middle: whether the messages arrive is not known",
            )),
            outcome => outcome,
        }
    }

    async fn is_blocked(&self) -> bool {
        self.link.connection(Role::Send).await.is_ok_and(|connection| connection.status().blocked())
    }

    /// Lets go of the idle channels.
    pub(crate) fn close(&self) {
        self.idle().clear();
    }
}

/// Ready some time after the channel has broken: what waits on it is told by the client library itself meanwhile.
async fn broken(channel: &Channel) {
    while channel.status().connected() {
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    tokio::time::sleep(LOOK_AGAIN).await;
}

/// Answers the queues that are not there.
async fn send(channel: &Channel, letters: Vec<Letter>) -> Result<BTreeSet<String>> {
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let publish = |Letter { to, parcel }: Letter| async move {
        channel.basic_publish("".into(), to.into(), options, &parcel.body, parcel.properties).await
    };
    let confirms: Vec<_> = futures::stream::iter(letters).map(publish).buffered(WINDOW).try_collect().await.map_err(lapin)?;
    let (mut missing, mut refused) = (BTreeSet::new(), 0_usize);
    for confirm in confirms {
        match confirm.await.map_err(lapin)? {
            Confirmation::Ack(None) => {}
            Confirmation::Ack(Some(returned)) => drop(missing.insert(returned.delivery.routing_key.to_string())),
            Confirmation::Nack(_) | Confirmation::NotRequested => refused += 1,
        }
    }
    if refused > 0 {
        return Err(Error::unavailable(format!(
            "the broker refused {refused} messages: the queue is full, or has lost its nodes"
        )));
    }
    Ok(missing)
}
