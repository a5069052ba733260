//! `storage queue`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use storage_core::{Delivery, Error, MessageUpdate, QueueName, QueueStats, QueueStore, Receipt, Receive};

use super::message;
use super::send::{self, SendArgs};
use crate::args::duration;
use crate::context::Context;
use crate::exit::Failure;
use crate::input;
use crate::output::{Out, count, time};

#[derive(Debug, Subcommand)]
pub(crate) enum QueueCommand {
    /// Create a queue; fine if it is there with the same settings
    Create(CreateArgs),
    /// List the queues and how full they are
    Ls,
    /// Send a message, or one for each line of stdin
    Send(SendArgs),
    /// Receive messages: leased for a while, or removed at once with --delete
    #[command(after_help = "\
Examples:
  storage queue receive mail --wait 20s              one message, and its receipt
  storage queue receive mail --max 100 --delete      the bodies alone, one a line
  storage queue receive mail --json | jq -r .receipt")]
    Receive(ReceiveArgs),
    /// Remove a received message for good
    Delete {
        /// The queue
        queue: QueueName,
        /// What `receive` printed
        receipt: String,
    },
    /// Change a received message: how long it is leased, its body; prints the new receipt
    Update(UpdateArgs),
    /// Look at the next messages without taking them
    Peek {
        /// The queue (NAME-dead: its dead letters)
        queue: QueueName,
        /// So many at most
        #[arg(long, short, value_name = "N", default_value_t = 10)]
        max: u32,
    },
    /// Show how full a queue is
    Stats {
        /// The queue
        queue: QueueName,
    },
    /// Remove all messages (dead letters stay)
    Purge {
        /// The queue
        queue: QueueName,
    },
    /// Show the dead letters of a queue and why they are dead
    Dead {
        /// The queue
        queue: QueueName,
        /// So many at most
        #[arg(long, short, value_name = "N", default_value_t = 100)]
        max: u32,
    },
    /// Send dead letters back to their queue
    Redrive {
        /// The queue
        queue: QueueName,
        /// So many at most; without it: all
        #[arg(long, short, value_name = "N")]
        max: Option<u32>,
    },
    /// Remove a queue with its messages and dead letters
    Drop {
        /// The queue
        queue: QueueName,
        /// Fine if it is not there
        #[arg(long)]
        missing_ok: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// The queue
    queue: QueueName,
    /// After so many deliveries a message is a dead letter; 0: never (default: 10, or never where the backend keeps no dead letters)
    #[arg(long, value_name = "N")]
    max_deliveries: Option<u32>,
    /// How long a dedup id is remembered
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration)]
    dedup_window: Duration,
}

#[derive(Args, Debug)]
pub(crate) struct ReceiveArgs {
    /// The queue (NAME-dead: its dead letters)
    queue: QueueName,
    /// So many messages at most
    #[arg(long, short, value_name = "N", default_value_t = 1)]
    max: u32,
    /// How long nobody else receives them
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    visibility: Duration,
    /// How long to wait for the first one
    #[arg(long, short, value_name = "TIME", default_value = "0s", value_parser = duration)]
    wait: Duration,
    /// Remove them as soon as they are printed
    #[arg(long, short)]
    delete: bool,
}

#[derive(Args, Debug)]
pub(crate) struct UpdateArgs {
    /// The queue
    queue: QueueName,
    /// What `receive` printed
    receipt: String,
    /// The lease ends so long from now; 0s gives the message back at once
    #[arg(long, value_name = "TIME", value_parser = duration, required_unless_present = "body")]
    visibility: Option<Duration>,
    /// A new body (`-`: from stdin)
    #[arg(long)]
    body: Option<String>,
}

