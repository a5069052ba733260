//! The tables, for `docs/performance.md` and for the terminal.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Goal, Section, Table, Target, Verdict};
use crate::measure::{Entry, Outcome};
use crate::subject::Role;

const HEAD: &str = "\
# Performance

Written by the benchmark in `benches/` (`cargo xtask bench`); don't edit it by hand. Subjects of a table ran side by side in one run, \
in turn, round after round, on the same disk and with equal durability. A figure is the median of the rounds, with the smallest and \
the largest behind it. Against a target stands how many times as good the toolkit is, the median of the rounds: above 1 it is \
better, for times and sizes too.
";

const TARGETS: &str = "## Targets";
const TARGETS_HEAD: &str = "| against | target | reached | worst | where |\n|---|---:|---:|---:|---|\n";

/// The whole document: the sections that were measured now in the place of those with their titles in the document from before, the others as they stand
/// there, and so the tables that a section could not measure now. Its figures outlive what they were reckoned from.
pub fn document(before: &str, sections: &[Section], changes: &str) -> String {
    let mut parts = read(before);
    for section in sections {
        let mut new = Part::of(&text(section), &summary(section).lines().collect::<Vec<_>>());
        match parts.iter_mut().find(|part| part.title() == section.title) {
            Some(part) => {
                new.keep(part, &section.absent);
                *part = new;
            }
            None => parts.push(new),
        }
    }
    let targets: String = parts.iter().flat_map(|part| &part.targets).map(|line| format!("{line}\n")).collect();
    let mut out = format!("{HEAD}\n{TARGETS}\n\n{TARGETS_HEAD}{targets}");
    for part in &parts {
        out.push('\n');
        out.push_str(&part.text());
    }
    out.push('\n');
    out.push_str(changes.trim_end());
    out.push('\n');
    out
}

/// What a table begins with that an earlier run measured.
const EARLIER: &str = "Measured in an earlier run: ";

/// A section of the document.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    /// Its lines in the table of targets.
    targets: Vec<String>,
    /// What comes before its tables: title, what is measured, and last when and where.
    head: String,
    /// Its tables, from their titles on.
    tables: Vec<String>,
}

impl Part {
    /// Of a section's text, and of lines of the table of targets among which are its own.
    fn of(text: &str, lines: &[&str]) -> Self {
        let mut blocks = text.trim_end().split("\n### ").map(|block| block.trim_end().to_owned());
        let head = blocks.next().unwrap_or_default();
        let tables: Vec<String> = blocks.collect();
        let mine = |line: &&&str| tables.iter().any(|table| is_about(line, first_line(table)));
        let targets = lines.iter().filter(mine).map(|line| (*line).to_owned()).collect();
        Self { targets, head, tables }
    }

    fn title(&self) -> &str {
        first_line(&self.head).trim_start_matches("## ")
    }

    fn text(&self) -> String {
        let tables: String = self.tables.iter().map(|table| format!("\n### {table}\n")).collect();
        format!("{}\n{tables}", self.head)
    }

