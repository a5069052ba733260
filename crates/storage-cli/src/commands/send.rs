//! `storage queue send`.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use serde_json::json;
use storage_core::{Error, NewMessage, QueueName, QueueStore, Result, Sent};
use tokio::io::BufReader;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::args::{duration, pair};
use crate::exit::Failure;
use crate::input;
use crate::output::{Out, count};

/// How many lines go in one call.
const BATCH: usize = 1000;
/// How many bytes of lines are in memory at once (more, where a single line has more).
const IN_HAND: u32 = 16 << 20;

/// A line, and its share of what may be in memory.
type Line = (Vec<u8>, OwnedSemaphorePermit);

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  storage queue send mail 'hello' --delay 5s --attribute tenant=acme
  seq 100000 | storage queue send numbers -            one message for each line
  storage queue send images --whole < picture.png      all of stdin in one message")]
pub(crate) struct SendArgs {
    /// The queue
    queue: QueueName,
    /// The message's body; `-`: each line of stdin is one
    #[arg(required_unless_present = "whole")]
    body: Option<String>,
    /// All of stdin is one body
    #[arg(long, conflicts_with = "body")]
    whole: bool,
    /// Nobody sees it before
    #[arg(long, value_name = "TIME", value_parser = duration)]
    delay: Option<Duration>,
    /// It is a dead letter after so long
    #[arg(long, value_name = "TIME", value_parser = duration)]
    ttl: Option<Duration>,
    /// 0 to 9; higher ones are received first
    #[arg(long, value_name = "N")]
    priority: Option<u8>,
    /// A second message with this id is not sent, for a while (see create --dedup-window)
    #[arg(long, value_name = "ID")]
    dedup_id: Option<String>,
    /// What kind of data it is: application/json
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// A name and a value beside the body; can be given several times
    #[arg(long, short, value_name = "NAME=VALUE", value_parser = pair)]
    attribute: Vec<(String, String)>,
}

impl SendArgs {
    fn message(&self, body: impl Into<Bytes>) -> NewMessage {
        NewMessage {
            body: body.into(),
            attributes: self.attribute.iter().cloned().collect(),
            content_type: self.content_type.clone(),
            delay: self.delay.unwrap_or_default(),
            ttl: self.ttl,
            priority: self.priority.unwrap_or_default(),
            dedup_id: self.dedup_id.clone(),
        }
    }
}

pub(crate) async fn run(args: SendArgs, queues: &QueueStore, out: &Out) -> Result<(), Failure> {
    let max = queues.capabilities().max_body_bytes;
    let body = match args.body.as_deref() {
        Some("-") => return send_lines(args, max, queues, out).await,
        Some(text) => text.as_bytes().to_vec(),
        None => input::read_all(tokio::io::stdin(), max as u64, "stdin").await?,
    };
    let sent = queues.send(&args.queue, args.message(body)).await?;
    out.done(&json!({"queue": args.queue, "id": sent.id, "duplicate": sent.duplicate}), || match sent.duplicate {
        true => format!("not sent: message {} has the same dedup id", sent.id),
        false => format!("sent message {}", sent.id),
    })
}

/// Sends each line of stdin.
async fn send_lines(args: SendArgs, max: usize, queues: &QueueStore, out: &Out) -> Result<(), Failure> {
    if args.dedup_id.is_some() {
        return Err(Error::invalid("one --dedup-id for many lines would keep the first alone").into());
    }
    let (sender, mut lines) = mpsc::channel(BATCH);
    let reader = tokio::spawn(read_lines(max, sender));
    let (mut total, mut duplicates) = (0, 0);
    // In batches where lines come faster than they can be sent, at once where they trickle.
    let mut batch = Vec::new();
    while lines.recv_many(&mut batch, BATCH).await > 0 {
        let (messages, shares): (Vec<_>, Vec<_>) = batch.drain(..).map(|(line, share)| (args.message(line), share)).unzip();
        let sent = queues.send_all(&args.queue, messages).await.map_err(|e| after(total, e))?;
        drop(shares);
        total += sent.len() as u64;
        duplicates += sent.iter().filter(|s| s.duplicate).count() as u64;
        report(&sent, &args.queue, out)?;
    }
    reader.await.map_err(|e| Error::internal("the task that reads stdin ended").with_source(e))?.map_err(|e| after(total, e))?;
    if out.is_json() {
        return Ok(());
    }
    out.done(&(), || {
        let duplicates = if duplicates > 0 { format!(", {duplicates} of them there before") } else { String::new() };
        format!("sent {}{duplicates}", count(total, "message", "messages"))
    })
}

/// Says how far it came: what was sent stays sent.
fn after(total: u64, error: Error) -> Error {
    if total == 0 { error } else { error.with_subject(format!("stdin, after {} were sent", count(total, "message", "messages"))) }
}

fn report(sent: &[Sent], queue: &QueueName, out: &Out) -> Result<(), Failure> {
    if !out.is_json() {
        return Ok(());
    }
    for one in sent {
        out.json(&json!({"queue": queue, "id": one.id, "duplicate": one.duplicate}))?;
    }
    out.flush()
}

async fn read_lines(max: usize, sender: mpsc::Sender<Line>) -> Result<()> {
    let shares = Arc::new(Semaphore::new(IN_HAND as usize));
    let mut stdin = BufReader::with_capacity(1 << 18, tokio::io::stdin());
    while let Some(line) = input::next_line(&mut stdin, max).await? {
        // An empty line takes memory too.
        let share = u32::try_from(line.len()).unwrap_or(IN_HAND).clamp(64, IN_HAND);
        let share = Arc::clone(&shares).acquire_many_owned(share).await;
        let share = share.map_err(|e| Error::internal("a semaphore was closed").with_source(e))?;
        if sender.send((line, share)).await.is_err() {
            break;
        }
    }
    Ok(())
}
