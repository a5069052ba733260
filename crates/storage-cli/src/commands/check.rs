//! `storage check`.

use std::time::{Duration, Instant};

use clap::Args;
use futures::TryStreamExt as _;
use serde_json::{Value, json};
use storage_core::{
    BackendInfo, BlobPath, BlobStore, Error, Expect, Filter, NewMessage, Query, QueueName, QueueStore, Receive, RecordStore,
    Result, TableSchema, fields,
};
use storage_facade::{Component, Storage};

use crate::context::Context;
use crate::exit::{Failure, code_of, one_line};

#[derive(Args, Debug)]
#[command(after_help = "\
Each component is opened; a probe of its own (a table, a queue, a blob) is written, read, listed and removed again.
Where one fails, the exit code is that of its error.

Examples:
  storage check
  storage check --url sqlite:///app.db --json | jq -r .location")]
pub(crate) struct CheckArgs {}

/// What was found out about one component.
#[derive(Default)]
struct Report {
    info: Option<BackendInfo>,
    capabilities: Value,
    open: Duration,
    write: Duration,
    read: Duration,
    error: Option<Error>,
}

/// What a probe holds.
const PROBE: &str = "storage check";

pub(crate) async fn run(_: CheckArgs, context: &Context) -> Result<(), Failure> {
    let (out, storage) = (&context.out, context.storage().await?);
    let mut listing = out.listing(["COMPONENT", "DRIVER", "LOCATION", "STATUS", ">OPEN", ">WRITE", ">READ"]);
    let (mut abilities, mut errors): (Vec<(String, Vec<Component>)>, Vec<_>) = Default::default();
    for component in Component::ALL {
        let report = check(component, storage).await;
        listing.row(&json_report(component, &report), || cells(component, &report))?;
        if report.error.is_none() {
            let ability = in_words(&report);
            match abilities.iter_mut().find(|(known, _)| *known == ability) {
                Some((_, components)) => components.push(component),
                None => abilities.push((ability, vec![component])),
            }
        }
        errors.extend(report.error.map(|error| (component, error)));
    }
    listing.end()?;
    if !out.is_json() {
        for (ability, components) in &abilities {
            let names: Vec<_> = components.iter().map(|c| c.key()).collect();
            out.line(format!("\n{}:\n{ability}", names.join(", ")))?;
        }
        out.flush()?;
    }
    // Components that share a backend share what is wrong with it.
    let mut said: Vec<(&str, Vec<&str>)> = Vec::new();
    for (component, error) in &errors {
        match said.iter_mut().find(|(message, _)| *message == error.message()) {
            Some((_, components)) => components.push(component.key()),
            None => said.push((error.message(), vec![component.key()])),
        }
    }
    for (message, components) in said {
        out.note(format!("storage: {}: {}", components.join(", "), one_line(message)));
    }
    errors.first().map_or(Ok(()), |(_, error)| Err(Failure::Silent(code_of(error.kind()))))
}

fn cells(component: Component, report: &Report) -> Vec<String> {
    let (driver, location) = match &report.info {
        Some(info) => (info.driver.clone(), info.location.clone()),
        None => ("?".into(), "?".into()),
    };
    let millis = |d: Duration| if d.is_zero() { String::new() } else { format!("{:.1} ms", d.as_secs_f64() * 1000.0) };
    let status = report.error.as_ref().map_or_else(|| "ok".to_owned(), |e| format!("FAILED: {}", e.kind()));
    vec![component.to_string(), driver, location, status, millis(report.open), millis(report.write), millis(report.read)]
}

fn json_report(component: Component, report: &Report) -> Value {
    let millis = |d: Duration| d.as_secs_f64() * 1000.0;
    json!({
        "component": component.key(),
        "ok": report.error.is_none(),
        "driver": report.info.as_ref().map(|i| &i.driver),
        "location": report.info.as_ref().map(|i| &i.location),
        "open_ms": millis(report.open),
        "write_ms": millis(report.write),
        "read_ms": millis(report.read),
        "capabilities": report.capabilities,
        "error": report.error.as_ref().map(|e| json!({"kind": e.kind().as_str(), "message": e.to_string()})),
    })
}

/// Capabilities as people read them.
fn in_words(report: &Report) -> String {
    let Value::Object(all) = &report.capabilities else { return String::new() };
    let (mut can, mut cannot, mut bounds) = (Vec::new(), Vec::new(), Vec::new());
    for (name, value) in all {
        let name = name.replace('_', " ");
        match value {
            Value::Bool(true) => can.push(name),
            Value::Bool(false) => cannot.push(name),
            Value::String(text) => can.push(format!("{name} {text}")),
            other => bounds.push(format!("{name} {other}")),
        }
    }
    let lines = [("  has", can), ("  lacks", cannot), ("  bounds", bounds)];
    let lines = lines.into_iter().filter(|(_, words)| !words.is_empty());
    lines.map(|(label, words)| format!("{label}: {}", words.join(", "))).collect::<Vec<_>>().join("\n")
}

