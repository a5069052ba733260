//! The process that tests kill: `storage-test-child write URL START`, `… work URL QUEUE`, `… download URL BLOB FILE OFFSET` or
//! `… outbox batches|tasks FOLDER START WHERE`.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a test program: its output is read by the test")]

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use storage_core::{Consumer, ConsumerOptions, Error, Outcome, QueueName, Result};
use storage_tests::breaking::Breaking;
use storage_tests::{open, outbox, workload};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["write", url, start] => write(url, start).await,
        ["work", url, queue] => work(url, queue).await,
        ["download", url, blob, file, offset] => download(url, blob, file, offset).await,
        ["outbox", work, folder, start, place] => owe(work, folder, start, place).await,
        _ => Err(Error::invalid(
            "usage: storage-test-child write URL START | work URL QUEUE | download URL BLOB FILE OFFSET | outbox batches|tasks FOLDER START WHERE",
        )),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

async fn write(url: &str, start: &str) -> Result<()> {
    let start = start.parse().map_err(|_| Error::invalid("START is a number"))?;
    let stores = open(url).await?;
    workload::prepare(&stores).await?;
    workload::run(stores, start).await
}

/// Commits batches with messages, or submits tasks, until it is killed, by itself or from outside.
async fn owe(work: &str, folder: &str, start: &str, place: &str) -> Result<()> {
    let work = match work {
        "batches" => outbox::Work::Batches,
        "tasks" => outbox::Work::Tasks,
        _ => return Err(Error::invalid("batches or tasks")),
    };
    let start = start.parse().map_err(|_| Error::invalid("START is a number"))?;
    let kill = outbox::Kill::read(place).ok_or_else(|| Error::invalid("WHERE is before-N, after-N or outside"))?;
    outbox::run(work, folder.as_ref(), start, kill).await
}

/// A download of parts, of which the one at an offset never comes to its end.
async fn download(url: &str, blob: &str, file: &str, offset: &str) -> Result<()> {
    let offset = offset.parse().map_err(|_| Error::invalid("OFFSET is a number"))?;
    let blobs = open(url).await?.blobs.ok_or_else(|| Error::invalid("URL is of a backend with blobs"))?;
    let breaking = Breaking::over(Arc::clone(blobs.backend()));
    breaking.stall_at(Some(offset));
    breaking.store().download_file(blob, file).await.map(drop)
}

/// Two workers on one queue until it is empty; each message's body goes to standard output, a line each.
async fn work(url: &str, queue: &str) -> Result<()> {
    let stores = open(url).await?;
    let queue = QueueName::new(queue)?;
    let options = ConsumerOptions {
        concurrency: 1,
        prefetch: 20,
        drain: true,
        visibility: Duration::from_secs(60),
        ..ConsumerOptions::default()
    };
    let consumer = Arc::new(Consumer::new(&stores.queues, &queue, options)?);
    let workers = (0..2).map(|_| {
        let consumer = Arc::clone(&consumer);
        async move {
            let handler = |message: storage_core::Message| async move {
                let mut out = std::io::stdout().lock();
                let body = String::from_utf8_lossy(&message.body).into_owned();
                Outcome::from(writeln!(out, "{body}").and_then(|()| out.flush()))
            };
            consumer.run(handler, std::future::pending()).await
        }
    });
    let reports = futures::future::try_join_all(workers).await?;
    let lost: u64 = reports.iter().map(|r| r.lost).sum();
    if lost > 0 {
        return Err(Error::internal(format!("{lost} messages were lost to another worker: {reports:?}")));
    }
    stores.queues.close().await
}
