//! The tables of the toolkit's own.

use storage_core::{Error, Result};
use storage_sql::row;

use crate::config::{Settings, is_mariadb};
use crate::connection::Connection;
use crate::error::OrExplain as _;
use crate::tables;

/// The version of the tables below.
const LAYOUT: i64 = 1;

/// Each goes with the collation behind it.
const TABLES: [&str; 6] = [
    "CREATE TABLE IF NOT EXISTS _storage_meta (name varchar(63) PRIMARY KEY, value bigint NOT NULL)
     COMMENT='storage toolkit: numbers of its own. layout: version of the _storage tables; generation: grows with every change of a table'",
    "CREATE TABLE IF NOT EXISTS _storage_tables (
        name varchar(63) PRIMARY KEY,
        table_schema longtext NOT NULL COMMENT 'JSON',
        doing longtext COMMENT 'what somebody is just changing about the table, or has left half done; null: nothing'
     ) COMMENT='storage toolkit: the tables of records, and their schemas'",
    "CREATE TABLE IF NOT EXISTS _storage_history (
        seq bigint PRIMARY KEY AUTO_INCREMENT,
        table_name varchar(63) NOT NULL,
        key_hash bigint NOT NULL,
        record_key longtext NOT NULL COMMENT 'the key as JSON: a text, a number, or an array of partition and id',
        version bigint NOT NULL,
        updated_at datetime(6) NOT NULL,
        expires_at datetime(6),
        fields longtext NOT NULL COMMENT 'JSON',
        INDEX by_key (table_name, key_hash, seq),
        INDEX by_table (table_name, seq)
     ) COMMENT='storage toolkit: versions of records, of tables that keep them'",
    "CREATE TABLE IF NOT EXISTS _storage_queues (
        id bigint PRIMARY KEY AUTO_INCREMENT,
        name varchar(255) NOT NULL UNIQUE,
        max_deliveries bigint COMMENT 'after so many deliveries a message is a dead letter; null: never',
        dedup_window bigint NOT NULL COMMENT 'how long a dedup id is remembered, in microseconds'
     ) COMMENT='storage toolkit: queues'",
    "CREATE TABLE IF NOT EXISTS _storage_messages (
        id bigint PRIMARY KEY AUTO_INCREMENT,
        lane bigint NOT NULL COMMENT '2 * queue, or for its dead letters 2 * queue + 1',
        state tinyint NOT NULL COMMENT '0: can be received; 1: leased, or given back with a delay; 2: sent with a delay',
        place tinyint NOT NULL COMMENT 'the negative of its priority: smaller ones go first',
        deliveries bigint NOT NULL,
        lease bigint NOT NULL COMMENT 'the mark of the newest lease, which its receipt holds; 0: never leased',
        due_at datetime(6) COMMENT 'when time changes its state: it can be received (again), or in state 0 becomes a dead letter; null: never',
        enqueued_at datetime(6) NOT NULL,
        expires_at datetime(6) COMMENT 'when it becomes a dead letter, unless it is leased; null: never',
        content_type varchar(255),
        attributes longtext COMMENT 'JSON',
        body longblob NOT NULL,
        INDEX ready (lane, state, place, id),
        INDEX due (lane, state, due_at)
     ) COMMENT='storage toolkit: messages of all queues'",
    "CREATE TABLE IF NOT EXISTS _storage_dedup (
        queue bigint NOT NULL,
        dedup_id varchar(255) NOT NULL,
        message bigint NOT NULL,
        until datetime(6) NOT NULL,
        PRIMARY KEY (queue, dedup_id),
        INDEX by_end (until)
     ) COMMENT='storage toolkit: dedup ids of messages, and until when they are remembered'",
];

/// What is known of a server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// The collation that compares bytewise, trailing spaces too.
    pub(crate) collation: &'static str,
    /// True where what was committed is safe from a power cut.
    pub(crate) durable: bool,
    /// How many bytes a statement or a row may have.
    pub(crate) packet: usize,
    /// By how much the numbers of rows that are added together differ.
    pub(crate) step: i64,
}

impl Found {
    /// How many bytes a record or a message may have: what goes with it needs room too, and JSON is longer than what it says.
    pub(crate) fn largest(&self) -> usize {
        (self.packet - self.packet / 8).min(64 << 20)
    }
}

/// Looks at the server, and makes the tables where they are missing and may be made.
pub(crate) async fn ensure(connection: &Connection, settings: &Settings) -> Result<Found> {
    let found = look(connection).await?;
    match version(connection).await? {
        Some(LAYOUT) => {}
        Some(newer) => {
            return Err(Error::unsupported(format!(
                "the tables were made by a later version of this program (layout {newer}, this one knows {LAYOUT}): update the program"
            )));
        }
        None if settings.auto_create => tables::alone(connection, settings.timeout, make(connection, found)).await?,
        None => return Err(Error::not_found("the database holds no tables of this toolkit, and auto_create is off")),
    }
    Ok(found)
}

async fn look(connection: &Connection) -> Result<Found> {
    let select = "SELECT VERSION(), @@max_allowed_packet, @@innodb_flush_log_at_trx_commit = 1, @@auto_increment_increment";
    let row = connection.row(select, Vec::new()).await?;
    let version = row::text(&row, 0)?.unwrap_or_default();
    let mut numbers = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (oldest, collation) = if is_mariadb(&version) { ((10, 6), "utf8mb4_nopad_bin") } else { ((8, 0), "utf8mb4_0900_bin") };
    if (major, minor) < oldest {
        return Err(Error::unsupported(format!("the server ({version}) is older than MySQL 8.0 or MariaDB 10.6")));
    }
    let number = |column| Ok::<_, Error>(row::integer(&row, column)?.unwrap_or(0));
    Ok(Found {
        collation,
        durable: number(2)? == 1,
        packet: usize::try_from(number(1)?).unwrap_or(1 << 20),
        step: number(3)?.max(1),
    })
}

async fn version(connection: &Connection) -> Result<Option<i64>> {
    let there = "SELECT EXISTS (SELECT 1 FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = '_storage_meta')";
    if row::integer(&connection.row(there, Vec::new()).await?, 0)? != Some(1) {
        return Ok(None);
    }
    let rows = connection.query("SELECT value FROM _storage_meta WHERE name = 'layout'", Vec::new()).await.or_explain()?;
    Ok(rows.first().map(|found| row::integer(found, 0)).transpose()?.flatten())
}

/// Makes the tables. Each is kept by itself; the layout is noted last.
async fn make(connection: &Connection, found: Found) -> Result<()> {
    for table in TABLES {
        let create = format!("{table} ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE {}", found.collation);
        connection.batch(&create).await.or_explain()?;
    }
    let note = "INSERT IGNORE INTO _storage_meta (name, value) VALUES ('generation', 1), ('layout', 1)";
    connection.batch(note).await.or_explain()
}
