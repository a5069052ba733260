//! Records and queues on PostgreSQL.

mod apply;
mod bind;
mod catalog;
mod changes;
mod claim;
mod commit;
mod config;
mod connection;
mod error;
mod handle;
mod history;
mod layout;
mod maintenance;
mod messages;
mod news;
mod plan;
mod pool;
mod queue;
mod queues;
mod read;
mod receipts;
mod records;
mod row;
mod shared;
mod statements;
mod store;
mod tables;
mod time;
mod tls;
mod write;

pub use config::PostgresDriver;
pub use queue::PostgresQueue;
pub use records::PostgresRecords;
pub use store::PostgresStore;
