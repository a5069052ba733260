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
/// there. Its figures outlive what they were reckoned from.
pub fn document(before: &str, sections: &[Section], changes: &str) -> String {
    let mut parts: Vec<Part> = read(before);
    for section in sections {
        let new = Part { title: section.title.clone(), targets: summary(section), text: text(section) };
        match parts.iter_mut().find(|part| part.title == new.title) {
            Some(part) => *part = new,
            None => parts.push(new),
        }
    }
    let targets: String = parts.iter().map(|part| part.targets.as_str()).collect();
    let mut out = format!("{HEAD}\n{TARGETS}\n\n{TARGETS_HEAD}{targets}");
    for part in &parts {
        out.push('\n');
        out.push_str(&part.text);
    }
    out.push('\n');
    out.push_str(changes.trim_end());
    out.push('\n');
    out
}

/// A section of the document.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    title: String,
    /// Its lines in the table of targets.
    targets: String,
    text: String,
}

/// The measured sections of a document.
fn read(document: &str) -> Vec<Part> {
    let mut blocks = document.split("\n## ").skip(1);
    let Some(targets) = blocks.next().filter(|block| TARGETS.ends_with(block.lines().next().unwrap_or_default())) else {
        return Vec::new();
    };
    let lines: Vec<&str> = targets.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let part = |block: &str| {
        let title = block.lines().next()?;
        let tables: Vec<String> =
            block.lines().filter_map(|line| line.strip_prefix("### ")).map(|table| format!("| {table}: ")).collect();
        // Where the worst figure of a line was, its last cell says.
        let mine = |line: &&&str| tables.iter().any(|table| line.contains(table.as_str()));
        let targets = lines.iter().filter(mine).map(|line| format!("{line}\n")).collect();
        (!tables.is_empty()).then(|| Part { title: title.to_owned(), targets, text: format!("## {}\n", block.trim_end()) })
    };
    blocks.filter_map(part).collect()
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
    let measured: Vec<(f64, bool, String)> = members
        .iter()
        .filter_map(|(table, target)| match table.verdict(target) {
            Verdict::Measured { value, pass, .. } => {
                // A limit is the worse the higher the figure, a ratio the lower.
                let order = if matches!(target.goal, Goal::AtMost(_)) { -value } else { value };
                Some((order, pass, format!("{}: {}", table.title, table.metrics[target.metric].name)))
            }
            Verdict::NotMeasured => None,
        })
        .collect();
    let reached = measured.iter().filter(|(_, pass, _)| *pass).count();
    let (worst, place) = match measured.iter().min_by(|a, b| a.0.total_cmp(&b.0)) {
        Some((order, pass, place)) => (format!("{} {}", number(order.abs()), mark(*pass)), place.as_str()),
        None => ("not measured".to_owned(), ""),
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

    #[test]
    fn what_is_not_measured_now_stays_as_it_stood() {
        let section = |title: &str, figure: f64| Section {
            id: title.to_owned(),
            title: title.to_owned(),
            intro: "How.".to_owned(),
            date: "2026-01-01".to_owned(),
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
            tables: vec![Table {
                title: format!("table of {title}"),
                metrics: vec![Metric { name: "m".to_owned(), unit: "u".to_owned(), better: Better::Lower }],
                entries: vec![Entry {
                    subject: "ours".to_owned(),
                    role: Role::Ours,
                    note: String::new(),
                    outcome: Outcome::Measured(vec![vec![figure]]),
                }],
                targets: vec![Target { metric: 0, goal: Goal::AtMost(50.0), group: format!("group of {title}") }],
            }],
        };
        let all = document("", &[section("a", 1.0), section("b", 2.0)], "## What each change bought\n\n| a | b |\n");
        let again = document(&all, &[section("b", 99.0), section("c", 3.0)], "## What each change bought\n\nNothing.");
        let whole =
            document("", &[section("a", 1.0), section("b", 99.0), section("c", 3.0)], "## What each change bought\n\nNothing.");
        assert_eq!(again, whole);
        assert!(again.contains("| group of b | ≤ 50.0 | 0 of 1 | 99.0 ✗ miss | table of b: m |"), "{again}");
        assert_eq!(read("# Performance\n\nNothing yet.\n"), Vec::new());
    }

    #[test]
    fn a_cell_holds_one_line() {
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }
}
