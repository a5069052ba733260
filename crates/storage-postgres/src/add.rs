//! The quick way of works that only add: written and committed in one trip, on the guess that the records are not there, and that tables and queues are as
//! they were last (many rows of one table take two more). The transaction itself holds the guess against what is there: a key that is taken, or a guard that divides by zero, undoes it all,
//! and the works go the way of all others, which finds out what each of them comes to.

use storage_core::Error;
use storage_sql::Dialect;
use storage_sql::row::values;
use storage_sql::server::{Additions, Kind, Luck, Trouble, Work, Written, answer, news};

use crate::bind::Param;
use crate::catalog::Catalog;
use crate::changes::{self, Failure, Line, Lines, Outcome};
use crate::connection::Connection;
use crate::error::{explain, is_collision, is_goodbye};
use crate::messages;
use crate::row::Row;
use crate::shared::Shared;

/// Fails unless the tables are those of generation $1. Behind what was written, which keeps them as they are.
const SAME_TABLES: &str = "SELECT 1 / coalesce((SELECT (value = $1)::integer FROM _storage_meta WHERE name = 'generation'), 0)";
/// Fails unless the queues $1 are there. Behind the messages, which keep them there.
const SAME_QUEUES: &str =
    "SELECT 1 / (SELECT (count(*) = cardinality($1::bigint[]))::integer FROM _storage_queues WHERE id = ANY ($1))";

/// From how many rows on they are copied in, in trips of their own.
const MANY: usize = 100;

/// Does the works, if they only add and all goes well. `None`: nothing was done.
pub(crate) async fn try_to(shared: &Shared, connection: &Connection, tables: &Catalog, works: &[&Work]) -> Option<Written> {
    let now = shared.time.now();
    let added = Additions::of(tables, &shared.queues, works, now)?;
    let (many, few) = split(added.lines()?);
    if !shared.luck.holds() {
        return None;
    }
    // One statement is a transaction by itself. It sends all, or, where there is no such queue any more, none.
    let alone = added.is_one_sending;
    let queues = || Param::integers(added.queues.iter().copied());
    let mut messages_at = None;
    let sent = async {
        let mut steps = changes::locks(connection, &shared.found.schema, &few).await?;
        let mut begin = if alone { "" } else { "BEGIN" };
        if !many.0.is_empty() {
            steps.extend(changes::locks(connection, &shared.found.schema, &many).await?);
            connection.pipeline(begin, std::mem::take(&mut steps), "").await.map_err(|(_, error)| error)?;
            begin = "";
            for line in &many.0 {
                copy(connection, line).await?;
            }
        }
        steps.extend(changes::rows(connection, &few, &added.outcomes).await?);
        if let Some((add, values)) = messages::additions(&added.outcomes, &added.queues, now)? {
            messages_at = Some(steps.len());
            steps.push((connection.prepare(&add.into()).await?, values));
            if !alone {
                steps.push((connection.prepare(&SAME_QUEUES.into()).await?, vec![queues()]));
            }
        }
        if !alone {
            steps.push((connection.prepare(&SAME_TABLES.into()).await?, vec![tables.generation.into()]));
        }
        Ok::<_, Failure>(connection.pipeline(begin, steps, if alone { "" } else { "COMMIT" }).await?)
    };
    let mut answers = match sent.await {
        Ok(answers) => answers,
        Err(failure) => {
            let failed = failed(&shared.luck, failure);
            if failed.is_none() && !many.0.is_empty() && connection.batch("ROLLBACK").await.is_err() {
                return Some(Err(Trouble::Again(Error::unavailable("the connection to the server was lost"))));
            }
            return failed;
        }
    };
    let ids = messages_at.and_then(|at| answers.get_mut(at)).map(std::mem::take).unwrap_or_default();
    let mut outcomes = added.outcomes;
    if let Err(error) = name(&mut outcomes, &ids) {
        return if alone && ids.is_empty() { None } else { Some(Err(Trouble::Failed(error))) };
    }
    news(&outcomes).for_each(|(lane, count)| shared.news.announce(lane, count));
    Some(Ok(outcomes.into_iter().zip(works).map(|(outcome, work)| answer(outcome, work)).collect()))
}

/// New rows of tables that get many of them, and the rest.
fn split(lines: Vec<Line<'_>>) -> (Lines<'_>, Lines<'_>) {
    let (many, few) = lines.into_iter().partition(|line| matches!(&line.kind, Kind::Insert(all) if all.len() >= MANY));
    (Lines(many), Lines(few))
}

/// Adds the rows of a line that inserts, at about half of what the statement for it costs the server. Their types are those of the table's own columns.
async fn copy(connection: &Connection, line: &Line<'_>) -> Result<(), Failure> {
    let Kind::Insert(records) = &line.kind else { return Ok(()) };
    let (sql, schema) = (&line.entry.sql, line.entry.schema());
    let like = connection.prepare(&sql.select_one).await?;
    let types: Vec<_> = like.columns().iter().map(|column| column.type_().clone()).collect();
    let mut rows = Vec::with_capacity(records.len());
    for record in records {
        rows.push(values(Dialect::Postgres, schema, record)?.into_iter().map(Param::One).collect());
    }
    Ok(connection.copy(&sql.copy, &types, rows).await?)
}

/// `None`: the server has undone it, or the transaction has failed, and the other way will tell why.
fn failed(luck: &Luck, failure: Failure) -> Option<Written> {
    let (place, error) = match failure {
        Failure::At(place, error) => (place, error),
        Failure::Before(error) => return Some(Err(Trouble::Failed(error))),
    };
    if place == changes::BEFORE && error.as_db_error().is_none() || is_collision(&error) || is_goodbye(&error) {
        return Some(Err(Trouble::Again(explain(error))));
    }
    if error.as_db_error().is_none() {
        return Some(Err(Trouble::Failed(explain(error))));
    }
    luck.left();
    None
}

/// Takes note of the messages' ids.
fn name(outcomes: &mut [Outcome<'_>], ids: &[Row]) -> storage_core::Result<()> {
    let mut ids = ids.iter();
    for outgoing in outcomes.iter_mut().flat_map(|outcome| &mut outcome.messages) {
        let id = ids.next().map(|found| storage_sql::row::integer(found, 0)).transpose()?.flatten();
        outgoing.id = id.ok_or_else(|| Error::internal("there are fewer ids than messages"))?;
    }
    Ok(())
}
