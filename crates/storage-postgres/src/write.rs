//! A group of works in one transaction: what they need is locked and read in one trip, and what comes of it is written and committed in a second. Those that
//! only add take one trip, where all goes well.
//!
//! Preconditions are decided here, under the locks, so that one work's failure undoes no other. What the database alone can say (a unique value that is
//! taken) fails the transaction: then each work goes by itself, and where that fails too, write by write, to know which one it was.

use storage_core::{Error, ErrorKind};
use storage_sql::server::{Trouble, Work, Written, answer, apply, in_bulk, news, one_by_one};

use crate::changes::{self, Failure, Lines, Outcome};
use crate::connection::Connection;
use crate::error::{explain, is_about_schema, is_collision, is_goodbye, is_taken_key, unique_violation};
use crate::plan::Plan;
use crate::shared::Shared;
use crate::{add, catalog, messages, plan as planning};

/// Does all works in one transaction.
pub(crate) async fn once(shared: &Shared, works: &[&Work], exactly: bool) -> Written {
    let connection = shared.pool.get().await?;
    let outcome = transaction(shared, &connection, works, exactly).await;
    // A transaction that has failed is over, or is ended here.
    let ended = outcome.is_ok() || connection.batch("ROLLBACK").await.is_ok();
    if ended { connection.done(outcome) } else { outcome }
}

async fn transaction(shared: &Shared, connection: &Connection, works: &[&Work], exactly: bool) -> Written {
    let tables = catalog::get(&shared.catalog, connection).await?;
    if !exactly && let Some(written) = add::try_to(shared, connection, &tables, works).await {
        return written;
    }
    let plan = Plan::new(&tables, works);
    let begun = match planning::begin(&plan, connection, &tables, shared.time.now()).await {
        Ok(ground) => ground?,
        Err(error) => return Err(reading(shared, connection, tables.generation, error).await),
    };
    let Some(mut ground) = begun else {
        end(connection, "ROLLBACK").await?;
        catalog::reload(&shared.catalog, connection).await?;
        return Err(Trouble::Again(Error::conflict("the tables are being changed all the time: try again").with_retryable(true)));
    };
    for name in &plan.queues {
        match ground.queues.get(*name) {
            Some(queue) => drop(shared.queues.remember(name, *queue)),
            None => shared.queues.forget(name),
        }
    }
    match planning::hold_absences(&plan, connection, &shared.found.schema, &mut ground).await {
        Ok(held) => held?,
        Err(error) => return Err(reading(shared, connection, tables.generation, error).await),
    }
    // Under the locks: later commits of a record have later times.
    let now = shared.time.now();
    let mut outcomes = apply(&tables, works, &mut ground, now);
    if !exactly && outcomes.iter().any(Outcome::is_uncertain) {
        return Err(Trouble::Split(Error::internal("it is not clear which write failed")));
    }
    messages::remember(connection, &mut outcomes, now).await?;
    let lines = Lines(if exactly { one_by_one(&outcomes, &ground) } else { in_bulk(&outcomes, &ground) });
    let is_lost = outcomes.iter().all(|outcome: &Outcome<'_>| outcome.failed.is_some());
    let ends_with =
        if is_lost || lines.0.is_empty() && outcomes.iter().all(|o| o.messages.is_empty()) { "ROLLBACK" } else { "COMMIT" };
    if !is_lost || exactly {
        changes::write(connection, &shared.found.schema, &lines, &outcomes, now, ends_with)
            .await
            .map_err(|failure| refused(failure, &lines, exactly))?;
    } else {
        end(connection, "ROLLBACK").await?;
    }
    news(&outcomes).for_each(|(lane, count)| shared.news.announce(lane, count));
    Ok(outcomes.into_iter().zip(works).map(|(outcome, work)| answer(outcome, work)).collect())
}

async fn end(connection: &Connection, how: &'static str) -> Result<(), Trouble> {
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
            && let Ok(tables) = catalog::reload(&shared.catalog, connection).await
            && tables.generation != generation
        {
            return Trouble::Again(explain(error));
        }
    }
    // A connection that had ended without anybody noticing, after a restart of the server for one: nothing was written.
    let has_ended = error.as_db_error().is_none() || is_goodbye(&error);
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
    if line.is_some_and(|line| is_taken_key(&error, line.entry.table.name())) {
        return Trouble::Again(
            Error::conflict("the record is being written by others all the time: try again").with_retryable(true),
        );
    }
    let is_fault = error.code().is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.code().starts_with(class)));
    let explained = line.and_then(|line| unique_violation(&error, line.table)).unwrap_or_else(|| explain(error));
    match line {
        Some(_) if is_fault && !exactly => Trouble::Split(explained),
        Some(line) if is_fault => {
            Trouble::Failed(explained.with_failed_write(line.write).with_subject(format_args!("table `{}`", line.table)))
        }
        _ => Trouble::Failed(explained),
    }
}
