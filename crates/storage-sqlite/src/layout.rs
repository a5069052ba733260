//! The tables of the toolkit's own.
//!
//! Times in them are whole microseconds since 1970 where they are compared all the time (messages), canonical text elsewhere. To look at a
//! queue in the `sqlite3` shell: `SELECT *, datetime(visible_at / 1e6, 'unixepoch') FROM _storage_messages`.

use rusqlite::{Connection, OptionalExtension as _};
use storage_core::{Error, Result};

use crate::connection::run;
use crate::error::{OrExplain, SqlResult};

/// The version of the tables below.
const LAYOUT: i64 = 2;
/// From layout 1, in which 1 was delayed and 2 was leased.
const FROM_1: &str = "UPDATE _storage_messages SET state = 3 - state WHERE state > 0;
                      UPDATE _storage_meta SET value = 2 WHERE name = 'layout';";
/// Marks a file as ours, for `file` and the like: "stor".
const APPLICATION_ID: i32 = 0x7374_6f72;

const TABLES: &str = r#"
CREATE TABLE _storage_meta (
    name TEXT NOT NULL PRIMARY KEY,
    value ANY
) STRICT;
CREATE TABLE _storage_tables (
    name TEXT NOT NULL COLLATE NOCASE PRIMARY KEY,
    schema TEXT NOT NULL
) STRICT;
CREATE TABLE _storage_history (
    seq INTEGER PRIMARY KEY,
    table_name TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    updated_at TEXT NOT NULL,
    expires_at TEXT,
    fields TEXT NOT NULL
) STRICT;
CREATE INDEX _storage_history_by_key ON _storage_history (table_name, key);
CREATE TABLE _storage_queues (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    max_deliveries INTEGER,
    dedup_window INTEGER NOT NULL
) STRICT;
-- lane: 2 * queue, or for its dead letters 2 * queue + 1. state: 0 ready, 1 leased, 2 delayed.
-- What changes while a message waits comes first: of a long body nothing is touched.
CREATE TABLE _storage_messages (
    id INTEGER PRIMARY KEY,
    lane INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    state INTEGER NOT NULL,
    visible_at INTEGER NOT NULL,
    lease INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    enqueued_at INTEGER NOT NULL,
    expires_at INTEGER,
    content_type TEXT,
    attributes TEXT,
    body BLOB NOT NULL
) STRICT;
CREATE INDEX _storage_messages_ready ON _storage_messages (lane, priority DESC, id) WHERE state = 0;
CREATE INDEX _storage_messages_waiting ON _storage_messages (lane, visible_at) WHERE state > 0;
CREATE INDEX _storage_messages_expiring ON _storage_messages (lane, expires_at) WHERE state = 0 AND expires_at IS NOT NULL;
CREATE TABLE _storage_dedup (
    queue INTEGER NOT NULL,
    dedup_id TEXT NOT NULL,
    message INTEGER NOT NULL,
    until INTEGER NOT NULL,
    PRIMARY KEY (queue, dedup_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX _storage_dedup_by_end ON _storage_dedup (until);
"#;

/// Makes the tables where they are missing, brings those of an earlier version up to this one, and refuses those of a later one.
pub(crate) fn ensure(connection: &Connection) -> Result<()> {
    if version(connection).or_explain()? == Some(LAYOUT) {
        return Ok(());
    }
    run(connection, "BEGIN IMMEDIATE").or_explain()?;
    let made = make(connection);
    // After a failed commit there may still be a transaction.
    let finished = made.and_then(|()| run(connection, "COMMIT").or_explain());
    if finished.is_err() && !connection.is_autocommit() {
        let _ = run(connection, "ROLLBACK");
    }
    finished
}

fn make(connection: &Connection) -> Result<()> {
    // Somebody else may have been quicker.
    if let Some(version) = version(connection).or_explain()? {
        return upgrade(connection, version);
    }
    let strangers: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0)).or_explain()?;
    let owner: i32 = connection.query_row("PRAGMA application_id", [], |row| row.get(0)).or_explain()?;
    if strangers == 0 && owner == 0 {
        connection.pragma_update(None, "application_id", APPLICATION_ID).or_explain()?;
    }
    connection.execute_batch(TABLES).or_explain()?;
    connection
        .execute("INSERT INTO _storage_meta (name, value) VALUES ('layout', ?1), ('next_message', 1)", [LAYOUT])
        .or_explain()?;
    Ok(())
}

fn version(connection: &Connection) -> SqlResult<Option<i64>> {
    let there: bool = connection.query_row(
        "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_storage_meta')",
        [],
        |row| row.get(0),
    )?;
    if !there {
        return Ok(None);
    }
    connection.query_row("SELECT value FROM _storage_meta WHERE name = 'layout'", [], |row| row.get(0)).optional()
}

fn upgrade(connection: &Connection, version: i64) -> Result<()> {
    if version == LAYOUT {
        return Ok(());
    }
    if version == 1 {
        return connection.execute_batch(FROM_1).or_explain();
    }
    Err(Error::unsupported(format!(
        "the database was written by a later version of this program (layout {version}, this one knows {LAYOUT}): update the program"
    )))
}
