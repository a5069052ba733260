//! What ran, how it is grouped, and the table of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::table::{Align, Table};
use crate::workspace::CONFORMANCE;

/// The components that conformance suites are named after, in the order of the tables.
pub(crate) const COMPONENTS: [&str; 4] = ["records", "transactions", "queues", "blobs"];

/// What kind of test binary a test stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// In the library or the program itself.
    Unit,
    /// In a file of `tests/`.
    Integration,
    /// In the documentation.
    Doc,
    /// No test: the test runner itself, which can fail too.
    Runner,
}

/// A test binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binary {
    pub(crate) package: String,
    pub(crate) kind: Kind,
    /// The file in `tests/` without its ending; for others the library or program.
    pub(crate) name: String,
}

/// How a test ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Passed,
    Failed,
    /// Did not run, or gave up at once, for this reason.
    Skipped(String),
}

/// One test.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Case {
    pub(crate) binary: Binary,
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    pub(crate) time: Duration,
}

/// What a line of the table is about. Ordered as the table is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Group {
    /// Conformance suites come first, in the order of [`COMPONENTS`].
    pub(crate) rank: usize,
    pub(crate) suite: String,
    /// Empty where a test concerns no single backend.
    pub(crate) backend: String,
}

/// Names the group of a test.
///
/// A test `records::put` in the binary `conformance` of package `storage-sqlite` belongs to suite `records`, backend `sqlite`. A
/// crate that runs its suites against several services puts their name in front: `s3::blobs::put` in `storage-object` belongs to
/// suite `blobs`, backend `object/s3`. All others are grouped by crate and kind.
pub(crate) fn group(binary: &Binary, test: &str) -> Group {
    let crate_name = binary.package.strip_prefix("storage-");
    if let Some(backend) = crate_name.filter(|_| binary.kind == Kind::Integration && binary.name == CONFORMANCE) {
        let path: Vec<&str> = test.split("::").collect();
        let component = path.iter().enumerate().find_map(|(at, part)| Some((at, COMPONENTS.iter().position(|c| c == part)?)));
        return match component {
            Some((at, rank)) => {
                let backend = std::iter::once(backend).chain(path[..at].iter().copied()).collect::<Vec<_>>().join("/");
                Group { rank, suite: COMPONENTS[rank].to_owned(), backend }
            }
            // A case outside the four components is shown, so that a wrong name is seen.
            None => Group { rank: COMPONENTS.len(), suite: CONFORMANCE.to_owned(), backend: backend.to_owned() },
        };
    }
    let kind = match binary.kind {
        Kind::Unit => "unit",
        Kind::Integration => binary.name.as_str(),
        Kind::Doc => "doc",
        Kind::Runner => "runner",
    };
    Group { rank: usize::MAX, suite: format!("{} {kind}", binary.package), backend: String::new() }
}

/// Numbers of a run. Displayed as the last line that every run ends with.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Tally {
    pub(crate) fn of<'a>(cases: impl IntoIterator<Item = &'a Case>) -> Self {
        let mut tally = Self::default();
        for case in cases {
            tally.add(&case.outcome);
        }
        tally
    }

    pub(crate) fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed => self.failed += 1,
            Outcome::Skipped(_) => self.skipped += 1,
        }
    }

    pub(crate) fn total(&self) -> usize {
        self.passed + self.failed + self.skipped
    }

    /// Counts what was skipped as failed.
    pub(crate) fn strict(self) -> Self {
        Self { passed: self.passed, failed: self.failed + self.skipped, skipped: 0 }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

/// The table of a run, followed by the failed tests by name and the reasons for skips.
pub(crate) fn render(cases: &[Case]) -> String {
    let mut groups: BTreeMap<Group, Vec<&Case>> = BTreeMap::new();
    for case in cases {
        groups.entry(group(&case.binary, &case.name)).or_default().push(case);
    }
    let right = ["cases", "passed", "failed", "skipped", "time"].map(|name| (name, Align::Right));
    let mut table = Table::new([("suite", Align::Left), ("backend", Align::Left)].into_iter().chain(right));
    for (group, cases) in &groups {
        table.row(row(&group.suite, &group.backend, cases.iter().copied()));
    }
    table.foot(row("total", "", cases));
    table.render() + &details(cases)
}

/// The failed tests by name and the reasons for skips; empty if there are none.
pub(crate) fn details(cases: &[Case]) -> String {
    failures(cases) + &skips(cases)
}

fn row<'a>(suite: &str, backend: &str, cases: impl IntoIterator<Item = &'a Case> + Clone) -> Vec<String> {
    let tally = Tally::of(cases.clone());
    let time: Duration = cases.into_iter().map(|case| case.time).sum();
    let numbers = [tally.total(), tally.passed, tally.failed, tally.skipped].map(|number| number.to_string());
    let mut row = vec![suite.to_owned(), backend.to_owned()];
    row.extend(numbers);
    row.push(seconds(time));
    row
}

fn failures(cases: &[Case]) -> String {
    let failed: Vec<&Case> = cases.iter().filter(|case| case.outcome == Outcome::Failed).collect();
    if failed.is_empty() {
        return String::new();
    }
    let lines: String = failed.iter().map(|case| format!("\n  {}", full_name(case))).collect();
    format!("\n\nFailed:{lines}")
}

