//! Records on Azure Table Storage.
//!
//! ```no_run
//! use std::sync::Arc;
//! use serde_json::json;
//! use storage_core::{DriverConfig, KeyType, RecordStore, TableSchema, fields};
//! use storage_table_azure::AzureTables;
//!
//! # async fn example() -> storage_core::Result<()> {
//! let config = DriverConfig::from_url("azure-table://acme?identity=managed");
//! let records = RecordStore::new(Arc::new(AzureTables::open(&config)?));
//! let orders = "orders".parse()?;
//! records.create_table(&TableSchema::builder("orders").partition("customer", KeyType::Text).keep_undeclared().build()?).await?;
//! records.insert(&orders, ("acme", "17"), fields(json!({"cents": 1990}))).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # What is where
//!
//! A table is a table of the account, a record an entity, a field a property: a plain client reads them.
//!
//! | here | there |
//! |---|---|
//! | a key of two parts | `PartitionKey`, `RowKey` |
//! | a key of one part | `PartitionKey`; `RowKey` is empty, so that records spread over the service's servers |
//! | text; JSON as text | `Edm.String` |
//! | integer, real, boolean | `Edm.Int64`, `Edm.Double`, `Edm.Boolean` |
//! | timestamp, bytes | `Edm.DateTime`, `Edm.Binary` |
//! | version, time of the write, expiry | `_version`, `_updated`, `_expires` |
//!
//! Names and keys that the service does not take are escaped, the rest stays: `where-to` is the property `where_x002D_to`, the key `a/b` is `a.~2fb`, the key 7
//! is `0000000000000000007`. Keys keep their order. One that is longer than 512 characters so is refused. Text over 32,000 characters and bytes over
//! 60,000 go on in `name_x0000_2`, `name_x0000_3`…, and `_split` says how long they are together. What no property can hold is in `_rest`, as a JSON object: values of
//! undeclared fields that are lists, objects or integers beyond 64 bits, timestamps before 1601, columns beyond the 200th, fields beyond the 225th.
//!
//! The schemas are in a table of their own, `storagecatalogue`. A table of the account that is not there, and has entities, is left alone.
//!
//! # What it promises
//!
//! - **Writes** read, decide, and write on condition that the ETags are still the same; where they are not, they begin anew, 200 times at most. So versions grow by
//!   one, and no update is lost. Inserts, and batches of puts, are tried first without reading.
//! - **A batch** holds up to 100 writes of one partition, and is one entity group transaction. That a record is unchanged is checked by a merge of nothing, which
//!   changes its ETag and not its version; that there is none, by an entity that has expired already, and is removed afterwards.
//! - **A write whose answer is lost** ([`Timeout`](storage_core::ErrorKind::Timeout), [`Unavailable`](storage_core::ErrorKind::Unavailable)) may have happened: read the
//!   record before trying again. It is not repeated here.
//! - **Filters**: the service compares keys and declared columns, 11 comparisons at most; whatever it answers is held against the filter again. Nothing is
//!   indexed but the key: a filter that does not name the partition looks through the table, in the service.
//! - **Order**: by key, a page reads what it holds. In another order all that matches is read for each page, and a page held.
//! - **Expiry** is by the clocks of the machines that read and write, which should agree. Expired records are absent at once, and stay until a sweep or
//!   the next write removes them.
//! - **Other programs** may read all of it. One that writes should add one to `_version`: it is all that a version precondition looks at. An entity without it has version 1.
//! - **Changes of a table** rewrite nothing: an entity says after how many of them it was written (`_generation`), and is changed as it is read. Filters on a column that was
//!   added, renamed or dropped once are decided here from then on. What a table is like is believed for 10 seconds: so long may another process go by what it was.
//! - **Not here**: unique columns, history, messages within a batch, backups.
//!
//! The service removes a table in the background: for about a minute one of the same name can't be created, which is
//! [`Unavailable`](storage_core::ErrorKind::Unavailable).

mod batch;
mod catalogue;
mod client;
mod commit;
mod config;
mod entity;
mod error;
mod keys;
mod names;
mod odata;
mod read;
mod records;
mod store;
mod table;

pub use config::AzureTableDriver;
pub use records::AzureTables;