pub(crate) async fn run(command: QueueCommand, context: &Context) -> Result<(), Failure> {
    let (out, queues) = (&context.out, context.queues().await?);
    match command {
        QueueCommand::Create(args) => create(&args, &queues, out).await,
        QueueCommand::Ls => list(&queues, out).await,
        QueueCommand::Send(args) => send::run(args, &queues, out).await,
        QueueCommand::Receive(args) => receive(&args, &queues, out).await,
        QueueCommand::Delete { queue, receipt } => {
            queues.delete(&queue, &Receipt(receipt)).await?;
            out.done(&json!({"queue": queue, "deleted": true}), || format!("deleted the message from `{queue}`"))
        }
        QueueCommand::Update(args) => update(args, &queues, out).await,
        QueueCommand::Peek { queue, max } => {
            for found in queues.peek(&queue, max).await? {
                message::show(out, &found, None)?;
            }
            Ok(())
        }
        QueueCommand::Stats { queue } => stats(&queue, &queues, out).await,
        QueueCommand::Purge { queue } => {
            let purged = queues.purge(&queue).await?;
            out.done(&json!({"queue": queue, "purged": purged}), || {
                format!("removed {} from `{queue}`", count(purged, "message", "messages"))
            })
        }
        QueueCommand::Dead { queue, max } => dead(&queue, max, &queues, out).await,
        QueueCommand::Redrive { queue, max } => redrive(&queue, max, &queues, out).await,
        QueueCommand::Drop { queue, missing_ok } => {
            let dropped = queues.delete_queue(&queue).await?;
            if !dropped && !missing_ok {
                return Err(Error::not_found(format!("there is no queue `{queue}`")).into());
            }
            out.done(&json!({"queue": queue, "dropped": dropped}), || match dropped {
                true => format!("removed queue `{queue}`"),
                false => format!("there was no queue `{queue}`"),
            })
        }
    }
}

async fn create(args: &CreateArgs, queues: &QueueStore, out: &Out) -> Result<(), Failure> {
    let mut spec = queues.default_spec().dedup_window(args.dedup_window);
    if let Some(max) = args.max_deliveries {
        spec.max_deliveries = Some(max).filter(|n| *n > 0);
    }
    let created = queues.create_queue(&args.queue, &spec).await?;
    let queue = &args.queue;
    out.done(&json!({"queue": queue, "created": created}), || match created {
        true => format!("created queue `{queue}`"),
        false => format!("queue `{queue}` is there already, with these settings"),
    })
}

fn json_stats(queue: &QueueName, stats: &QueueStats) -> serde_json::Value {
    json!({
        "queue": queue,
        "ready": stats.ready.value(),
        "delayed": stats.delayed.value(),
        "leased": stats.leased.value(),
        "dead": stats.dead.value(),
        "oldest": stats.oldest,
    })
}

async fn list(queues: &QueueStore, out: &Out) -> Result<(), Failure> {
    let mut listing = out.listing(["QUEUE", ">READY", ">DELAYED", ">LEASED", ">DEAD", "OLDEST"]);
    for queue in queues.queues().await? {
        let stats = match queues.stats(&queue).await {
            Ok(stats) => stats,
            // Removed by somebody meanwhile.
            Err(error) if error.kind() == storage_core::ErrorKind::NotFound => continue,
            Err(error) => return Err(error.into()),
        };
        listing.row(&json_stats(&queue, &stats), || {
            let counts = [stats.ready, stats.delayed, stats.leased, stats.dead].map(|n| n.to_string());
            let oldest = stats.oldest.map_or_else(String::new, time);
            [queue.to_string()].into_iter().chain(counts).chain([oldest]).collect()
        })?;
    }
    if listing.end()? == 0 && !out.is_json() {
        out.note("no queues yet: `storage queue create NAME` makes one");
    }
    Ok(())
}

