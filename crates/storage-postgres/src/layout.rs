//! The tables of the toolkit's own.

use storage_core::{Error, Result};
use tokio_postgres::error::SqlState;

use crate::config::Settings;
use crate::connection::Connection;
use crate::error::OrExplain as _;

/// The version of the tables below.
const LAYOUT: i64 = 1;
/// Who makes tables or changes them holds this advisory lock until the end of the transaction.
pub(crate) const CHANGE_LOCK: &str = "SELECT pg_advisory_xact_lock(83911608, hashtext(coalesce(current_schema(), '')))";

const TABLES: &str = r#"
CREATE TABLE _storage_meta (name text COLLATE "C" PRIMARY KEY, value bigint NOT NULL);
COMMENT ON TABLE _storage_meta IS 'storage toolkit: numbers of its own. layout: version of the _storage tables; generation: grows with every change of a table';
CREATE TABLE _storage_tables (name text COLLATE "C" PRIMARY KEY, schema jsonb NOT NULL);
CREATE UNIQUE INDEX _storage_tables_by_lower_name ON _storage_tables (lower(name));
COMMENT ON TABLE _storage_tables IS 'storage toolkit: the tables of records, and their schemas';
CREATE TABLE _storage_history (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_name text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    version bigint NOT NULL,
    updated_at timestamptz NOT NULL,
    expires_at timestamptz,
    fields jsonb NOT NULL
);
CREATE INDEX _storage_history_by_key ON _storage_history (table_name, key, seq);
COMMENT ON TABLE _storage_history IS 'storage toolkit: versions of records, of tables that keep them';
COMMENT ON COLUMN _storage_history.key IS 'the key as JSON: a text, a number, or an array of partition and id';
CREATE TABLE _storage_queues (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE,
    max_deliveries bigint,
    dedup_window bigint NOT NULL
);
COMMENT ON TABLE _storage_queues IS 'storage toolkit: queues';
COMMENT ON COLUMN _storage_queues.max_deliveries IS 'after so many deliveries a message is a dead letter; null: never';
COMMENT ON COLUMN _storage_queues.dedup_window IS 'how long a dedup id is remembered, in microseconds';
CREATE SEQUENCE _storage_message_ids;
CREATE TABLE _storage_messages (
    id bigint PRIMARY KEY DEFAULT nextval('_storage_message_ids'),
    lane bigint NOT NULL,
    priority smallint NOT NULL,
    state smallint NOT NULL,
    deliveries integer NOT NULL,
    lease bigint NOT NULL,
    visible_at timestamptz NOT NULL,
    enqueued_at timestamptz NOT NULL,
    expires_at timestamptz,
    content_type text COLLATE "C",
    attributes jsonb,
    body bytea NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
ALTER SEQUENCE _storage_message_ids OWNED BY _storage_messages.id;
CREATE INDEX _storage_messages_ready ON _storage_messages (lane, priority DESC, id) WHERE state = 0;
CREATE INDEX _storage_messages_waiting ON _storage_messages (lane, visible_at) WHERE state > 0;
CREATE INDEX _storage_messages_expiring ON _storage_messages (lane, expires_at) WHERE state = 0 AND expires_at IS NOT NULL;
COMMENT ON TABLE _storage_messages IS 'storage toolkit: messages of all queues';
COMMENT ON COLUMN _storage_messages.lane IS '2 * queue, or for its dead letters 2 * queue + 1';
COMMENT ON COLUMN _storage_messages.state IS '0: can be received; 1: leased, or given back with a delay; 2: sent with a delay';
COMMENT ON COLUMN _storage_messages.lease IS 'the mark of the newest lease, which its receipt holds; 0: never leased';
COMMENT ON COLUMN _storage_messages.visible_at IS 'when it can be received (again)';
COMMENT ON COLUMN _storage_messages.expires_at IS 'when it becomes a dead letter';
CREATE TABLE _storage_dedup (
    queue bigint NOT NULL,
    dedup_id text COLLATE "C" NOT NULL,
    message bigint NOT NULL,
    until timestamptz NOT NULL,
    PRIMARY KEY (queue, dedup_id)
);
CREATE INDEX _storage_dedup_by_end ON _storage_dedup (until);
COMMENT ON TABLE _storage_dedup IS 'storage toolkit: dedup ids of messages, and until when they are remembered';
INSERT INTO _storage_meta (name, value) VALUES ('layout', 1), ('generation', 1);
"#;

/// What is known of a server and its database.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The schema that tables are in.
    pub(crate) schema: String,
    /// True where what was committed is safe from a power cut.
    pub(crate) durable: bool,
}

/// Looks at the server, and makes the tables where they are missing and may be made.
pub(crate) async fn ensure(connection: &Connection, settings: &Settings) -> Result<Found> {
    let select = "SELECT current_schema()::text, current_setting('server_encoding'), current_setting('fsync') = 'on' AND \
                  current_setting('full_page_writes') = 'on' AND current_setting('synchronous_commit') <> 'off', \
                  current_setting('server_version_num')::integer";
    let row = connection.row(select, Vec::new()).await?;
    let (schema, encoding, durable): (Option<String>, String, bool) = (row.get(0), row.get(1), row.get(2));
    if row.get::<_, i32>(3) < 130_000 {
        return Err(Error::unsupported("the server is older than PostgreSQL 13"));
    }
    if encoding != "UTF8" {
        return Err(Error::config(format!("the database has the encoding {encoding}: create it with UTF8")));
    }
    let there = version(connection).await?;
    match there {
        Some(LAYOUT) => {}
        Some(newer) => {
            return Err(Error::unsupported(format!(
                "the tables were made by a later version of this program (layout {newer}, this one knows {LAYOUT}): update the program"
            )));
        }
        None if settings.auto_create => make(connection, settings).await?,
        None => return Err(Error::not_found("the database holds no tables of this toolkit, and auto_create is off")),
    }
    let schema = match schema {
        Some(schema) => schema,
        None => connection.row("SELECT current_schema()::text", Vec::new()).await?.try_get(0).or_explain()?,
    };
    Ok(Found { schema, durable })
}

async fn version(connection: &Connection) -> Result<Option<i64>> {
    match connection.query("SELECT value FROM _storage_meta WHERE name = 'layout'", Vec::new()).await {
        Ok(rows) => rows.first().map(|row| row.try_get(0).or_explain()).transpose(),
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(None),
        Err(error) => Err(error).or_explain(),
    }
}

async fn make(connection: &Connection, settings: &Settings) -> Result<()> {
    let made = async {
        connection.batch("BEGIN").await.or_explain()?;
        connection.batch(CHANGE_LOCK).await.or_explain()?;
        if let Some(schema) = &settings.schema {
            // Asked for by name first: `IF NOT EXISTS` wants the right to create even where it is there.
            let there = connection
                .row("SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)", vec![schema.as_str().into()])
                .await?;
            if !there.get::<_, bool>(0) {
                let create = format!("CREATE SCHEMA {}", storage_sql::Dialect::Postgres.quote(schema));
                connection.batch(&create).await.or_explain()?;
            }
        }
        // Somebody else may have been quicker.
        let there: Option<String> =
            connection.row("SELECT to_regclass('_storage_meta')::text", Vec::new()).await?.try_get(0).or_explain()?;
        if there.is_none() {
            connection.batch(TABLES).await.or_explain()?;
        }
        connection.batch("COMMIT").await.or_explain()
    };
    let made = made.await;
    if made.is_err() {
        // Where that fails too, the connection is gone.
        let _ = connection.batch("ROLLBACK").await;
    }
    made
}
