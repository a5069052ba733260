//! `storage check`.

mod probe;

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Map, Value, json};
use storage_core::{BackendInfo, Error, Result};
use storage_facade::Component;

use self::probe::Probe;
use crate::args::duration;
use crate::context::Context;
use crate::exit::{Failure, code_of, one_line, say};

#[derive(Args, Debug)]
#[command(after_help = "\
Each component is opened; a probe of its own (a table, a queue, a blob below .storage-check) is written, read, listed and removed again, also where one of these fails. Nothing else is touched. Where one fails, the exit code is that of its error. What nobody has configured is told, and is no failure.

Examples:
  storage check
  storage check --no-write                              with credentials that may only read
  storage check --url sqlite:///app.db --json | jq -r .location")]
pub(crate) struct CheckArgs {
    /// Open and list alone
    #[arg(long)]
    no_write: bool,
    /// How long a step may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    timeout: Duration,
}

/// What is tried, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Step {
    #[default]
    Open,
    Write,
    Read,
    List,
    Delete,
}

impl Step {
    const ALL: [Self; 5] = [Self::Open, Self::Write, Self::Read, Self::List, Self::Delete];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Write => "write",
            Self::Read => "read",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// What was found out about one component.
#[derive(Default)]
struct Report {
    info: Option<BackendInfo>,
    capabilities: Value,
    /// How long each step took that went well.
    took: [Option<Duration>; Step::ALL.len()],
    error: Option<(Step, Error)>,
    /// What could not be removed again, and why.
    left: Option<(String, Error)>,
}

pub(crate) async fn run(args: CheckArgs, context: &Context) -> Result<(), Failure> {
    let (out, storage) = (&context.out, context.storage().await?);
    let mut listing = out.listing(["COMPONENT", "DRIVER", "LOCATION", "STATUS", ">OPEN", ">WRITE", ">READ", ">LIST", ">DELETE"]);
    let mut abilities: Vec<(String, Vec<Component>)> = Vec::new();
    let mut reports = Vec::new();
    for component in Component::ALL {
        if !storage.is_configured(component) {
            listing.row(&json_report(component, None), || cells(component, None))?;
            continue;
        }
        let mut probe = Probe::new(component, storage, args.timeout);
        let signal = tokio::select! {
            outcome = look(&mut probe, args.no_write) => {
                probe.fail(outcome.err());
                None
            }
            signal = context.signals.next() => Some(signal),
        };
        // The probe goes, however far it came.
        let report = probe.clean_up().await;
        if let Some(signal) = signal {
            complain(&[(component, report)]);
            return Err(Failure::Signal(signal));
        }
        listing.row(&json_report(component, Some(&report)), || cells(component, Some(&report)))?;
        if report.error.is_none() {
            let ability = in_words(&report);
            match abilities.iter_mut().find(|(known, _)| *known == ability) {
                Some((_, components)) => components.push(component),
                None => abilities.push((ability, vec![component])),
            }
        }
        reports.push((component, report));
    }
    listing.end()?;
    if !out.is_json() {
        for (ability, components) in &abilities {
            let names: Vec<_> = components.iter().map(|c| c.key()).collect();
            out.line(format!("\n{}:\n{ability}", names.join(", ")))?;
        }
        out.flush()?;
    }
    complain(&reports);
    let first = reports.iter().find_map(|(_, report)| report.error.as_ref());
    first.map_or(Ok(()), |(_, error)| Err(Failure::Silent(code_of(error.kind()))))
}

async fn look(probe: &mut Probe<'_>, no_write: bool) -> Result<()> {
    probe.open().await?;
    if no_write { probe.list().await } else { probe.exercise().await }
}

/// Says what went wrong; components that share a backend share what is wrong with it.
fn complain(reports: &[(Component, Report)]) {
    let mut said: Vec<(String, Vec<&str>)> = Vec::new();
    for (component, report) in reports {
        let error = report.error.as_ref().map(|(step, error)| format!("{}: {}", step.as_str(), one_line(&error.to_string())));
        let left = report.left.as_ref().map(|(what, error)| format!("{what} is left behind: {}", one_line(error.message())));
        for message in error.into_iter().chain(left) {
            match said.iter_mut().find(|(known, _)| *known == message) {
                Some((_, components)) => components.push(component.key()),
                None => said.push((message, vec![component.key()])),
            }
        }
    }
    for (message, components) in said {
        say(format!("storage: {}: {message}", components.join(", ")));
    }
}

fn millis(took: Duration) -> f64 {
    took.as_secs_f64() * 1000.0
}

/// `None`: nobody has configured it.
fn cells(component: Component, report: Option<&Report>) -> Vec<String> {
    let Some(report) = report else {
        let dashes = ["–", "–", "not configured", "", "", "", "", ""];
        return std::iter::once(component.to_string()).chain(dashes.map(str::to_owned)).collect();
    };
    let (driver, location) = match &report.info {
        Some(info) => (info.driver.clone(), info.location.clone()),
        None => ("?".into(), "?".into()),
    };
    let status = match &report.error {
        None => "ok".to_owned(),
        Some((step, error)) => format!("{} FAILED: {}", step.as_str(), error.kind()),
    };
    let took = report.took.iter().map(|took| took.map_or_else(String::new, |took| format!("{:.1} ms", millis(took))));
    [component.to_string(), driver, location, status].into_iter().chain(took).collect()
}

/// `None`: nobody has configured it.
fn json_report(component: Component, report: Option<&Report>) -> Value {
    let (configured, nothing) = (report.is_some(), Report::default());
    let report = report.unwrap_or(&nothing);
    let mut object = Map::from_iter([
        ("component".to_owned(), json!(component.key())),
        ("configured".to_owned(), json!(configured)),
        ("ok".to_owned(), json!(configured.then_some(report.error.is_none()))),
        ("driver".to_owned(), json!(report.info.as_ref().map(|i| &i.driver))),
        ("location".to_owned(), json!(report.info.as_ref().map(|i| &i.location))),
        ("capabilities".to_owned(), report.capabilities.clone()),
        ("failed_step".to_owned(), json!(report.error.as_ref().map(|(step, _)| step.as_str()))),
        (
            "error".to_owned(),
            json!(report.error.as_ref().map(|(_, e)| json!({"kind": e.kind().as_str(), "message": e.to_string()}))),
        ),
        ("left_behind".to_owned(), json!(report.left.as_ref().map(|(what, _)| what))),
    ]);
    for (step, took) in Step::ALL.into_iter().zip(report.took) {
        object.insert(format!("{}_ms", step.as_str()), json!(took.map(millis)));
    }
    Value::Object(object)
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

/// Runs a step no longer than `limit`, and notes how long it took.
async fn timed<T>(
    report: &mut Report,
    at: &mut Step,
    step: Step,
    limit: Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    *at = step;
    let started = Instant::now();
    let outcome = tokio::time::timeout(limit, work).await;
    let done = outcome.unwrap_or_else(|_| Err(Error::timeout(format!("no answer within {limit:?}"))))?;
    report.took[step as usize] = Some(started.elapsed());
    Ok(done)
}
