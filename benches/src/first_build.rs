//! Section `build`: the first build of the command, with nothing compiled before. Only when asked for by name.

use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::context::Context;
use crate::measure::{Entry, Outcome};
use crate::queue::last_line;
use crate::report::{Better, Goal, Metric, Section, Table, Target};
use crate::subject::Role;

const INTRO: &str = "\
`cargo build --release` of the command with an empty target folder, as the first `cargo run --release -- demo` on a bare machine \
does it. The crates' sources are downloaded already. Measured once.";

/// Two jobs, the size of machine that the target is for.
const JOBS: &str = "2";

/// Builds once and takes the time.
pub async fn run(context: &Context) -> Result<Section> {
    context.progress("build: the command, from nothing");
    let target = context.folder()?;
    let started = Instant::now();
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(context.root())
        .args(["build", "--release", "--jobs", JOBS, "--target-dir"])
        .arg(target.path())
        .output()
        .await
        .context("starting cargo")?;
    let seconds = started.elapsed().as_secs_f64();
    if !output.status.success() {
        bail!("the command does not build: {}", last_line(&output.stderr));
    }
    let table = Table {
        title: format!("first build, {JOBS} jobs"),
        metrics: vec![Metric { name: "time".to_owned(), unit: "s".to_owned(), better: Better::Lower }],
        entries: vec![Entry {
            subject: "cargo build --release".to_owned(),
            role: Role::Ours,
            note: String::new(),
            outcome: Outcome::Measured(vec![vec![seconds]]),
        }],
        targets: vec![Target { metric: 0, goal: Goal::AtMost(180.0), group: "build: seconds on two cores".to_owned() }],
    };
    Ok(Section { rounds: 1, ..context.section("build", "First build", INTRO, vec![table]) })
}
