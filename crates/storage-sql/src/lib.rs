//! What the SQL backends share: [`TableSchema`](storage_core::TableSchema) as DDL, queries as SELECTs with bound values, values per column type.
//!
//! There is no driver in here. A [`Table`] knows its SQL by [`Dialect`]; what it yields is text and [`SqlValue`]s to bind, in order.
//! Text is rendered once per shape (which columns and operators) and kept: a hot path binds values and nothing more.
//!
//! ```
//! use storage_core::{ColumnType, Filter, Query, TableSchema};
//! use storage_sql::{Dialect, Table};
//!
//! let jobs = TableSchema::builder("jobs").column("status", ColumnType::Text).build()?;
//! let table = Table::new(Dialect::Sqlite, jobs.clone());
//! let query = Query::table("jobs")?.filter(Filter::eq("status", "ready")?).canonical(&jobs)?;
//! let scan = table.scan(&query, chrono::Utc::now())?;
//! assert!(scan.segments[0].sql.contains(r#""status" = ?"#));
//! # Ok::<(), storage_core::Error>(())
//! ```
//!
//! # How a table looks
//!
//! Key columns and declared columns keep their names; four columns more begin with `_`, which declared ones can't: `_version`,
//! `_updated_at`, `_expires_at` and `_extra` (fields outside the schema, as one JSON object). Every index but the unique ones ends with the
//! key columns, so that a page in index order needs no sorting.
//!
//! # What is exact
//!
//! Whatever is pushed down answers as [`Filter::matches`](storage_core::Filter::matches) does, to the last bit: numbers are normalized to the column's own kind before
//! they are bound (no database compares a 64-bit integer with a real the way we promise), text is compared bytewise and without LIKE,
//! and a negation is `IS NOT TRUE`, so that null is false and not a third thing. What can't be said so stays with the caller
//! ([`Scan::rest`]).

mod condition;
mod ddl;
mod dialect;
mod extra;
mod mysql;
pub mod row;
mod select;
pub mod server;
mod table;
mod time;
mod value;
mod write;

pub use dialect::Dialect;
pub use extra::{adopt_field, has_fields, is_a_field};
pub use row::SqlRow;
pub use select::{Scan, Statement};
pub use table::{EXPIRES_AT, EXTRA, Table, UPDATED_AT, VERSION};
pub use time::{parse_timestamp, timestamp};
pub use value::{SqlValue, decode, encode, encode_key_part, json_text};
pub use write::WriteSql;
