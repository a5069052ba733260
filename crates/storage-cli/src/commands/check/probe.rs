//! A probe of one component: made, found again, and removed.

use std::time::Duration;

use futures::TryStreamExt as _;
use serde_json::json;
use storage_core::{
    BlobPath, BlobStore, Error, ErrorKind, Expect, Filter, ListOptions, NewMessage, Query, QueueName, QueueSpec, QueueStore,
    Receive, RecordStore, Result, TableSchema, fields,
};
use storage_facade::{Component, Storage};

use super::{Report, Step, timed};

/// What a probe holds.
const PROBE: &str = "storage check";

/// The store of a component, and the name of what is tried in it.
enum Subject {
    Records(RecordStore, Box<TableSchema>),
    Queue(QueueStore, QueueName),
    Blobs(BlobStore, BlobPath),
}

impl Subject {
    fn describe(&self) -> String {
        match self {
            Self::Records(_, schema) => format!("table `{}`", schema.name),
            Self::Queue(_, queue) => format!("queue `{queue}`"),
            Self::Blobs(_, path) => format!("blob `{path}`"),
        }
    }
}

/// One component under test.
pub(super) struct Probe<'a> {
    component: Component,
    storage: &'a Storage,
    limit: Duration,
    subject: Option<Subject>,
    step: Step,
    /// There may be something to remove.
    made: bool,
    report: Report,
}

fn differs(what: &str) -> Error {
    Error::corrupt(format!("the probe was written, but {what}"))
}

impl<'a> Probe<'a> {
    pub(super) fn new(component: Component, storage: &'a Storage, limit: Duration) -> Self {
        Self { component, storage, limit, subject: None, step: Step::Open, made: false, report: Report::default() }
    }

    /// Notes the error of the step that was the last.
    pub(super) fn fail(&mut self, error: Option<Error>) {
        self.report.error = error.map(|error| (self.step, error));
    }

    /// Opens the component and asks it for a sign of life.
    pub(super) async fn open(&mut self) -> Result<()> {
        // A name of its own, so that checks side by side don't disturb each other.
        let id = uuid::Uuid::new_v4().simple();
        let (storage, component) = (self.storage, self.component);
        let report = &mut self.report;
        let opening = async {
            let info = storage.info(component).await?;
            let (subject, capabilities) = match component {
                Component::TaskQueue => {
                    let queues = storage.queues().await?;
                    let capabilities = json!(queues.capabilities());
                    queues.ping().await?;
                    (Subject::Queue(queues, QueueName::new(format!("storage-check-{id}"))?), capabilities)
                }
                Component::Blobs => {
                    let blobs = storage.blobs().await?;
                    let capabilities = json!(blobs.capabilities());
                    blobs.ping().await?;
                    (Subject::Blobs(blobs, BlobPath::new(format!(".storage-check/{id}"))?), capabilities)
                }
                component => {
                    let records = storage.records_of(component).await?;
                    let capabilities = json!(records.capabilities());
                    records.ping().await?;
                    let schema = TableSchema::builder(format!("storage-check-{id}")).key("id").keep_undeclared().build()?;
                    (Subject::Records(records, Box::new(schema)), capabilities)
                }
            };
            Ok((info, subject, capabilities))
        };
        let (info, subject, capabilities) = timed(report, &mut self.step, Step::Open, self.limit, opening).await?;
        (self.report.info, self.report.capabilities, self.subject) = (Some(info), capabilities, Some(subject));
        Ok(())
    }

    /// Lists, and changes nothing.
    pub(super) async fn list(&mut self) -> Result<()> {
        let listing = async {
            match &self.subject {
                Some(Subject::Records(records, _)) => records.tables().await.map(drop),
                Some(Subject::Queue(queues, _)) => queues.queues().await.map(drop),
                Some(Subject::Blobs(blobs, _)) => blobs.list(&ListOptions::default().one_level()).try_next().await.map(drop),
                None => Ok(()),
            }
        };
        timed(&mut self.report, &mut self.step, Step::List, self.limit, listing).await
    }

    /// Writes the probe, reads it, lists it and removes it.
    pub(super) async fn exercise(&mut self) -> Result<()> {
        let Some(subject) = &self.subject else { return Ok(()) };
        let (report, step, limit) = (&mut self.report, &mut self.step, self.limit);
        // Before the write: whether one that failed took effect is not known.
        self.made = true;
        match subject {
            Subject::Records(records, schema) => probe_records(records, schema, report, step, limit).await?,
            Subject::Queue(queues, queue) => probe_queue(queues, queue, report, step, limit).await?,
            Subject::Blobs(blobs, path) => probe_blobs(blobs, path, report, step, limit).await?,
        }
        self.made = false;
        Ok(())
    }

