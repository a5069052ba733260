//! `cargo xtask ci`: everything a change has to pass, to the end, whatever fails on the way.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::args::TestOptions;
use crate::report::{Tally, seconds};
use crate::table::{Align, Table};
use crate::workspace::Workspace;
use crate::{Failure, Result, docs, process, provision, test};

/// What a step ends with: numbers, and a remark for the table.
type Ended = (Tally, &'static str);

/// A step as the table shows it.
struct Step {
    name: &'static str,
    tally: Tally,
    remark: String,
    time: Duration,
}

/// Runs all steps and prints the table. The caller prints the tally: test cases, and one for each other step.
///
/// # Errors
///
/// Only when interrupted.
pub(crate) fn run(workspace: &Workspace) -> Result<Tally> {
    let steps: [(&str, &dyn Fn() -> Result<Ended>); 6] = [
        ("format", &|| format(workspace)),
        ("lints", &|| lints(workspace)),
        ("tests", &|| tests(workspace)),
        ("documentation", &|| docs::api(workspace).map(one)),
        ("links", &|| docs::check_links(workspace).map(one)),
        ("dependencies", &|| dependencies(workspace)),
    ];
    let mut done = Vec::new();
    for (name, step) in steps {
        println!("\n━━ {name}");
        let start = Instant::now();
        let (tally, remark) = match step() {
            Ok((tally, remark)) => (tally, remark.to_owned()),
            Err(Failure::Interrupted) => return Err(Failure::Interrupted),
            Err(Failure::Failed(message) | Failure::Usage(message)) => {
                eprintln!("error: {message}");
                (one(false).0, message)
            }
        };
        done.push(Step { name, tally, remark, time: start.elapsed() });
    }
    println!("\n{}\n", table(&done).render());
    Ok(sum(&done))
}

fn sum(steps: &[Step]) -> Tally {
    steps.iter().fold(Tally::default(), |sum, step| Tally {
        passed: sum.passed + step.tally.passed,
        failed: sum.failed + step.tally.failed,
        skipped: sum.skipped + step.tally.skipped,
    })
}

fn table(steps: &[Step]) -> Table {
    let head = [("step", Align::Left), ("result", Align::Left), ("passed", Align::Right), ("failed", Align::Right)];
    let mut table = Table::new(head.into_iter().chain([("time", Align::Right), ("remark", Align::Left)]));
    let row = |name: &str, tally: Tally, time: Duration, remark: &str| {
        let result = if tally.failed == 0 { "ok" } else { "FAILED" };
        let numbers = [result.to_owned(), tally.passed.to_string(), tally.failed.to_string(), seconds(time)];
        std::iter::once(name.to_owned()).chain(numbers).chain([remark.to_owned()]).collect()
    };
    for step in steps {
        table.row(row(step.name, step.tally, step.time, &step.remark));
    }
    table.foot(row("total", sum(steps), steps.iter().map(|step| step.time).sum(), ""));
    table
}

fn one(well: bool) -> Ended {
    (Tally { passed: usize::from(well), failed: usize::from(!well), skipped: 0 }, "")
}

fn succeeded(command: Command) -> Result<bool> {
    Ok(process::run(command)?.success())
}

fn format(workspace: &Workspace) -> Result<Ended> {
    let mut command = workspace.cargo();
    command.args(["fmt", "--all", "--", "--check"]);
    let mut well = succeeded(command)?;
    if workspace.root.join("benches/Cargo.toml").exists() {
        let mut command = workspace.cargo();
        command.args(["fmt", "--all", "--manifest-path", "benches/Cargo.toml", "--", "--check"]);
        well &= succeeded(command)?;
    }
    Ok(one(well))
}

fn lints(workspace: &Workspace) -> Result<Ended> {
    let mut command = workspace.cargo();
    command.args(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]);
    Ok(one(succeeded(command)?))
}

fn tests(workspace: &Workspace) -> Result<Ended> {
    let tally = test::run(workspace, &TestOptions { all: true, ..TestOptions::default() })?;
    Ok((tally, "table above"))
}

fn dependencies(workspace: &Workspace) -> Result<Ended> {
    provision::ensure(workspace, &provision::CARGO_DENY)?;
    let deny = |arguments: &[&str]| {
        let mut command = workspace.cargo();
        command.arg("deny").args(arguments).env("PATH", provision::search_path(workspace));
        succeeded(command)
    };
    // Advisories are in a git repository, which not every machine can reach. Whether it can be fetched is asked apart, because
    // `check` answers alike to an advisory and to a database that is not there.
    let advisories = deny(&["fetch", "db"])?;
    let remark = if advisories { "" } else { "advisories NOT checked: their database can't be fetched" };
    if !advisories {
        println!("{remark}");
    }
    let checks: &[&str] = if advisories { &["advisories"] } else { &[] };
    let well = deny(&[&["check", "--hide-inclusion-graph", "bans", "licenses", "sources"], checks].concat())?;
    Ok((one(well).0, remark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_steps() {
        let step =
            |name, tally: Tally, remark: &str| Step { name, tally, remark: remark.to_owned(), time: Duration::from_secs(90) };
        let tests = Tally { passed: 7, failed: 2, skipped: 0 };
        let steps = [step("format", one(true).0, ""), step("tests", tests, "table above"), step("links", one(false).0, "")];
        let expected = "\
step    result  passed  failed   time  remark
──────  ──────  ──────  ──────  ─────  ───────────
format  ok           1       0  90.0s
tests   FAILED       7       2  90.0s  table above
links   FAILED       0       1  90.0s
──────  ──────  ──────  ──────  ─────  ───────────
total   FAILED       8       3  4m30s";
        assert_eq!(table(&steps).render(), expected);
        assert_eq!(sum(&steps).to_string(), "8 passed, 3 failed");
    }
}
