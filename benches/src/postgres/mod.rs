//! Section `postgres`: records and a queue on PostgreSQL at `synchronous_commit=on`.
//!
//! The server is found by the variable in which `cargo xtask bench` tells where it has started it.

mod apalis;
mod peers;
mod queue;
mod records;

use anyhow::{Context as _, Result};
use storage_postgres::PostgresDriver;

use crate::brokers::{Ours, Subject, at_least, measure};
use crate::context::Context;
use crate::ours;
use crate::records::{Plan, Sizes, tables};
use crate::report::{Section, Target};
use crate::subject::Role;

const VARIABLE: &str = "XTASK_TEST_POSTGRES";

const INTRO: &str = "\
A table with a text key and five more columns, one of them indexed, and a queue, as in the sections above, on a server that is a process of \
its own on this machine, is reached by TCP, and shares its two cores with the subjects. Every commit is on its disk before it says so \
(`fsync` and `synchronous_commit` are on). The raw side of the records uses sqlx 0.9 with prepared statements on one held connection (a \
pool for the single inserts).";

/// Measures records, then queues.
///
/// # Errors
///
/// Where there is no server.
pub async fn run(context: &Context) -> Result<Section> {
    let address = std::env::var(VARIABLE)
        .context("there is no PostgreSQL to measure: use `cargo xtask bench --section postgres`, which starts one")?;
    let mut measured = Vec::new();
    // They have no cases to pick from.
    if context.case.is_empty() && context.subject.is_empty() {
        measured.extend(tables(context, &plan(context, &address)).await?);
    }
    let peers = peers::install(context).await;
    let subjects = || {
        let mut subjects: Vec<Box<dyn Subject>> = vec![
            Box::new(Ours::new("storage-postgres", &PostgresDriver, &address)),
            Box::new(queue::Raw { address: address.clone() }),
            Box::new(apalis::Apalis { address: address.clone() }),
        ];
        subjects.extend(peers::subjects(&peers, &address, context));
        subjects
    };
    measured.extend(measure(context, "PostgreSQL", [1_600, 16_000], subjects, targets).await);
    Ok(context.section("postgres", "Records and queue on PostgreSQL", INTRO, measured))
}

fn plan(context: &Context, address: &str) -> Plan {
    let whole = Sizes { rows: 200_000, gets: 5_000, queries: 500, batches: 10, batch: 1_000, callers: 64, singles: 50 };
    let ours = {
        let address = address.to_owned();
        move || ours::records::postgres(&address)
    };
    let raw = |connections| {
        let address = address.to_owned();
        move || -> Box<dyn crate::subject::RecordSubject> { Box::new(records::Raw::new(&address, connections)) }
    };
    Plan {
        group: "PostgreSQL records",
        durability: "synchronous_commit=on",
        sizes: if context.quick { Sizes::QUICK } else { whole },
        loaded: vec![Box::new(ours.clone()), Box::new(raw(1))],
        singles: vec![Box::new(ours), Box::new(raw(10)), Box::new(raw(64))],
        at_least: 0.85,
        singles_at_least: 2.0,
    }
}

fn targets() -> Vec<Target> {
    let by_hand = |metric| at_least(metric, Role::Baseline, 0.8, "PostgreSQL queue: the best batched SQL by hand");
    let peers =
        |metric| at_least(metric, Role::Peer, 1.0, "PostgreSQL queue: the best of apalis, graphile-worker and procrastinate");
    vec![by_hand(0), by_hand(1), peers(0), peers(1)]
}