    /// Removes what there may be of the probe, and answers what was found out.
    pub(super) async fn clean_up(self) -> Report {
        let mut report = self.report;
        let Some(subject) = self.subject.filter(|_| self.made) else { return report };
        let removing = async {
            match &subject {
                Subject::Records(records, schema) => records.drop_table(&schema.name).await.map(drop),
                Subject::Queue(queues, queue) => queues.delete_queue(queue).await.map(drop),
                Subject::Blobs(blobs, path) => blobs.delete(path).await.map(drop),
            }
        };
        let removed = tokio::time::timeout(self.limit, removing).await;
        let removed = removed.unwrap_or_else(|_| Err(Error::timeout(format!("no answer within {:?}", self.limit))));
        if let Err(error) = removed {
            // What fails as the write did has nothing to remove.
            let as_before =
                report.error.as_ref().is_some_and(|(step, before)| *step == Step::Write && before.kind() == error.kind());
            report.left = (!as_before).then(|| (subject.describe(), error));
        }
        report
    }
}

async fn probe_records(
    records: &RecordStore,
    schema: &TableSchema,
    report: &mut Report,
    at: &mut Step,
    limit: Duration,
) -> Result<()> {
    let table = &schema.name;
    // The table is made before the clock starts: a write is what a program waits for.
    *at = Step::Write;
    let created = tokio::time::timeout(limit, records.create_table(schema)).await;
    created.unwrap_or_else(|_| Err(Error::timeout(format!("no answer within {limit:?}"))))?;
    timed(report, at, Step::Write, limit, records.insert(table, "probe", fields(json!({"text": PROBE})))).await?;
    let read = timed(report, at, Step::Read, limit, records.get(table, "probe")).await?;
    if read.is_none_or(|record| record.fields.get("text") != Some(&json!(PROBE))) {
        return Err(differs("reads back otherwise"));
    }
    let query = Query::table(table.clone())?.filter(Filter::eq("text", PROBE)?);
    if timed(report, at, Step::List, limit, records.scan(&query)).await?.records.len() != 1 {
        return Err(differs("a query does not find it"));
    }
    let deleting = async {
        let deleted = records.delete(table, "probe", Expect::Present).await?;
        Ok(deleted && records.get(table, "probe").await?.is_none() && records.drop_table(table).await?)
    };
    match timed(report, at, Step::Delete, limit, deleting).await? {
        true => Ok(()),
        false => Err(differs("can't be removed")),
    }
}

async fn probe_queue(queues: &QueueStore, queue: &QueueName, report: &mut Report, at: &mut Step, limit: Duration) -> Result<()> {
    *at = Step::Write;
    let created = tokio::time::timeout(limit, queues.create_queue(queue, &QueueSpec::default())).await;
    created.unwrap_or_else(|_| Err(Error::timeout(format!("no answer within {limit:?}"))))?;
    let sent = timed(report, at, Step::Write, limit, queues.send(queue, NewMessage::new(PROBE))).await?;
    let wait = Receive::default().wait(limit.min(Duration::from_secs(5)));
    let received = timed(report, at, Step::Read, limit, queues.receive(queue, &wait)).await?;
    let Some(delivery) = received.first() else { return Err(differs("is not received")) };
    if delivery.message.id != sent.id || delivery.message.body != PROBE {
        return Err(differs("is received otherwise"));
    }
    if !timed(report, at, Step::List, limit, queues.queues()).await?.contains(queue) {
        return Err(differs("its queue is not listed"));
    }
    let deleting = async {
        queues.delete(queue, &delivery.receipt).await?;
        queues.delete_queue(queue).await
    };
    match timed(report, at, Step::Delete, limit, deleting).await? {
        true => Ok(()),
        false => Err(differs("its queue can't be removed")),
    }
}

async fn probe_blobs(blobs: &BlobStore, path: &BlobPath, report: &mut Report, at: &mut Step, limit: Duration) -> Result<()> {
    let writing = async {
        match blobs.put(path, PROBE).await {
            // Only then: credentials that may write need not be allowed to create containers.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                blobs.create_container().await?;
                blobs.put(path, PROBE).await
            }
            put => put,
        }
    };
    timed(report, at, Step::Write, limit, writing).await?;
    if timed(report, at, Step::Read, limit, blobs.get(path)).await? != PROBE {
        return Err(differs("reads back otherwise"));
    }
    let folder = path.as_str().rsplit_once('/').map_or(Ok(None), |(folder, _)| BlobPath::new(folder).map(Some))?;
    let listing = async { blobs.list_all(folder).try_any(async |meta| meta.path == *path).await };
    if !timed(report, at, Step::List, limit, listing).await? {
        return Err(differs("a listing does not show it"));
    }
    let deleting = async { Ok(blobs.delete(path).await? && !blobs.exists(path).await?) };
    match timed(report, at, Step::Delete, limit, deleting).await? {
        true => Ok(()),
        false => Err(differs("can't be removed")),
    }
}
