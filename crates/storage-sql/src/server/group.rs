//! A group of works in one transaction, tried again where others were in its way, and taken apart where one of them is at fault.

use std::time::Duration;

use storage_core::{Error, Result};

use super::{Answer, Committer, Shared, Work};

/// How often a group is begun anew because others were in its way.
const ATTEMPTS: u32 = 12;

/// Why a group was not written. Nothing of it was.
#[derive(Debug)]
pub enum Trouble {
    /// Others were in the way: it may go well the next time.
    Again(Error),
    /// Some work is at fault, or some write: it has to be found out which.
    Split(Error),
    /// For all of them.
    Failed(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// What of a group was written: an answer for each work.
pub type Written = std::result::Result<Vec<Result<Answer>>, Trouble>;

/// A store whose writers share transactions.
pub trait Group: Shared {
    /// All who write.
    fn committer(&self) -> &Committer {
        &self.common().committer
    }

    /// How long a transaction may take.
    fn limit(&self) -> Duration {
        self.common().timeout
    }

    /// Does all works in one transaction, each as a whole or not at all. `exactly`: write by write, so that an error names its write.
    fn once(&self, works: &[&Work], exactly: bool) -> impl Future<Output = Written> + Send;
}

/// Does all works, each as a whole or not at all.
pub(super) async fn together<G: Group>(group: &G, works: &[Work]) -> Vec<Result<Answer>> {
    let all: Vec<&Work> = works.iter().collect();
    let error = match attempts(group, &all, false).await {
        Ok(answers) => return answers,
        Err(Trouble::Split(_)) => {
            let mut answers = Vec::with_capacity(works.len());
            for work in works {
                answers.push(alone(group, work, works.len() > 1).await);
            }
            return answers;
        }
        Err(Trouble::Failed(error) | Trouble::Again(error)) => error,
    };
    works.iter().map(|_| Err(error.duplicate())).collect()
}

async fn alone<G: Group>(group: &G, work: &Work, quickly: bool) -> Result<Answer> {
    for exactly in [false, true] {
        if !exactly && !quickly {
            continue;
        }
        match attempts(group, &[work], exactly).await {
            Ok(answers) => return answers.into_iter().next().unwrap_or_else(|| Err(Error::internal("a work without an answer"))),
            Err(Trouble::Split(_)) if !exactly => {}
            Err(Trouble::Split(error) | Trouble::Failed(error) | Trouble::Again(error)) => return Err(error),
        }
    }
    Err(Error::internal("a work could not be taken apart"))
}

async fn attempts<G: Group>(group: &G, works: &[&Work], exactly: bool) -> Written {
    let limit = group.limit();
    let begun = tokio::time::Instant::now();
    for attempt in 1.. {
        let outcome = tokio::time::timeout(limit, group.once(works, exactly)).await;
        let late = || Trouble::Failed(Error::timeout(format!("no answer within {limit:?}; whether it was written is not known")));
        match outcome.map_err(|_| late())? {
            Err(Trouble::Again(_)) if attempt < ATTEMPTS && begun.elapsed() < limit / 2 => {
                // Others need a moment; not all the same one.
                let spread = u64::from(attempt) * (1 + u64::from(chrono::Utc::now().timestamp_subsec_micros() % 3));
                tokio::time::sleep(Duration::from_millis(spread)).await;
            }
            Err(Trouble::Again(error)) => return Err(Trouble::Failed(error)),
            outcome => return outcome,
        }
    }
    Err(Trouble::Failed(Error::internal("attempts without an end")))
}
