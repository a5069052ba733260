//! The comparison with the model finds faults: a memory backend that is wrong in one small way must not pass.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use storage_conformance::{Harness, Place, model};
use storage_core::{
    BackendInfo, Backends, Batch, Delivery, Driver as _, DriverConfig, Filter, Key, Message, MessageUpdate, NewMessage, Page,
    Query, QueueBackend, QueueCapabilities, QueueName, QueueSpec, QueueStats, Receipt, Receive, Record, RecordBackend,
    RecordCapabilities, Result, SchemaChange, Sent, TableName, TableSchema, Version, Write,
};
use storage_memory::MemoryDriver;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// `count` knows nothing of filters with a `not` in them.
    CountWithoutNot,
    /// A scan takes less for less or equal.
    LessIsLessOrEqual,
    /// The failed write of a batch is not named.
    FailedWriteUnnamed,
    /// A delete ignores what it expects.
    DeleteExpectsNothing,
    /// A batch's messages arrive without their attributes.
    BareEnqueue,
    /// A merge is taken for a put.
    MergeReplaces,
    /// Leases are a millisecond too short.
    ShortLeases,
    /// An update of the body alone makes the message visible.
    UpdateReleases,
    /// A purge says one too many.
    PurgeMiscounts,
}

#[derive(Debug)]
struct Records(Arc<dyn RecordBackend>, Fault);

impl Records {
    fn broken(&self, batch: Batch) -> Batch {
        let writes = batch.writes.into_iter().map(|write| match (self.1, write) {
            (Fault::DeleteExpectsNothing, Write::Delete { table, key, .. }) => {
                Write::Delete { table, key, expect: storage_core::Expect::Anything }
            }
            (Fault::BareEnqueue, Write::Enqueue { queue, mut message }) => {
                message.attributes.clear();
                Write::Enqueue { queue, message }
            }
            (Fault::MergeReplaces, Write::Merge { table, key, mut fields, expect }) => {
                fields.retain(|_, value| !value.is_null());
                Write::Put { table, key, fields, expect, expires_at: None }
            }
            (_, write) => write,
        });
        writes.collect()
    }
}

fn without_not(filter: &Filter) -> Filter {
    match filter {
        Filter::And(filters) => Filter::And(filters.iter().map(without_not).collect()),
        Filter::Not(inner) => (**inner).clone(),
        filter => filter.clone(),
    }
}

fn less_or_equal(filter: &Filter) -> Filter {
    match filter {
        Filter::And(filters) => Filter::And(filters.iter().map(less_or_equal).collect()),
        Filter::Lt(column, value) => Filter::Le(column.clone(), value.clone()),
        filter => filter.clone(),
    }
}

#[async_trait]
impl RecordBackend for Records {
    fn info(&self) -> &BackendInfo {
        self.0.info()
    }
    fn capabilities(&self) -> &RecordCapabilities {
        self.0.capabilities()
    }
    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        self.0.create_table(schema).await
    }
    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        self.0.alter_table(table, change).await
    }
    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        self.0.drop_table(table).await
    }
    async fn tables(&self) -> Result<Vec<TableSchema>> {
        self.0.tables().await
    }
    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.0.get(table, keys).await
    }
    async fn scan(&self, query: &Query) -> Result<Page> {
        let mut query = query.clone();
        if self.1 == Fault::LessIsLessOrEqual {
            query.filter = less_or_equal(&query.filter);
        }
        self.0.scan(&query).await
    }
    async fn count(&self, query: &Query) -> Result<u64> {
        let mut query = query.clone();
        if self.1 == Fault::CountWithoutNot {
            query.filter = without_not(&query.filter);
        }
        self.0.count(&query).await
    }
    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        let outcome = self.0.commit(self.broken(batch)).await;
        match self.1 {
            Fault::FailedWriteUnnamed => outcome.map_err(|e| storage_core::Error::new(e.kind(), e.message())),
            _ => outcome,
        }
    }
    async fn history(&self, table: &TableName, key: &Key) -> Result<Vec<Record>> {
        self.0.history(table, key).await
    }
    async fn backup(&self, to: &Path) -> Result<()> {
        self.0.backup(to).await
    }
    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }
    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

#[derive(Debug)]
struct Queues(Arc<dyn QueueBackend>, Fault);