async fn stats(queue: &QueueName, queues: &QueueStore, out: &Out) -> Result<(), Failure> {
    let (stats, spec) = (queues.stats(queue).await?, queues.queue_spec(queue).await?);
    if out.is_json() {
        let mut object = json_stats(queue, &stats);
        object["max_deliveries"] = json!(spec.max_deliveries);
        object["dedup_window_seconds"] = json!(spec.dedup_window.as_secs_f64());
        return out.json(&object);
    }
    out.details([
        ("ready", stats.ready.to_string()),
        ("delayed", stats.delayed.to_string()),
        ("leased", stats.leased.to_string()),
        ("dead", stats.dead.to_string()),
        ("oldest", stats.oldest.map_or_else(|| "-".into(), time)),
        ("deliveries at most", spec.max_deliveries.map_or_else(|| "no cap".into(), |n| n.to_string())),
        ("dedup window", humantime::format_duration(spec.dedup_window).to_string()),
    ])
}

async fn receive(args: &ReceiveArgs, queues: &QueueStore, out: &Out) -> Result<(), Failure> {
    let request = Receive::up_to(args.max).visibility(args.visibility).wait(args.wait);
    let deliveries = queues.receive(&args.queue, &request).await?;
    if deliveries.is_empty() && !out.is_json() {
        out.note(format!("nothing to receive from `{}`", args.queue));
    }
    for delivery in &deliveries {
        show(args, delivery, out)?;
    }
    // Printed and out of our hands before it is removed: at least once, never at most once.
    out.flush()?;
    if args.delete {
        let receipts: Vec<_> = deliveries.into_iter().map(|d| d.receipt).collect();
        for outcome in queues.delete_all(&args.queue, &receipts).await? {
            outcome?;
        }
    }
    Ok(())
}

fn show(args: &ReceiveArgs, delivery: &Delivery, out: &Out) -> Result<(), Failure> {
    if args.delete && !out.is_json() {
        out.bytes(&delivery.message.body)?;
        return out.bytes(b"\n");
    }
    message::show(out, &delivery.message, Some(delivery).filter(|_| !args.delete))
}

async fn update(args: UpdateArgs, queues: &QueueStore, out: &Out) -> Result<(), Failure> {
    let mut change = MessageUpdate { visibility: args.visibility, ..MessageUpdate::default() };
    if let Some(body) = &args.body {
        change = change.body(match body.as_str() {
            "-" => input::read_all(tokio::io::stdin(), input::MAX_DOCUMENT, "stdin").await?,
            body => body.as_bytes().to_vec(),
        });
    }
    let receipt = queues.update(&args.queue, &Receipt(args.receipt), &change).await?;
    if out.is_json() {
        return out.json(&json!({"queue": args.queue, "receipt": receipt}));
    }
    out.line(&receipt.0)
}

async fn dead(queue: &QueueName, max: u32, queues: &QueueStore, out: &Out) -> Result<(), Failure> {
    use storage_core::message::dead;
    let mut listing = out.listing(["ID", ">DELIVERIES", "DIED", "REASON", "BODY"]);
    for found in queues.dead_letters(queue, max).await? {
        listing.row(&message::json(&found, None), || {
            let attribute = |name: &str| found.attributes.get(name).cloned().unwrap_or_default();
            let (deliveries, at) = (attribute(dead::DELIVERIES), attribute(dead::AT));
            let at = at.parse().map_or(at, time);
            vec![found.id.to_string(), deliveries, at, attribute(dead::REASON), message::excerpt(&found.body)]
        })?;
    }
    if listing.end()? == 0 && !out.is_json() {
        out.note(format!("`{queue}` has no dead letters"));
    }
    Ok(())
}

async fn redrive(queue: &QueueName, max: Option<u32>, queues: &QueueStore, out: &Out) -> Result<(), Failure> {
    const STEP: u32 = 1000;
    let mut redriven = 0;
    loop {
        let step = max.map_or(STEP, |max| STEP.min(max.saturating_sub(u32::try_from(redriven).unwrap_or(u32::MAX))));
        if step == 0 {
            break;
        }
        let moved = queues.redrive(queue, step).await?;
        redriven += moved;
        if moved < u64::from(step) {
            break;
        }
    }
    out.done(&json!({"queue": queue, "redriven": redriven}), || {
        format!("sent {} back to `{queue}`", count(redriven, "dead letter", "dead letters"))
    })
}
