//! Records behind a policy.

use std::path::Path;

use async_trait::async_trait;
use storage_core::{
    BackendInfo, Batch, Key, Page, Query, Record, RecordBackend, RecordCapabilities, Result, SchemaChange, TableName,
    TableSchema, Version, Write,
};

use super::{Guarded, Handed};
use crate::observe::Op;
use crate::policy::{Call, Limit, Repeat};

const fn read(op: Op) -> Call {
    Call { op, repeat: Repeat::Safe, limit: Limit::Call }
}

const fn long(op: Op) -> Call {
    Call { op, repeat: Repeat::Unsafe, limit: Limit::Long }
}

#[async_trait]
impl<B: RecordBackend + ?Sized> RecordBackend for Guarded<B> {
    fn info(&self) -> &BackendInfo {
        self.inner.info()
    }

    fn capabilities(&self) -> &RecordCapabilities {
        self.inner.capabilities()
    }

    async fn create_table(&self, schema: &TableSchema) -> Result<bool> {
        let call = Call { op: Op::CreateTable, repeat: Repeat::Unsafe, limit: Limit::Call };
        self.call(call, self.info(), Some(&schema.name), |_| self.inner.create_table(schema)).await
    }

    async fn alter_table(&self, table: &TableName, change: &SchemaChange) -> Result<()> {
        self.call(long(Op::AlterTable), self.info(), Some(table), |_| self.inner.alter_table(table, change)).await
    }

    async fn drop_table(&self, table: &TableName) -> Result<bool> {
        self.call(long(Op::DropTable), self.info(), Some(table), |_| self.inner.drop_table(table)).await
    }

    async fn tables(&self) -> Result<Vec<TableSchema>> {
        self.call(read(Op::Tables), self.info(), None, |_| self.inner.tables()).await
    }

    async fn get(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.call(read(Op::RecordsGet), self.info(), Some(table), |_| self.inner.get(table, keys)).await
    }

    async fn get_stale(&self, table: &TableName, keys: &[Key]) -> Result<Vec<Option<Record>>> {
        self.call(read(Op::RecordsGet), self.info(), Some(table), |_| self.inner.get_stale(table, keys)).await
    }

    async fn scan(&self, query: &Query) -> Result<Page> {
        self.call(read(Op::Scan), self.info(), Some(&query.table), |_| self.inner.scan(query)).await
    }

    async fn count(&self, query: &Query) -> Result<u64> {
        self.call(read(Op::Count), self.info(), Some(&query.table), |_| self.inner.count(query)).await
    }

    async fn sweep(&self, query: &Query) -> Result<u64> {
        self.call(long(Op::Sweep), self.info(), Some(&query.table), |_| self.inner.sweep(query)).await
    }

    async fn commit(&self, batch: Batch) -> Result<Vec<Version>> {
        let call = Call { op: Op::Commit, repeat: Repeat::of_batch(&batch), limit: Limit::Call };
        let subject = if self.observer.is_some() { subject(&batch) } else { None };
        let mut batch = Handed::new(batch, &self.policy);
        let subject = subject.as_ref().map(|subject| subject as _);
        self.call(call, self.info(), subject, |_| self.inner.commit(batch.next())).await
    }

    async fn history(&self, table: &TableName, key: &Key) -> Result<Vec<Record>> {
        self.call(read(Op::History), self.info(), Some(table), |_| self.inner.history(table, key)).await
    }

    async fn backup(&self, to: &Path) -> Result<()> {
        self.call(long(Op::Backup), self.info(), None, |_| self.inner.backup(to)).await
    }

    async fn ping(&self) -> Result<()> {
        self.ask(read(Op::RecordsPing), self.info(), |_| self.inner.ping()).await
    }

    async fn close(&self) -> Result<()> {
        self.observer.watch(Op::RecordsClose, None, self.inner.close()).await
    }
}

/// The table or queue of a batch's first write.
fn subject(batch: &Batch) -> Option<String> {
    batch.writes.first().map(|write| match write {
        Write::Enqueue { queue, .. } => queue.to_string(),
        write => write.target().map(|(table, _)| table.to_string()).unwrap_or_default(),
    })
}