    /// Takes over those of the tables from before that have one of these titles, and puts all in the order from before.
    fn keep(&mut self, before: &Self, absent: &[String]) {
        let when = before.head.lines().next_back().unwrap_or_default();
        let (mut tables, mut targets) = (Vec::new(), Vec::new());
        for old in &before.tables {
            let title = first_line(old);
            let same = |table: &String| first_line(table) == title;
            if let Some(at) = self.tables.iter().position(same) {
                tables.push(self.tables.remove(at));
            } else if absent.iter().any(|absent| absent == title) {
                let body = &old[title.len()..];
                let said = body.trim_start().starts_with(EARLIER);
                tables.push(if said { old.clone() } else { format!("{title}\n\n{EARLIER}{when}{body}") });
                targets.extend(before.targets.iter().filter(|line| is_about(line, title)).cloned());
            }
        }
        tables.append(&mut self.tables);
        self.tables = tables;
        self.targets.extend(targets);
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Whether a line of the table of targets is about a table: where the worst figure was, its last cell says.
fn is_about(line: &str, table: &str) -> bool {
    line.contains(&format!("| {table}: "))
}

/// The measured sections of a document.
fn read(document: &str) -> Vec<Part> {
    let mut blocks = document.split("\n## ").skip(1);
    let Some(targets) = blocks.next().filter(|block| TARGETS.ends_with(first_line(block))) else {
        return Vec::new();
    };
    let lines: Vec<&str> = targets.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    blocks.map(|block| Part::of(&format!("## {block}"), &lines)).filter(|part| !part.tables.is_empty()).collect()
}

/// One section.
pub fn text(section: &Section) -> String {
    let mut out = format!("## {}\n\n{}\n\n", section.title, section.intro);
    let sizes = if section.quick { ", small sizes: figures of a smoke test, not of a measurement" } else { "" };
    line(&mut out, format_args!("{}, {} rounds{sizes}. {}.", section.date, section.rounds, section.machine));
    for table in &section.tables {
        line(&mut out, format_args!("\n### {}\n", table.title));
        out.push_str(&grid(table));
    }
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string can't fail.
    let _ = writeln!(out, "{text}");
}

fn grid(table: &Table) -> String {
    let mut out = String::from("| subject |");
    for metric in &table.metrics {
        let _ = write!(out, " {}, {} |", metric.name, metric.unit);
    }
    out.push_str("\n|---|");
    out.push_str(&"---:|".repeat(table.metrics.len()));
    out.push('\n');
    for entry in &table.entries {
        let _ = write!(out, "| {} |", name(entry));
        match &entry.outcome {
            Outcome::NotRun(reason) => {
                let _ = write!(out, " not run: {} |", cell(reason));
                out.push_str(&" |".repeat(table.metrics.len().saturating_sub(1)));
            }
            Outcome::Measured(_) => {
                for metric in 0..table.metrics.len() {
                    let spread = table.spread(entry, metric);
                    let figure = spread
                        .map_or_else(String::new, |s| format!("{} ({}–{})", number(s.median), number(s.min), number(s.max)));
                    let _ = write!(out, " {figure} |");
                }
            }
        }
        out.push('\n');
    }
    out.push_str(&verdicts(table));
    out.push_str(&notes(table));
    out.push_str(&unsteady(table));
    out
}

/// How far apart a subject's rounds may lie before the table says so.
const UNSTEADY: f64 = 3.0;

/// Owns up to figures that something else on the machine has disturbed.
fn unsteady(table: &Table) -> String {
    let wide: Vec<&str> = table
        .entries
        .iter()
        .filter(|entry| {
            (0..table.metrics.len())
                .filter_map(|metric| table.spread(entry, metric))
                .any(|spread| spread.max > UNSTEADY * spread.min)
        })
        .map(|entry| entry.subject.as_str())
        .collect();
    if wide.is_empty() {
        return String::new();
    }
    format!(
        "\nUnsteady, rounds more than {UNSTEADY} × apart: {}. Something else was using the disk; measure again.\n",
        wide.join(", ")
    )
}

fn name(entry: &Entry) -> String {
    match entry.role {
        Role::Ours => format!("**{}**", entry.subject),
        Role::Baseline | Role::Peer => entry.subject.clone(),
        Role::Information => format!("*{}*", entry.subject),
    }
}

fn verdicts(table: &Table) -> String {
    let mut out = String::new();
    for target in &table.targets {
        let metric = &table.metrics[target.metric].name;
        let goal = goal(target.goal);
        match table.verdict(target) {
            Verdict::Measured { value, subject, pass } => {
                let of = subject.map_or_else(String::new, |subject| format!(" × {subject}"));
                line(&mut out, format_args!("- {metric}: {}{of}, target {goal}: {}", number(value), mark(pass)));
            }
            Verdict::NotMeasured => {
                line(&mut out, format_args!("- {metric}, target {goal} ({}): not measured", target.group));
            }
        }
    }
    if out.is_empty() { out } else { format!("\n{out}") }
}

fn goal(goal: Goal) -> String {
    match goal {
        Goal::Ratio { at_least, .. } => format!("≥ {} ×", number(at_least)),
        Goal::AtMost(limit) => format!("≤ {}", number(limit)),
    }
}

fn mark(pass: bool) -> &'static str {
    if pass { "✓ pass" } else { "✗ miss" }
}

/// Settings and remarks; those that several subjects share are printed once.
fn notes(table: &Table) -> String {
    let shared: BTreeSet<&str> = table.entries.iter().filter(|e| !e.note.is_empty()).map(|e| e.note.as_str()).collect();
    let mut out = String::new();
    for note in shared {
        let subjects: Vec<&str> = table.entries.iter().filter(|e| e.note == note).map(|e| e.subject.as_str()).collect();
        line(&mut out, format_args!("- {}: {note}", subjects.join(", ")));
    }
    if out.is_empty() { out } else { format!("\n{out}") }
}

/// One line per group of targets: how many were reached, and the worst.
fn summary(section: &Section) -> String {
    let all: Vec<(&Table, &Target)> =
        section.tables.iter().flat_map(|table| table.targets.iter().map(move |target| (table, target))).collect();
    let mut groups: Vec<&str> = Vec::new();
    for (_, target) in &all {
        if !groups.contains(&target.group.as_str()) {
            groups.push(&target.group);
        }
    }
    let members = |group: &str| all.iter().filter(|(_, target)| target.group == group).copied().collect::<Vec<_>>();
    groups.into_iter().map(|group| summary_line(group, &members(group))).collect()
}

fn summary_line(group: &str, members: &[(&Table, &Target)]) -> String {
    let place = |table: &Table, target: &Target| format!("{}: {}", table.title, table.metrics[target.metric].name);
    let measured: Vec<(f64, bool, String)> = members
        .iter()
        .filter_map(|(table, target)| match table.verdict(target) {
            Verdict::Measured { value, pass, .. } => {
                // A limit is the worse the higher the figure, a ratio the lower.
                let order = if matches!(target.goal, Goal::AtMost(_)) { -value } else { value };
                Some((order, pass, place(table, target)))
            }
            Verdict::NotMeasured => None,
        })
        .collect();
    let reached = measured.iter().filter(|(_, pass, _)| *pass).count();
    // By its place, a line is found again when the document is written anew.
    let first = members.first().map_or_else(String::new, |(table, target)| place(table, target));
    let (worst, place) = match measured.iter().min_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((order, pass, place)) => (format!("{} {}", number(order.abs()), mark(*pass)), place.as_str()),
        None => ("not measured".to_owned(), first.as_str()),
    };
    let wanted = members.first().map_or_else(String::new, |(_, target)| goal(target.goal));
    format!("| {group} | {wanted} | {reached} of {} | {worst} | {place} |\n", members.len())
}

