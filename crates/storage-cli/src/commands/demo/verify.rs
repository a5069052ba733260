//! Whether everything that the demo stored is there.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use storage_core::{BlobPath, BlobStore, MAX_PAGE, Result};
use storage_tasks::{EventFilter, TaskFilter, TaskId, TaskStatus, event};

use super::Demo;
use super::files::Counted;

/// How many results are read at once.
const PARALLEL: usize = 32;

/// Something that must hold, and whether it does.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) ok: bool,
    pub(super) what: String,
}

/// Reads everything back.
pub(super) async fn all(
    demo: &Demo<'_>,
    counted: &HashMap<String, Counted>,
    began: DateTime<Utc>,
    (blobs, blob, written): (&BlobStore, &BlobPath, &[u8]),
) -> Result<Vec<Check>> {
    let read = blobs.get(blob).await?;
    let report = Check {
        name: "report",
        ok: *read == *written,
        what: format!("the report was read back from the blobs as it was written: {} bytes", read.len()),
    };
    Ok(vec![tasks(demo, counted).await?, results(demo, counted).await?, events(demo, counted, began).await?, report])
}

async fn tasks(demo: &Demo<'_>, counted: &HashMap<String, Counted>) -> Result<Check> {
    let of_run = |status: &[TaskStatus]| TaskFilter {
        status: status.to_vec(),
        resource_id: Some(demo.run.clone()),
        ..TaskFilter::default()
    };
    let submitted = demo.tasks.count(&of_run(&[])).await?;
    let finished = demo.tasks.count(&of_run(&[TaskStatus::Succeeded, TaskStatus::Failed])).await?;
    let left = demo.tasks.queues().stats(&demo.queue).await?.ready.value().unwrap_or_default();
    Ok(Check {
        name: "tasks",
        ok: submitted == finished && finished == counted.len() as u64 && left == 0,
        what: format!("every task is finished: {submitted} submitted, {finished} finished, {left} messages left"),
    })
}

async fn results(demo: &Demo<'_>, counted: &HashMap<String, Counted>) -> Result<Check> {
    let store = demo.tasks.results();
    let reads = counted.iter().map(|(task, counted)| {
        let id = TaskId::new(&demo.run, task);
        async move {
            let result = store.get(id).await?;
            Ok::<_, storage_core::Error>(result.is_some_and(|result| match &counted.failure {
                Some(failure) => result.error.as_ref() == Some(failure),
                None => result.output.is_some_and(|output| serde_json::from_value(output).ok().as_ref() == Some(counted)),
            }))
        }
    });
    let right: usize = futures::stream::iter(reads)
        .buffer_unordered(PARALLEL)
        .try_fold(0, async |sum, right| Ok(sum + usize::from(right)))
        .await?;
    Ok(Check {
        name: "results",
        ok: right == counted.len(),
        what: format!("every result is there and says what was counted: {right} of {}", counted.len()),
    })
}

async fn events(demo: &Demo<'_>, counted: &HashMap<String, Counted>, began: DateTime<Utc>) -> Result<Check> {
    let filter = EventFilter { since: Some(began), ..EventFilter::default() };
    let (mut kinds, mut after) = (HashMap::<String, u64>::new(), None);
    loop {
        let page = demo.tasks.events().list(&filter, MAX_PAGE, after).await?;
        for event in page.events.iter().filter(|event| event.resource_id == demo.run) {
            *kinds.entry(event.kind.clone()).or_default() += 1;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let of = |kind: &str| kinds.get(kind).copied().unwrap_or_default();
    let (submitted, started) = (of(event::kind::SUBMITTED), of(event::kind::STARTED));
    let ended = of(event::kind::SUCCEEDED) + of(event::kind::FAILED);
    let expected = counted.len() as u64;
    Ok(Check {
        name: "events",
        ok: submitted == expected && started >= expected && ended == expected,
        what: format!("every event is there: {submitted} submitted, {started} started, {ended} ended"),
    })
}
