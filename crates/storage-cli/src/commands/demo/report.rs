//! What a run of the demo found, as a table and as a blob.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::files::Counted;
use super::verify::Check;
use crate::exit::Failure;
use crate::output::{Out, size};

/// How many kinds of files are shown.
const KINDS: usize = 12;
/// How many of the largest files are shown.
const LARGEST: usize = 5;

/// How fast something went.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Speed {
    tasks: u64,
    bytes: u64,
    seconds: f64,
    tasks_per_second: f64,
}

impl Speed {
    pub(super) fn new(tasks: u64, bytes: u64, took: Duration) -> Self {
        let seconds = took.as_secs_f64().max(1e-6);
        #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
        let tasks_per_second = tasks as f64 / seconds;
        Self { tasks, bytes, seconds, tasks_per_second }
    }

    fn in_words(&self, verb: &str) -> String {
        let Self { tasks, bytes, seconds, tasks_per_second } = *self;
        let bytes_per_second = if bytes > 0 {
            #[expect(
                clippy::cast_precision_loss,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rate for people"
            )]
            let rate = (bytes as f64 / seconds) as u64;
            format!(", {}/s", size(rate))
        } else {
            String::new()
        };
        let tasks = indicatif::HumanCount(tasks);
        format!("{verb} {tasks} tasks in {seconds:.2} s ({tasks_per_second:.0}/s{bytes_per_second})")
    }
}

/// Files of one kind together.
#[derive(Clone, Debug, Default, Serialize)]
struct Kind {
    files: u64,
    bytes: u64,
    lines: u64,
}

impl Kind {
    fn add(&mut self, files: u64, bytes: u64, lines: u64) {
        self.files += files;
        self.bytes += bytes;
        self.lines += lines;
    }
}

/// What a run found. Written as a blob.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    run: String,
    folder: String,
    total: Kind,
    failed: u64,
    submitting: Speed,
    working: Speed,
    /// By the end of the name.
    kinds: BTreeMap<String, Kind>,
    /// By path.
    files: Vec<Counted>,
}

impl Report {
    pub(super) fn new(run: &str, folder: &Path, counted: &HashMap<String, Counted>, submitting: Speed, working: Speed) -> Self {
        let mut files: Vec<_> = counted.values().cloned().collect();
        files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let (mut total, mut kinds) = (Kind::default(), BTreeMap::<String, Kind>::new());
        for file in &files {
            total.add(1, file.bytes, file.lines);
            kinds.entry(ending(&file.path)).or_default().add(1, file.bytes, file.lines);
        }
        let failed = files.iter().filter(|file| file.failure.is_some()).count() as u64;
        let folder = folder.display().to_string();
        Self { run: run.to_owned(), folder, total, failed, submitting, working, kinds, files }
    }

    /// Shows everything but the list of files.
    pub(super) fn show(&self, out: &Out, checks: &[Check]) -> Result<(), Failure> {
        if out.is_json() {
            return out.json(&serde_json::json!({
                "run": self.run, "folder": self.folder, "total": self.total, "failed": self.failed, "submitting": self.submitting,
                "working": self.working, "kinds": self.kinds, "checks": checks, "ok": checks.iter().all(|check| check.ok),
            }));
        }
        out.line(self.submitting.in_words("submitted"))?;
        out.line(self.working.in_words("ran"))?;
        out.line("")?;
        self.show_kinds(out)?;
        self.show_largest(out)?;
        for file in self.files.iter().filter(|file| file.failure.is_some()).take(LARGEST) {
            out.line(format!("failed: {}: {}", file.path, file.failure.as_deref().unwrap_or_default()))?;
        }
        out.line("")?;
        for Check { ok, what, .. } in checks {
            out.line(format!("{}  {what}", if *ok { "ok    " } else { "FAILED" }))?;
        }
        Ok(())
    }

    fn show_kinds(&self, out: &Out) -> Result<(), Failure> {
        let mut sorted: Vec<_> = self.kinds.iter().map(|(name, kind)| (name.clone(), kind.clone())).collect();
        sorted.sort_by_key(|(_, kind)| std::cmp::Reverse(kind.bytes));
        if sorted.len() > KINDS + 1 {
            let mut rest = Kind::default();
            let others = sorted.split_off(KINDS);
            others.iter().for_each(|(_, kind)| rest.add(kind.files, kind.bytes, kind.lines));
            sorted.push((format!("({} more)", others.len()), rest));
        }
        sorted.push(("all".into(), self.total.clone()));
        let mut listing = out.listing(["TYPE", ">FILES", ">SIZE", ">LINES"]);
        for (name, kind) in sorted {
            let number = |n: u64| indicatif::HumanCount(n).to_string();
            listing.row(&(), || vec![name, number(kind.files), size(kind.bytes), number(kind.lines)])?;
        }
        listing.end().map(drop)
    }

    fn show_largest(&self, out: &Out) -> Result<(), Failure> {
        let mut largest: Vec<_> = self.files.iter().filter(|file| file.failure.is_none()).collect();
        largest.sort_by_key(|file| std::cmp::Reverse(file.bytes));
        out.line("")?;
        let mut listing = out.listing([">SIZE", ">LINES", "SHA-256", "LARGEST FILES"]);
        for file in largest.into_iter().take(LARGEST) {
            let hash = format!("{}…", file.sha256.get(..12).unwrap_or_default());
            listing
                .row(&(), || vec![size(file.bytes), indicatif::HumanCount(file.lines).to_string(), hash, file.path.clone()])?;
        }
        listing.end().map(drop)
    }
}

/// `.rs` of `src/main.rs`; the whole name where there is no ending.
fn ending(path: &str) -> String {
    const LONGEST: usize = 12;
    let ending = Path::new(path).extension().and_then(|ending| ending.to_str());
    ending
        .filter(|ending| ending.len() <= LONGEST)
        .map_or_else(|| "(none)".into(), |ending| format!(".{}", ending.to_lowercase()))
}