/// A reason, how many cases it kept from running, and which groups these are in.
fn skips(cases: &[Case]) -> String {
    let mut reasons: BTreeMap<&str, Vec<&Case>> = BTreeMap::new();
    for case in cases {
        if let Outcome::Skipped(reason) = &case.outcome {
            reasons.entry(reason).or_default().push(case);
        }
    }
    if reasons.is_empty() {
        return String::new();
    }
    let mut text = String::from("\n\nSkipped:");
    for (reason, cases) in reasons {
        let first = cases.first().map(|case| full_name(case)).unwrap_or_default();
        let more = if cases.len() > 1 { format!(" and {} more", cases.len() - 1) } else { String::new() };
        text.push_str(&format!("\n  {} × {reason}: {first}{more}", cases.len()));
    }
    text
}

fn full_name(case: &Case) -> String {
    let Binary { package, kind, name } = &case.binary;
    match kind {
        Kind::Unit | Kind::Runner => format!("{package} {}", case.name),
        Kind::Integration => format!("{package}::{name} {}", case.name),
        Kind::Doc => format!("{package} doc {}", case.name),
    }
}

/// A time as people read it.
pub(crate) fn seconds(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 100.0 { format!("{seconds:.1}s") } else { format!("{}m{:02}s", time.as_secs() / 60, time.as_secs() % 60) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn binary(package: &str, kind: Kind, name: &str) -> Binary {
        Binary { package: package.to_owned(), kind, name: name.to_owned() }
    }

    pub(crate) fn case(package: &str, test: &str, outcome: Outcome) -> Case {
        let binary = binary(package, Kind::Integration, CONFORMANCE);
        Case { binary, name: test.to_owned(), outcome, time: Duration::from_millis(1_500) }
    }

    fn grouped(package: &str, kind: Kind, name: &str, test: &str) -> (String, String) {
        let group = group(&binary(package, kind, name), test);
        (group.suite, group.backend)
    }

    fn pair(suite: &str, backend: &str) -> (String, String) {
        (suite.to_owned(), backend.to_owned())
    }

    #[test]
    fn conformance_is_grouped_by_suite_and_backend() {
        let conformance = |package, test| grouped(package, Kind::Integration, "conformance", test);
        assert_eq!(conformance("storage-sqlite", "records::put_then_get"), pair("records", "sqlite"));
        assert_eq!(conformance("storage-sqlite", "transactions::two::parts"), pair("transactions", "sqlite"));
        assert_eq!(conformance("storage-queue-amqp", "queues::send"), pair("queues", "queue-amqp"));
        assert_eq!(conformance("storage-object", "s3::blobs::put"), pair("blobs", "object/s3"));
        assert_eq!(conformance("storage-fs", "blobs"), pair("blobs", "fs"));
        assert_eq!(conformance("storage-fs", "unnamed"), pair("conformance", "fs"));
    }

    #[test]
    fn other_tests_are_grouped_by_crate_and_kind() {
        let unit = grouped("storage-core", Kind::Unit, "storage_core", "records::key::tests::parse");
        assert_eq!(unit, pair("storage-core unit", ""));
        let crash = grouped("storage-tests", Kind::Integration, "crash", "sqlite::records");
        assert_eq!(crash, pair("storage-tests crash", ""));
        let doc = grouped("storage-core", Kind::Doc, "storage_core", "src/lib.rs - (line 3)");
        assert_eq!(doc, pair("storage-core doc", ""));
        // Not a crate of ours: the binary's name alone makes no backend.
        assert_eq!(grouped("other", Kind::Integration, "conformance", "records::x"), pair("other conformance", ""));
    }

    #[test]
    fn the_table_counts_names_and_reasons() {
        let skipped = || Outcome::Skipped("no server".to_owned());
        let cases = [
            case("storage-sqlite", "queues::send", Outcome::Failed),
            case("storage-sqlite", "records::b", skipped()),
            case("storage-sqlite", "records::c", skipped()),
            case("storage-memory", "records::a", Outcome::Passed),
        ];
        let expected = "\
suite    backend  cases  passed  failed  skipped  time
───────  ───────  ─────  ──────  ──────  ───────  ────
records  memory       1       1       0        0  1.5s
records  sqlite       2       0       0        2  3.0s
queues   sqlite       1       0       1        0  1.5s
───────  ───────  ─────  ──────  ──────  ───────  ────
total                 4       1       1        2  6.0s

Failed:
  storage-sqlite::conformance queues::send

Skipped:
  2 × no server: storage-sqlite::conformance records::b and 1 more";
        assert_eq!(render(&cases), expected);
    }

    #[test]
    fn the_last_line() {
        let tally = Tally { passed: 3, failed: 0, skipped: 0 };
        assert_eq!(tally.to_string(), "3 passed, 0 failed");
        let tally = Tally { passed: 3, failed: 1, skipped: 2 };
        assert_eq!(tally.to_string(), "3 passed, 1 failed, 2 skipped");
        assert_eq!(tally.strict().to_string(), "3 passed, 3 failed");
        assert_eq!(tally.total(), 6);
    }

    #[test]
    fn times() {
        assert_eq!(seconds(Duration::from_millis(40)), "0.0s");
        assert_eq!(seconds(Duration::from_secs(185)), "3m05s");
    }
}