async fn check(component: Component, storage: &Storage) -> Report {
    let mut report = Report::default();
    let started = Instant::now();
    report.info = match storage.info(component).await {
        Ok(info) => Some(info),
        Err(error) => return Report { error: Some(error), ..report },
    };
    report.open = started.elapsed();
    report.error = probe(component, storage, &mut report).await.err();
    report
}

async fn probe(component: Component, storage: &Storage, report: &mut Report) -> Result<()> {
    // A name of its own, so that checks side by side don't disturb each other.
    let name = format!("storage-check-{}", uuid::Uuid::new_v4().simple());
    match component {
        Component::TaskQueue => {
            let (queues, queue) = (storage.queues().await?, QueueName::new(&name)?);
            report.capabilities = json!(queues.capabilities());
            let outcome = probe_queue(&queues, &queue, report).await;
            outcome.and(queues.delete_queue(&queue).await.map(drop))
        }
        Component::Blobs => {
            let (blobs, path) = (storage.blobs().await?, BlobPath::new(format!("{name}/probe"))?);
            report.capabilities = json!(blobs.capabilities());
            let outcome = probe_blobs(&blobs, &path, report).await;
            outcome.and(blobs.delete(&path).await.map(drop))
        }
        component => {
            let records = storage.records_of(component).await?;
            let schema = TableSchema::builder(name).key("id").keep_undeclared().build()?;
            report.capabilities = json!(records.capabilities());
            let outcome = probe_records(&records, &schema, report).await;
            outcome.and(records.drop_table(&schema.name).await.map(drop))
        }
    }
}

fn differs(what: &str) -> Error {
    Error::corrupt(format!("the probe was written, but {what}"))
}

async fn probe_records(records: &RecordStore, schema: &TableSchema, report: &mut Report) -> Result<()> {
    let table = &schema.name;
    records.create_table(schema).await?;
    let started = Instant::now();
    records.insert(table, "probe", fields(json!({"text": PROBE}))).await?;
    report.write = started.elapsed();
    let started = Instant::now();
    let read = records.get(table, "probe").await?;
    report.read = started.elapsed();
    if read.is_none_or(|record| record.fields.get("text") != Some(&json!(PROBE))) {
        return Err(differs("reads back otherwise"));
    }
    let query = Query::table(table.clone())?.filter(Filter::eq("text", PROBE)?);
    if records.scan(&query).await?.records.len() != 1 {
        return Err(differs("a query does not find it"));
    }
    if !records.delete(table, "probe", Expect::Present).await? || records.get(table, "probe").await?.is_some() {
        return Err(differs("can't be removed"));
    }
    Ok(())
}

async fn probe_queue(queues: &QueueStore, queue: &QueueName, report: &mut Report) -> Result<()> {
    queues.create_queue(queue, &queues.default_spec()).await?;
    let started = Instant::now();
    let sent = queues.send(queue, NewMessage::new(PROBE)).await?;
    report.write = started.elapsed();
    let started = Instant::now();
    let received = queues.receive(queue, &Receive::default().wait(Duration::from_secs(5))).await?;
    report.read = started.elapsed();
    let Some(delivery) = received.first() else { return Err(differs("is not received")) };
    if delivery.message.id != sent.id || delivery.message.body != PROBE {
        return Err(differs("is received otherwise"));
    }
    queues.delete(queue, &delivery.receipt).await?;
    match queues.queues().await?.contains(queue) {
        true => Ok(()),
        false => Err(differs("its queue is not listed")),
    }
}

async fn probe_blobs(blobs: &BlobStore, path: &BlobPath, report: &mut Report) -> Result<()> {
    blobs.create_container().await?;
    let started = Instant::now();
    blobs.put(path, PROBE).await?;
    report.write = started.elapsed();
    let started = Instant::now();
    let read = blobs.get(path).await?;
    report.read = started.elapsed();
    if read != PROBE {
        return Err(differs("reads back otherwise"));
    }
    let folder = path.as_str().rsplit_once('/').map_or(Ok(None), |(folder, _)| BlobPath::new(folder).map(Some))?;
    let listed: Vec<_> = blobs.list_all(folder).try_collect().await?;
    if listed.len() != 1 {
        return Err(differs("a listing does not show it"));
    }
    match blobs.delete(path).await? && !blobs.exists(path).await? {
        true => Ok(()),
        false => Err(differs("can't be removed")),
    }
}
