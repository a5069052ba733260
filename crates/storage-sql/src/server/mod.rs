//! What the backends on a database server share: the catalog of tables, callers that share transactions, queues, and how an open store lives.
//!
//! There is no driver in here either. A backend reads records by what its [`Reader`] asks the server. To write, it reads what a [`Plan`] needs, under locks, lets
//! [`apply`] decide every work, and writes the [`Line`]s and messages that come of it; [`commit`] brings callers together, tries again and takes apart. Where a
//! table's statements come from is the backend's: [`Statements`].

mod add;
mod apply;
mod catalog;
mod commit;
mod common;
mod group;
mod handle;
mod history;
mod lanes;
mod limits;
mod lines;
mod maintenance;
mod message;
mod plan;
mod queue;
mod read;
mod receipt;
mod replica;
mod time;

pub use add::{Additions, Luck};
pub use apply::{Change, Outcome, Outgoing, answer, apply, kept, limits, sent};
pub use catalog::{Catalog, Entry, SharedCatalog, Statements, is_same};
pub use commit::{Answer, Committer, Work, commit};
pub use common::Common;
use group::together;
pub use group::{Group, Trouble, Written};
pub use handle::{Handle, Shared, Users};
pub use history::{history_fields, history_key, history_version, keeps_history};
pub use lanes::{Lanes, news};
pub use limits::{
    CONNECT_TIMEOUT, ROOT_CERTIFICATES, check_connect_timeout, check_pool_size, check_root_certificates, check_timeout, late,
    option,
};
pub use lines::{Kind, Line, in_bulk, one_by_one};
pub use maintenance::{Maintained, maintain};
pub use message::{dedup_ids, message_id, micros, read_attributes, read_message, read_stats, write_attributes};
pub use plan::{Ground, Known, Need, Place, Plan};
pub use queue::{DELAYED, KnownQueues, Queue, READY, home, read_queue};
pub use read::{Answered, Count, Fault, Get, Question, Reader, Scan, Versions, read};
pub use receipt::{Deletion, Lease, lease_lost, new_lease, parse_receipt, receipt_for};
pub use replica::{Standing, read_replica};
pub use time::{Time, until};