/// Three significant digits, thousands separated.
fn number(value: f64) -> String {
    if value >= 1_000.0 {
        let digits = format!("{value:.0}");
        let mut out = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                out.push(',');
            }
            out.push(digit);
        }
        return out;
    }
    match value {
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Text that can stand in a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::report::{Better, Metric};

    #[test]
    fn numbers_are_short_and_readable() {
        for (value, text) in [(0.7, "0.70"), (12.34, "12.3"), (123.4, "123"), (1_234.5, "1,234"), (1_234_567.0, "1,234,567")] {
            assert_eq!(number(value), text);
        }
    }

    const CHANGES: &str = "## What each change bought\n\n| a | b |";

    /// A table with one target; without a figure, one that could not be measured.
    fn table(title: &str, figure: Option<f64>) -> Table {
        Table {
            title: format!("table of {title}"),
            metrics: vec![Metric { name: "m".to_owned(), unit: "u".to_owned(), better: Better::Lower }],
            entries: vec![Entry {
                subject: "ours".to_owned(),
                role: Role::Ours,
                note: String::new(),
                outcome: figure.map_or(Outcome::NotRun("broken".to_owned()), |figure| Outcome::Measured(vec![vec![figure]])),
            }],
            targets: vec![Target { metric: 0, goal: Goal::AtMost(50.0), group: format!("group of {title}") }],
        }
    }

    fn section(title: &str, date: &str, tables: Vec<Table>) -> Section {
        Section {
            id: title.to_owned(),
            title: title.to_owned(),
            intro: "How.".to_owned(),
            date: date.to_owned(),
            machine: Machine {
                cores: 2,
                memory_gib: 1,
                kernel: "Linux 6.1".to_owned(),
                filesystem: "ext4".to_owned(),
                appends_per_second: 1.0,
                overwrites_per_second: 1.0,
            },
            rounds: 1,
            quick: false,
            tables,
            absent: Vec::new(),
        }
    }

    #[test]
    fn what_is_not_measured_now_stays_as_it_stood() {
        let one = |title: &str, figure| section(title, "2026-01-01", vec![table(title, figure)]);
        let all =
            document("", &[one("a", Some(1.0)), one("b", Some(2.0)), one("d", None)], "## What each change bought\n\nMuch.\n");
        let again = document(&all, &[one("b", Some(99.0)), one("c", Some(3.0))], CHANGES);
        let whole = document("", &[one("a", Some(1.0)), one("b", Some(99.0)), one("d", None), one("c", Some(3.0))], CHANGES);
        assert_eq!(again, whole);
        assert!(again.contains("| group of b | ≤ 50.0 | 0 of 1 | 99.0 ✗ miss | table of b: m |"), "{again}");
        assert!(again.contains("| group of d | ≤ 50.0 | 0 of 1 | not measured | table of d: m |"), "{again}");
        assert_eq!(read("# Performance\n\nNothing yet.\n"), Vec::new());
    }

    #[test]
    fn tables_that_a_section_could_not_measure_stay_with_their_targets() {
        let before = ["x", "y", "gone", "z"].map(|title| table(title, Some(1.0))).into();
        let before = document("", &[section("s", "2026-01-01", before)], CHANGES);
        let now = |date: &str, figure, absent: &[&str]| {
            let tables = vec![table("new", Some(4.0)), table("z", Some(figure))];
            let absent = absent.iter().map(|title| format!("table of {title}")).collect();
            Section { absent, ..section("s", date, tables) }
        };
        let after = document(&before, &[now("2026-02-02", 99.0, &["x", "y", "never"])], CHANGES);
        let titles: Vec<&str> = after.lines().filter_map(|line| line.strip_prefix("### table of ")).collect();
        assert_eq!(titles, ["x", "y", "z", "new"]);
        for title in ["x", "y"] {
            assert!(
                after.contains(&format!("| group of {title} | ≤ 50.0 | 1 of 1 | 1.00 ✓ pass | table of {title}: m |")),
                "{after}"
            );
        }
        assert!(after.contains("| group of z | ≤ 50.0 | 0 of 1 | 99.0 ✗ miss | table of z: m |"), "{after}");
        assert!(!after.contains("gone"), "what is measured no more goes: {after}");
        let earlier = |day: &str| format!("### table of x\n\n{EARLIER}{day}, 1 rounds.");
        assert!(after.contains(&earlier("2026-01-01")), "{after}");
        // In a third run too it is told when they were measured; not of those that were measured now.
        let third = document(&after, &[now("2026-03-03", 5.0, &["x", "y"])], CHANGES);
        assert!(third.contains(&earlier("2026-01-01")) && third.matches(EARLIER).count() == 2, "{third}");
        assert_eq!(document(&third, &[], CHANGES), third);
    }

    #[test]
    fn a_cell_holds_one_line() {
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }
}
