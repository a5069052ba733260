//! A group of works in one transaction: what they need is locked and read, and what comes of it is written and committed.
//!
//! Preconditions are decided here, under the locks, so that one work's failure undoes no other. What the database alone can say (a unique value that is
//! taken) fails the transaction: then each work goes by itself, and where that fails too, write by write, to know which one it was.

use storage_core::{Error, ErrorKind, TableName};
use storage_sql::server::{Trouble, Work, Written, answer, apply, in_bulk, news, one_by_one};

use crate::changes::{self, Failure, Line, Outcome};
use crate::connection::Connection;
use crate::error::{explain, is_about_schema, is_collision, is_ended, is_fault, is_taken_key, unique_violation};
use crate::plan::Plan;
use crate::shared::Shared;
use crate::{catalog, messages, plan as planning};

/// Does all works in one transaction.
pub(crate) async fn once(shared: &Shared, works: &[&Work], exactly: bool) -> Written {
    let connection = shared.pool.get().await?;
    let outcome = transaction(shared, &connection, works, exactly).await;
    if connection.has_ended() {
        shared.pool.lost_one();
        return outcome;
    }
    // A transaction that has failed is over, or is ended here.
    let ended = outcome.is_ok() || connection.batch("ROLLBACK").await.is_ok();
    if ended { connection.done(outcome) } else { outcome }
}

async fn transaction(shared: &Shared, connection: &Connection, works: &[&Work], exactly: bool) -> Written {
    let tables = shared.still(connection, tables_of(works)).await?;
    let plan = Plan::new(&tables, works);
    let reading = async |error| reading(shared, connection, tables.generation, error).await;
    let generation = match connection.begin().await {
        Ok(generation) => generation?,
        Err(error) => return Err(reading(error).await),
    };
    if !tables.is_current(generation) {
        end(connection, "ROLLBACK").await?;
        catalog::reload(&shared.catalog, connection).await?;
        let error = Error::conflict("the tables are being changed all the time: try again").with_retryable(true);
        return Err(Trouble::Again(error));
    }
    let mut ground = match planning::lock(&plan, connection, shared.time.now()).await {
        Ok(ground) => ground?,
        Err(error) => return Err(reading(error).await),
    };
    match planning::hold_absences(&plan, connection, &mut ground).await {
        Ok(held) => held?,
        Err(error) => return Err(reading(error).await),
    }
    // Under the locks: later commits of a record have later times.
    let now = shared.time.now();
    let mut outcomes = apply(&tables, works, &mut ground, now);
    if !exactly && outcomes.iter().any(Outcome::is_uncertain) {
        return Err(Trouble::Split(Error::internal("it is not clear which write failed")));
    }
    match messages::remember(connection, &mut outcomes, now).await {
        Ok(done) => done?,
        Err(error) => return Err(reading(error).await),
    }
    let lines = if exactly { one_by_one(&outcomes, &ground) } else { in_bulk(&outcomes, &ground) };
    let is_lost = outcomes.iter().all(|outcome: &Outcome<'_>| outcome.failed.is_some());
    let is_nothing = lines.is_empty() && outcomes.iter().all(|outcome| outcome.messages.is_empty());
    let mut numbers = messages::Numbers::default();
    if !is_lost || exactly {
        let written = changes::write(connection, &shared.found, &lines, &outcomes, now).await;
        numbers = written.map_err(|failure| refused(failure, &lines, exactly))?;
    }
    drop(lines);
    messages::number(&mut outcomes, &numbers);
    end(connection, if is_lost || is_nothing { "ROLLBACK" } else { "COMMIT" }).await?;
    news(&outcomes).for_each(|(lane, count)| shared.lanes.wake(lane, count));
    Ok(outcomes.into_iter().zip(works).map(|(outcome, work)| answer(outcome, work)).collect())
}

/// Which tables are spoken of.
fn tables_of<'w>(works: &[&'w Work]) -> Vec<&'w TableName> {
    let batches = works.iter().filter_map(|work| match work {
        Work::Batch(writes) => Some(writes),
        Work::Send(..) => None,
    });
    batches.flatten().filter_map(|write| write.target().map(|(table, _)| table)).collect()
}

/// Whether a commit whose answer is lost was done is not known: it is not tried again.
async fn end(connection: &Connection, how: &'static str) -> Result<(), Trouble> {
    connection.batch(how).await.map_err(|error| {
        let again = is_collision(&error);
        let error = explain(error);
        if again { Trouble::Again(error) } else { Trouble::Failed(error) }
    })
}

/// What went wrong before anything was written.
async fn reading(shared: &Shared, connection: &Connection, generation: i64, error: mysql_async::Error) -> Trouble {
    if is_collision(&error) {
        return Trouble::Again(explain(error));
    }
    if is_about_schema(&error)
        && connection.batch("ROLLBACK").await.is_ok()
        && let Ok(tables) = catalog::reload(&shared.catalog, connection).await
        && tables.generation != generation
    {
        return Trouble::Again(explain(error));
    }
    lost_or_failed(error)
}

/// Nothing was committed: on an ended connection it may be tried again on another.
fn lost_or_failed(error: mysql_async::Error) -> Trouble {
    let has_ended = is_ended(&error);
    let error = explain(error);
    if has_ended && error.kind() == ErrorKind::Unavailable { Trouble::Again(error) } else { Trouble::Failed(error) }
}

/// What went wrong when writing: the transaction is undone.
fn refused(failure: Failure, lines: &[Line<'_>], exactly: bool) -> Trouble {
    let (line, error) = match failure {
        Failure::At(place, error) => (lines.get(place), error),
        Failure::Elsewhere(error) => (None, error),
        Failure::Before(error) => return Trouble::Failed(error),
    };
    if is_collision(&error) {
        return Trouble::Again(explain(error));
    }
    let is_fault = is_fault(&error);
    if is_ended(&error) && !is_fault {
        return lost_or_failed(error);
    }
    if line.is_some() && is_taken_key(&error) {
        return Trouble::Again(
            Error::conflict("the record is being written by others all the time: try again").with_retryable(true),
        );
    }
    let explained = line.and_then(|line| unique_violation(&error, line.table)).unwrap_or_else(|| explain(error));
    match line {
        _ if is_fault && !exactly => Trouble::Split(explained),
        Some(line) if is_fault => {
            Trouble::Failed(explained.with_failed_write(line.write).with_subject(format_args!("table `{}`", line.table)))
        }
        _ => Trouble::Failed(explained),
    }
}
