//! A replica, which is asked for what may be of a while ago.
//!
//! It only ever helps: where it is gone, lags behind a change of tables or refuses something, the primary is asked.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use storage_core::{Error, ErrorKind, Result};

use super::{Catalog, Fault, Question, Reader, late};

/// How long a replica that did not answer is left alone.
const AWAY: Duration = Duration::from_secs(5);

/// Whether a replica answers.
#[derive(Debug)]
pub struct Standing {
    /// Where it is, without secrets.
    location: String,
    /// How long it may take.
    limit: Duration,
    /// Set where it did not answer: when it is asked again.
    away: Mutex<Option<Instant>>,
}

impl Standing {
    /// Of one that was not asked yet.
    #[must_use]
    pub fn new(location: String, limit: Duration) -> Self {
        Self { location, limit, away: Mutex::default() }
    }

    /// What `attempt` to ask it comes to. `None`: the primary is to be asked.
    pub async fn ask<T>(&self, attempt: impl Future<Output = Result<Option<T>>> + Send) -> Option<T> {
        if !self.may_be_asked(Instant::now()) {
            return None;
        }
        let answer = tokio::time::timeout(self.limit, attempt).await.map_err(|_| late(self.limit)).flatten();
        match answer {
            Ok(answer) => {
                if self.is_back() {
                    tracing::info!(replica = %self.location, "the replica answers again");
                }
                answer
            }
            Err(error) => {
                if self.is_gone(Instant::now()) {
                    tracing::warn!(replica = %self.location, %error, "the replica does not answer: the primary is asked instead, until it does");
                }
                None
            }
        }
    }

    /// Of those who come while it is away, one asks now and then.
    fn may_be_asked(&self, now: Instant) -> bool {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *away {
            Some(until) if *until > now => false,
            Some(until) => {
                *until = now + AWAY;
                true
            }
            None => true,
        }
    }

    /// True where it was away.
    fn is_back(&self) -> bool {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).take().is_some()
    }

    /// True where it was not away yet.
    fn is_gone(&self, now: Instant) -> bool {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).replace(now + AWAY).is_none()
    }
}

/// What a replica answers for `tables`, which are known of the primary. `None` where it has others, later or earlier ones, or can't say.
///
/// # Errors
/// The replica is gone.
pub async fn read_replica<R: Reader, Q: Question>(
    reader: &R,
    tables: &Catalog<R::Statements>,
    question: &Q,
) -> Result<Option<Q::Answer>> {
    match question.ask(reader, tables).await {
        Ok(answer) => Ok(answer),
        Err(Fault::Ours(_)) => Ok(None),
        Err(Fault::Server { error, about_tables }) => {
            reader.undo(about_tables).await?;
            if is_gone(&error) { Err(error) } else { Ok(None) }
        }
    }
}

fn is_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_that_is_gone_is_said_once_and_asked_now_and_then() {
        let (standing, begun) = (Standing::new("r".to_owned(), Duration::from_secs(5)), Instant::now());
        assert_eq!(standing.ask(async { Ok(Some(1)) }).await, Some(1));
        assert_eq!(standing.ask::<i32>(async { Ok(None) }).await, None);
        assert!(standing.may_be_asked(begun), "it has answered, if nothing useful");
        assert!(standing.is_gone(begun) && !standing.is_gone(begun), "the first time is worth a warning");
        assert_eq!(standing.ask(async { Ok(Some(2)) }).await, None, "it is left alone");
        let later = begun + AWAY;
        assert!(standing.may_be_asked(later) && !standing.may_be_asked(later), "by one");
        assert!(standing.is_back() && !standing.is_back());
        let late = Standing::new("r".to_owned(), Duration::from_millis(1));
        assert_eq!(late.ask::<i32>(std::future::pending()).await, None);
        assert!(!late.may_be_asked(Instant::now()), "too late is gone");
    }
}
