//! Telling the server what became of messages: done, again now, again later, still at it.

use std::time::{Duration, Instant};

use async_nats::Subject;
use bytes::Bytes;
use futures::StreamExt as _;
use storage_core::{Error, Result};

use crate::client::NatsClient;

/// How many confirmations are awaited at once, where each is asked for.
const PARALLEL: usize = 256;

/// What is said of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It is done: the server removes it.
    Done,
    /// Deliver it again.
    Again,
    /// Deliver it again so long from now, not sooner.
    In(Duration),
    /// Deliver it again after the consumer's ack wait from now.
    Working,
}

impl Word {
    /// The word that makes a lease end so long from now.
    pub(crate) fn lease(length: Duration, ack_wait: Duration) -> Self {
        if length.is_zero() {
            Self::Again
        } else if length == ack_wait {
            Self::Working
        } else {
            Self::In(length)
        }
    }

    fn bytes(self) -> Bytes {
        match self {
            Self::Done => Bytes::from_static(b"+ACK"),
            Self::Again => Bytes::from_static(b"-NAK"),
            Self::In(delay) => format!("-NAK {{\"delay\": {}}}", delay.as_nanos()).into(),
            Self::Working => Bytes::from_static(b"+WPI"),
        }
    }
}

/// Says it of one message, and waits until the server has heard it.
///
/// # Errors
/// [`NotFound`](storage_core::ErrorKind::NotFound) where the consumer is gone.
pub(crate) async fn say(client: &NatsClient, reply: &Subject, word: Word) -> Result<()> {
    match client.request(reply.to_string(), word.bytes()).await {
        Ok(answer) if answer.status.is_none() => Ok(()),
        Ok(_) => Err(Error::unavailable("the server did not take an acknowledgement")),
        Err(error) => Err(error),
    }
}

/// Says it of many messages of one consumer.
///
/// A server works off what comes over one connection in order, so its confirmation of the last is one for all, unless the connection was made anew in
/// between: then each is confirmed by itself.
///
/// # Errors
/// None of them is known to have been heard; each may have been.
pub(crate) async fn say_all(client: &NatsClient, replies: &[Subject], word: Word) -> Result<()> {
    let Some((last, first)) = replies.split_last() else { return Ok(()) };
    let connects = client.connects();
    for reply in first {
        client.publish(reply.clone(), word.bytes()).await?;
    }
    say(client, last, word).await?;
    if client.connects() == connects {
        return Ok(());
    }
    let each: Vec<_> = first.iter().map(|reply| say(client, reply, word)).collect();
    futures::stream::iter(each).buffer_unordered(PARALLEL).fold(Ok(()), |all, one| std::future::ready(all.and(one))).await
}

/// Says it without waiting; a message of which it is not heard comes again by itself.
pub(crate) async fn mention(client: &NatsClient, reply: &Subject, word: Word) {
    if let Err(error) = client.publish(reply.clone(), word.bytes()).await {
        tracing::debug!(%error, "could not tell the server of a message");
    }
}

/// Sets leases of so long. Answers when they end at the earliest.
///
/// # Errors
/// The server was not heard: the messages come again after the ack wait.
pub(crate) async fn lease(client: &NatsClient, replies: &[Subject], length: Duration, ack_wait: Duration) -> Result<Instant> {
    let started = Instant::now();
    say_all(client, replies, Word::lease(length, ack_wait)).await?;
    Ok(started + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_protocols() {
        let wait = Duration::from_secs(30);
        assert_eq!(&Word::lease(Duration::ZERO, wait).bytes()[..], b"-NAK");
        assert_eq!(&Word::lease(wait, wait).bytes()[..], b"+WPI");
        assert_eq!(&Word::lease(Duration::from_millis(250), wait).bytes()[..], b"-NAK {\"delay\": 250000000}");
    }
}
