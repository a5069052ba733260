//! `storage schedule`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};
use storage_core::{Error, PageToken, value};
use storage_tasks::{Misfire, NewSchedule, Schedule, ScheduleSpec, ScheduleStore, Scheduler, SchedulerOptions};

use super::beside::Beside;
use super::task::{OptionArgs, name};
use crate::args::duration;
use crate::context::Context;
use crate::exit::Failure;
use crate::input;
use crate::output::{Out, time};

#[derive(Debug, Subcommand)]
pub(crate) enum ScheduleCommand {
    /// Add a schedule that submits a task at given times
    #[command(after_help = "\
Examples:
  storage schedule add nightly report --cron '0 3 * * *' --timezone Europe/Berlin
  storage schedule add heartbeat ping --every 5m
  storage schedule add launch announce --at 2026-12-24T18:00:00Z --input '{\"to\": \"all\"}'
  storage schedule run                                   submits what is due, until Ctrl-C")]
    Add(Box<AddArgs>),
    /// List the schedules
    Ls,
    /// Remove a schedule; tasks that it submitted stay
    Rm {
        /// The schedule
        name: String,
        /// Fine if it is not there
        #[arg(long)]
        missing_ok: bool,
    },
    /// Stop a schedule from firing
    Pause {
        /// The schedule
        name: String,
    },
    /// Let a paused schedule fire again
    Resume {
        /// The schedule
        name: String,
    },
    /// Submit tasks when they are due, until Ctrl-C or SIGTERM; any number may run. With NAME: submit that one's task now
    Run {
        /// Submit this schedule's task now, and end
        name: Option<String>,
        /// Submit what is due now, and end
        #[arg(long, conflicts_with = "name")]
        once: bool,
    },
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("when").required(true).args(["cron", "every", "at"]))]
pub(crate) struct AddArgs {
    /// The schedule's name
    name: String,
    /// The kind of task that it submits
    kind: String,
    /// A cron pattern: minute, hour, day, month, weekday; @daily and the like
    #[arg(long, value_name = "PATTERN")]
    cron: Option<String>,
    /// The time zone of the pattern
    #[arg(long, value_name = "ZONE", requires = "cron", default_value = "UTC")]
    timezone: String,
    /// Every so often, from now on
    #[arg(long, value_name = "TIME", value_parser = duration)]
    every: Option<Duration>,
    /// Once: 2026-12-24T18:00:00Z
    #[arg(long, value_name = "MOMENT", value_parser = moment)]
    at: Option<DateTime<Utc>>,
    /// What the worker is given, as JSON
    #[arg(long, short, value_name = "JSON")]
    input: Option<String>,
    /// What becomes of times that no `schedule run` was there for: skip, once, or a number: so many at most
    #[arg(long, value_name = "HOW", default_value = "once", value_parser = misfire)]
    missed: Misfire,
    #[command(flatten)]
    options: OptionArgs,
}

fn moment(text: &str) -> Result<DateTime<Utc>, String> {
    value::parse_timestamp(text).map_err(|e| e.message().to_owned())
}

fn misfire(text: &str) -> Result<Misfire, String> {
    match text {
        "skip" => Ok(Misfire::Skip),
        "once" => Ok(Misfire::Once),
        number => number.parse().map(Misfire::All).map_err(|_| format!("{text:?} is none of skip, once and a number")),
    }
}

pub(crate) async fn run(command: ScheduleCommand, context: &Context) -> Result<(), Failure> {
    let (out, schedules) = (&context.out, context.storage().await?.schedules().await?);
    match command {
        ScheduleCommand::Add(args) => add(*args, &schedules, out).await,
        ScheduleCommand::Ls => list(&schedules, out).await,
        ScheduleCommand::Rm { name, missing_ok } => {
            let removed = schedules.remove(&name).await?;
            if !removed && !missing_ok {
                return Err(Error::not_found(format!("there is no schedule `{name}`")).into());
            }
            out.done(&json!({"name": name, "removed": removed}), || match removed {
                true => format!("removed schedule `{name}`"),
                false => format!("there was no schedule `{name}`"),
            })
        }
        ScheduleCommand::Pause { name } => {
            let schedule = schedules.pause(&name).await?;
            out.done(&schedule, || format!("paused schedule `{name}`"))
        }
        ScheduleCommand::Resume { name } => {
            let schedule = schedules.resume(&name).await?;
            out.done(&schedule, || format!("schedule `{name}` fires again: {}", next(&schedule)))
        }
        ScheduleCommand::Run { name: only, once } => fire(only, once, &schedules, context).await,
    }
}