#[async_trait]
impl QueueBackend for Queues {
    fn info(&self) -> &BackendInfo {
        self.0.info()
    }
    fn capabilities(&self) -> &QueueCapabilities {
        self.0.capabilities()
    }
    async fn create_queue(&self, queue: &QueueName, spec: &QueueSpec) -> Result<bool> {
        self.0.create_queue(queue, spec).await
    }
    async fn delete_queue(&self, queue: &QueueName) -> Result<bool> {
        self.0.delete_queue(queue).await
    }
    async fn queues(&self) -> Result<Vec<QueueName>> {
        self.0.queues().await
    }
    async fn queue_spec(&self, queue: &QueueName) -> Result<QueueSpec> {
        self.0.queue_spec(queue).await
    }
    async fn send(&self, queue: &QueueName, messages: Vec<NewMessage>) -> Result<Vec<Sent>> {
        self.0.send(queue, messages).await
    }
    async fn receive(&self, queue: &QueueName, request: &Receive) -> Result<Vec<Delivery>> {
        let mut request = *request;
        if self.1 == Fault::ShortLeases {
            request.visibility -= std::time::Duration::from_millis(1);
        }
        self.0.receive(queue, &request).await
    }
    async fn delete(&self, queue: &QueueName, receipts: &[Receipt]) -> Result<Vec<Result<()>>> {
        self.0.delete(queue, receipts).await
    }
    async fn update(&self, queue: &QueueName, receipt: &Receipt, change: &MessageUpdate) -> Result<Receipt> {
        let mut change = change.clone();
        if self.1 == Fault::UpdateReleases {
            change.visibility = Some(change.visibility.unwrap_or_default());
        }
        self.0.update(queue, receipt, &change).await
    }
    async fn dead_letter(&self, queue: &QueueName, receipt: &Receipt, reason: &str) -> Result<()> {
        self.0.dead_letter(queue, receipt, reason).await
    }
    async fn redrive(&self, queue: &QueueName, max: u32) -> Result<u64> {
        self.0.redrive(queue, max).await
    }
    async fn peek(&self, queue: &QueueName, max: u32) -> Result<Vec<Message>> {
        self.0.peek(queue, max).await
    }
    async fn stats(&self, queue: &QueueName) -> Result<QueueStats> {
        self.0.stats(queue).await
    }
    async fn purge(&self, queue: &QueueName) -> Result<u64> {
        Ok(self.0.purge(queue).await? + u64::from(self.1 == Fault::PurgeMiscounts))
    }
    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }
    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

struct Faulty(Fault);

#[async_trait]
impl Harness for Faulty {
    async fn place(&self) -> Result<Place> {
        Ok(Place::unique_name("memory://"))
    }
    async fn open(&self, config: &DriverConfig) -> Result<Backends> {
        let mut backends = MemoryDriver.open(config).await?;
        backends.records = backends.records.map(|inner| Arc::new(Records(inner, self.0)) as Arc<dyn RecordBackend>);
        backends.queue = backends.queue.map(|inner| Arc::new(Queues(inner, self.0)) as Arc<dyn QueueBackend>);
        Ok(backends)
    }
    fn takes_manual_clock(&self) -> bool {
        true
    }
    fn survives_close(&self) -> bool {
        false
    }
}

#[test]
fn the_model_finds_every_fault() {
    model::compare_with_memory(&Faulty(Fault::None), 400, 5);
    for fault in [
        Fault::CountWithoutNot,
        Fault::FailedWriteUnnamed,
        Fault::DeleteExpectsNothing,
        Fault::BareEnqueue,
        Fault::MergeReplaces,
        Fault::ShortLeases,
        Fault::UpdateReleases,
        Fault::PurgeMiscounts,
    ] {
        let outcome = catch_unwind(AssertUnwindSafe(|| model::compare_with_memory(&Faulty(fault), 2_000, 5)));
        let panic = outcome.expect_err(&format!("{fault:?} was not found"));
        let report = panic.downcast_ref::<String>().expect("a report");
        assert!(report.contains("the backend and the model differ"), "{fault:?}: {report}");
        let (_, ops) = report.split_once("after:\n").expect("the operations");
        assert!(ops.lines().count() <= 12, "{fault:?} is not shrunk: {report}");
    }
}

#[test]
fn random_filters_find_every_fault() {
    model::compare_filters_with_memory(&Faulty(Fault::None), 400, 5);
    for fault in [Fault::CountWithoutNot, Fault::LessIsLessOrEqual] {
        let outcome = catch_unwind(AssertUnwindSafe(|| model::compare_filters_with_memory(&Faulty(fault), 400, 5)));
        let panic = outcome.expect_err(&format!("{fault:?} was not found"));
        let report = panic.downcast_ref::<String>().expect("a report");
        assert!(report.contains("the backend and the model differ\nquery "), "{fault:?}: {report}");
    }
}
