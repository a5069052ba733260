//! A group of works in one transaction: what they need is locked and read in one trip, and what comes of it is written and committed in a second.
//!
//! Preconditions are decided here, under the locks, so that one work's failure undoes no other. What the database alone can say (a unique value that is
//! taken) fails the transaction: then each work goes by itself, and where that fails too, write by write, to know which one it was.

use std::time::Duration;

use storage_core::{Error, ErrorKind, Result, Sent, Version};

use crate::apply::{Outcome, apply};
use crate::changes::{self, Failure, Lines};
use crate::commit::{Answer, Work};
use crate::connection::Connection;
use crate::error::{explain, is_about_schema, is_collision, is_taken_key, unique_violation};
use crate::messages;
use crate::plan::Plan;
use crate::shared::Shared;

/// How often a group is begun anew because others were in its way.
const ATTEMPTS: u32 = 12;

/// Why a group was not written. Nothing of it was.
pub(crate) enum Trouble {
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

/// Does all works, each as a whole or not at all.
pub(crate) async fn together(shared: &Shared, works: &[Work]) -> Vec<Result<Answer>> {
    let all: Vec<&Work> = works.iter().collect();
    let error = match attempts(shared, &all, false).await {
        Ok(answers) => return answers,
        Err(Trouble::Split(_)) => {
            let mut answers = Vec::with_capacity(works.len());
            for work in works {
                answers.push(alone(shared, work, works.len() > 1).await);
            }
            return answers;
        }
        Err(Trouble::Failed(error) | Trouble::Again(error)) => error,
    };
    works.iter().map(|_| Err(error.duplicate())).collect()
}

async fn alone(shared: &Shared, work: &Work, quickly: bool) -> Result<Answer> {
    for exactly in [false, true] {
        if !exactly && !quickly {
            continue;
        }
        match attempts(shared, &[work], exactly).await {
            Ok(answers) => return answers.into_iter().next().unwrap_or_else(|| Err(Error::internal("a work without an answer"))),
            Err(Trouble::Split(_)) if !exactly => {}
            Err(Trouble::Split(error) | Trouble::Failed(error) | Trouble::Again(error)) => return Err(error),
        }
    }
    Err(Error::internal("a work could not be taken apart"))
}

async fn attempts(shared: &Shared, works: &[&Work], exactly: bool) -> std::result::Result<Vec<Result<Answer>>, Trouble> {
    let limit = shared.settings.timeout;
    let begun = tokio::time::Instant::now();
    for attempt in 1.. {
        let outcome = tokio::time::timeout(limit, once(shared, works, exactly)).await;
        let late = || Trouble::Failed(Error::timeout(format!("no answer within {limit:?}; whether it was written is not known")));
        match outcome.map_err(|_| late())? {
            Err(Trouble::Again(_)) if attempt < ATTEMPTS && begun.elapsed() < limit / 2 => {
                // Others need a moment; not all the same one.
                let spread = u64::from(attempt) * (1 + (shared.time.now().timestamp_micros().unsigned_abs() % 3));
                tokio::time::sleep(Duration::from_millis(spread)).await;
            }
            Err(Trouble::Again(error)) => return Err(Trouble::Failed(error)),
            outcome => return outcome,
        }
    }
    Err(Trouble::Failed(Error::internal("attempts without an end")))
}

async fn once(shared: &Shared, works: &[&Work], exactly: bool) -> std::result::Result<Vec<Result<Answer>>, Trouble> {
    let connection = shared.pool.get().await?;
    let outcome = transaction(shared, &connection, works, exactly).await;
    // A transaction that has failed is over, or is ended here.
    let ended = outcome.is_ok() || connection.batch("ROLLBACK").await.is_ok();
    if ended { connection.done(outcome) } else { outcome }
}

async fn transaction(
    shared: &Shared,
    connection: &Connection,
    works: &[&Work],
    exactly: bool,
) -> std::result::Result<Vec<Result<Answer>>, Trouble> {
    let catalog = shared.catalog.get(connection).await?;
    let plan = Plan::new(&catalog, works);
    let begun = match plan.begin(connection, &catalog, shared.time.now()).await {
        Ok(ground) => ground?,
        Err(error) => return Err(reading(shared, connection, catalog.generation, error).await),
    };
    let Some(mut ground) = begun else {
        end(connection, "ROLLBACK").await?;
        shared.catalog.reload(connection).await?;
        return Err(Trouble::Again(Error::conflict("the tables are being changed all the time: try again").with_retryable(true)));
    };
    match plan.hold_absences(connection, &shared.found.schema, &mut ground).await {
        Ok(held) => held?,
        Err(error) => return Err(reading(shared, connection, catalog.generation, error).await),
    }
    // Under the locks: later commits of a record have later times.
    let now = shared.time.now();
    let mut outcomes = apply(&catalog, works, &mut ground, now);
    if !exactly && outcomes.iter().any(Outcome::is_uncertain) {
        return Err(Trouble::Split(Error::internal("it is not clear which write failed")));
    }
    messages::remember(connection, &mut outcomes, now).await?;
    let lines = if exactly { Lines::one_by_one(&outcomes, &ground) } else { Lines::in_bulk(&outcomes, &ground) };
    let is_lost = outcomes.iter().all(|outcome| outcome.failed.is_some());
    let ends_with =
        if is_lost || lines.is_empty() && outcomes.iter().all(|o| o.messages.is_empty()) { "ROLLBACK" } else { "COMMIT" };
    if !is_lost || exactly {
        changes::write(connection, &shared.found.schema, &lines, &outcomes, now, ends_with)
            .await
            .map_err(|failure| refused(failure, &lines, exactly))?;
    } else {
        end(connection, "ROLLBACK").await?;
    }
    shared.news.announce_sent(&outcomes);
    Ok(outcomes.into_iter().zip(works).map(|(outcome, work)| answer(outcome, work)).collect())
}

async fn end(connection: &Connection, how: &'static str) -> std::result::Result<(), Trouble> {
    connection.batch(how).await.map_err(|error| Trouble::Failed(explain(error)))
}

/// What went wrong before anything was written.
async fn reading(shared: &Shared, connection: &Connection, generation: i64, error: tokio_postgres::Error) -> Trouble {
    if is_collision(&error) {
        return Trouble::Again(explain(error));
    }
    if is_about_schema(&error) {
        connection.forget_statements();
        if connection.batch("ROLLBACK").await.is_ok()
            && let Ok(catalog) = shared.catalog.reload(connection).await
            && catalog.generation != generation
        {
            return Trouble::Again(explain(error));
        }
    }
    // A connection that had ended without anybody noticing, after a restart of the server for one: nothing was written.
    let has_ended = error.as_db_error().is_none_or(|db| db.code().code().starts_with("57P"));
    let error = explain(error);
    if has_ended && error.kind() == ErrorKind::Unavailable { Trouble::Again(error) } else { Trouble::Failed(error) }
}

/// What went wrong when writing: the transaction is undone.
fn refused(failure: Failure, lines: &Lines<'_>, exactly: bool) -> Trouble {
    let (place, error) = match failure {
        Failure::At(place, error) => (place, error),
        Failure::Before(error) => return Trouble::Failed(error),
    };
    if is_collision(&error) {
        return Trouble::Again(explain(error));
    }
    let line = lines.get(place);
    if line.is_some_and(|line| is_taken_key(&error, line.table_name())) {
        return Trouble::Again(
            Error::conflict("the record is being written by others all the time: try again").with_retryable(true),
        );
    }
    let is_fault = error.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.code().starts_with(class)));
    let explained = line.and_then(|line| unique_violation(&error, line.table())).unwrap_or_else(|| explain(error));
    match line {
        Some(_) if is_fault && !exactly => Trouble::Split(explained),
        Some(line) if is_fault => {
            Trouble::Failed(explained.with_failed_write(line.write()).with_subject(format_args!("table `{}`", line.table())))
        }
        _ => Trouble::Failed(explained),
    }
}

fn answer(outcome: Outcome<'_>, work: &Work) -> Result<Answer> {
    if let Some(error) = outcome.failed {
        return Err(error);
    }
    let sent = outcome
        .messages
        .iter()
        .map(|m| Sent { id: messages::id_of(m.duplicate_of.unwrap_or(m.id)), duplicate: m.duplicate_of.is_some() });
    Ok(match work {
        Work::Send(..) => Answer::Sent(sent.collect()),
        Work::Batch(_) => Answer::Versions(outcome.versions),
    })
}

/// The versions in an answer.
pub(crate) fn versions(answer: Answer) -> Result<Vec<Version>> {
    match answer {
        Answer::Versions(versions) => Ok(versions),
        Answer::Sent(_) => Err(Error::internal("a batch was answered as a sending")),
    }
}