async fn add(args: AddArgs, schedules: &ScheduleStore, out: &Out) -> Result<(), Failure> {
    let spec = match (args.cron, args.every, args.at) {
        (Some(pattern), ..) => ScheduleSpec::cron_in(pattern, args.timezone),
        (_, Some(every), _) => ScheduleSpec::every(every),
        (.., Some(at)) => ScheduleSpec::at(at),
        // The command line has one of them.
        (None, None, None) => return Err(Error::invalid("say when: --cron, --every or --at").into()),
    };
    let payload = match &args.input {
        Some(json) => input::json_or_stdin(json, "the input").await?,
        None => Value::Null,
    };
    let new = NewSchedule::new(args.name, spec, args.kind, payload).options(args.options.options()).misfire(args.missed);
    let schedule = schedules.add(new).await?;
    out.done(&schedule, || format!("added schedule `{}`: {}", schedule.name, next(&schedule)))
}

fn next(schedule: &Schedule) -> String {
    match (schedule.paused, schedule.next_at) {
        (true, _) => "paused".into(),
        (false, Some(at)) => format!("next at {}", time(at)),
        (false, None) => "over".into(),
    }
}

fn spec(spec: &ScheduleSpec) -> String {
    match spec {
        ScheduleSpec::Cron { pattern, timezone } => format!("{pattern} {timezone}"),
        ScheduleSpec::Every { every } => format!("every {}", humantime::format_duration(*every)),
        ScheduleSpec::At { at } => format!("at {}", time(*at)),
    }
}

async fn list(schedules: &ScheduleStore, out: &Out) -> Result<(), Failure> {
    let mut listing = out.listing(["SCHEDULE", "WHEN", "KIND", "NEXT", "LAST"]);
    let mut after: Option<PageToken> = None;
    loop {
        let page = schedules.list(1000, after).await?;
        for schedule in &page.schedules {
            listing.row(schedule, || {
                let (next, last) = (next(schedule), schedule.last_at.map_or_else(|| "-".into(), time));
                let next = next.trim_start_matches("next at ").to_owned();
                vec![schedule.name.clone(), spec(&schedule.spec), schedule.kind.clone(), next, last]
            })?;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if listing.end()? == 0 && !out.is_json() {
        out.note("no schedules yet: `storage schedule add --help` shows how");
    }
    Ok(())
}

async fn fire(only: Option<String>, once: bool, schedules: &ScheduleStore, context: &Context) -> Result<(), Failure> {
    let (out, tasks) = (&context.out, context.storage().await?.tasks().await?);
    let scheduler = Scheduler::new(schedules, &tasks, SchedulerOptions::default());
    if let Some(schedule) = only {
        let submitted = scheduler.trigger(&schedule).await?;
        let id = submitted.task.id();
        let said = json!({"name": schedule, "resource_id": id.resource_id, "task_id": id.task_id});
        return out.done(&said, || format!("submitted task {}", name(&id)));
    }
    let report = if once {
        scheduler.tick().await?
    } else {
        context.storage().await?.serve_metrics()?;
        let beside = Beside::start(context.storage().await?, &tasks).await?;
        let report = scheduler.run(context.signals.stop()).await;
        beside.end().await;
        report
    };
    let said = json!({"submitted": report.fired, "there_already": report.repeated, "failed": report.failed});
    out.done(&said, || format!("submitted {}, {} failed", crate::output::count(report.fired, "task", "tasks"), report.failed))?;
    if report.failed > 0 { Err(Failure::Silent(1)) } else { Ok(()) }
}
