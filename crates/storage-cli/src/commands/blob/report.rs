//! What came of many files: a sentence or an object, and what went wrong.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};
use storage_core::{EachFn, Error, FileAction, FileDone, PutOptions, Result, Skip, TransferOptions, TransferReport};

use super::pattern::{Glob, Selection};
use crate::args::rate;
use crate::context::Context;
use crate::exit::{Failure, code_of, one_line};
use crate::output::{Out, count, size};
use crate::progress;

/// How many errors are shown.
const SHOWN: usize = 20;

/// Options of everything that moves many files.
#[derive(Args, Clone, Debug)]
pub(crate) struct ManyArgs {
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// So many files, or parts of large ones, at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = parallel)]
    pub(crate) parallel: usize,
    /// So many bytes a second at most, of all together (512K, 10M, 1G)
    #[arg(long, value_name = "RATE", value_parser = rate)]
    pub(crate) bwlimit: Option<NonZeroU64>,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    pub(crate) dry_run: bool,
}

pub(crate) fn parallel(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| (1..=256).contains(n)).ok_or_else(|| "a number from 1 to 256".into())
}

impl ManyArgs {
    /// Options for a transfer that a bar shows; what matches `glob`, of what is selected.
    pub(crate) fn options(
        &self,
        glob: Option<Glob>,
        put: PutOptions,
        bar: &ProgressBar,
        context: &Context,
    ) -> Result<TransferOptions> {
        Ok(TransferOptions {
            parallel: self.parallel,
            skip: Skip::Nothing,
            filter: self.selection.filter(glob)?,
            delete: false,
            dry_run: self.dry_run,
            keep_going: true,
            remove_source: false,
            bytes_per_second: self.bwlimit,
            progress: progress::follow(bar),
            each: each(self.dry_run, bar, context),
            put,
        })
    }
}

/// What says what is done with each file, where that is to be told.
pub(crate) fn each(dry_run: bool, bar: &ProgressBar, context: &Context) -> Option<EachFn> {
    if !dry_run && context.verbosity() == 0 {
        return None;
    }
    let (bar, out, skips) = (bar.clone(), Arc::clone(&context.out), context.verbosity() > 1);
    Some(Arc::new(move |done: &FileDone| {
        if done.action != FileAction::Skipped || skips {
            // Where nobody reads the output any more, the transfer goes on all the same.
            bar.suspend(|| drop(tell(done, &out)));
        }
    }))
}

fn tell(done: &FileDone, out: &Out) -> Result<(), Failure> {
    let action = done.action.as_str();
    if out.is_json() {
        return out.json(&json!({"path": done.path, "action": action, "bytes": done.bytes}));
    }
    match done.action {
        FileAction::Removed => out.line(format!("{action:8} {}", crate::output::printable(&done.path))),
        _ => out.line(format!("{action:8} {} ({})", crate::output::printable(&done.path), size(done.bytes))),
    }
}

/// `, 3.2 s, 12 MiB/s`: how long it took, and how fast it was where that says anything.
pub(crate) fn pace(bytes: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    if seconds < 0.05 || bytes == 0 {
        return String::new();
    }
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for people")]
    let rate = (bytes as f64 / seconds) as u64;
    format!(" in {seconds:.1} s, {}/s", size(rate))
}

/// Seconds for programs, to the millisecond.
pub(crate) fn seconds(elapsed: Duration) -> Value {
    json!((elapsed.as_secs_f64() * 1000.0).round() / 1000.0)
}

fn json_failures(failures: &[Error]) -> Value {
    let failures = failures.iter();
    json!(
        failures.map(|e| json!({"subject": e.subject(), "kind": e.kind().as_str(), "message": e.message()})).collect::<Vec<_>>()
    )
}

/// Reports a transfer; where files failed, the exit code is that of the first.
pub(crate) fn finish(report: &TransferReport, dry_run: bool, out: &Out) -> Result<(), Failure> {
    let TransferReport { files, bytes, skipped, removed, failed, failures, elapsed } = report;
    let mut object = json!({
        "files": files, "bytes": bytes, "skipped": skipped, "removed": removed, "failed": failed, "seconds": seconds(*elapsed),
    });
    if dry_run {
        object["dry_run"] = json!(true);
    }
    if !failures.is_empty() {
        object["failures"] = json_failures(failures);
    }
    out.done(&object, || {
        let mut parts = vec![format!("{} written ({}){}", count(*files, "file", "files"), size(*bytes), pace(*bytes, *elapsed))];
        parts.extend((*skipped > 0).then(|| format!("{} there already", indicatif::HumanCount(*skipped))));
        parts.extend((*removed > 0).then(|| format!("{} removed", indicatif::HumanCount(*removed))));
        parts.extend((*failed > 0).then(|| format!("{} failed", indicatif::HumanCount(*failed))));
        let sentence = parts.join(", ");
        if dry_run { format!("would be: {sentence}") } else { sentence }
    })?;
    complain(failures, *failed, out)
}

/// Shows errors of single files, and ends with the code of the first.
pub(crate) fn complain(failures: &[Error], failed: u64, out: &Out) -> Result<(), Failure> {
    let Some(first) = failures.first() else { return Ok(()) };
    out.flush()?;
    for error in failures.iter().take(SHOWN) {
        crate::exit::say(format!("storage: {}", one_line(&error.to_string())));
    }
    if failed > SHOWN as u64 {
        crate::exit::say(format!("storage: and {} more", count(failed - SHOWN as u64, "failure", "failures")));
    }
    Err(Failure::Silent(code_of(first.kind())))
}

/// Runs `work`; broken off by a signal, it says how to go on.
pub(crate) async fn or_say<T>(hint: &str, out: &Out, work: impl Future<Output = T>) -> T {
    struct Hint<'a>(Option<&'a str>, &'a Out);
    impl Drop for Hint<'_> {
        fn drop(&mut self) {
            if let Some(text) = self.0 {
                self.1.note(format!("storage: interrupted: {text}"));
            }
        }
    }
    let mut hint = Hint(Some(hint), out);
    let done = work.await;
    hint.0 = None;
    done
}
