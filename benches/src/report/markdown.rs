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

/// The whole document.
pub fn document(sections: &[Section], changes: &str) -> String {
    let mut out = HEAD.to_owned();
    out.push_str("\n## Targets\n\n");
    out.push_str(&summary(sections));
    for section in sections {
        out.push('\n');
        out.push_str(&text(section));
    }
    out.push('\n');
    out.push_str(changes.trim_end());
    out.push('\n');
    out
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
fn summary(sections: &[Section]) -> String {
    let all: Vec<(&Table, &Target)> =
        sections.iter().flat_map(|s| &s.tables).flat_map(|table| table.targets.iter().map(move |t| (table, t))).collect();
    let mut groups: Vec<&str> = Vec::new();
    for (_, target) in &all {
        if !groups.contains(&target.group.as_str()) {
            groups.push(&target.group);
        }
    }
    let mut out = String::from("| against | target | reached | worst | where |\n|---|---:|---:|---:|---|\n");
    for group in groups {
        let members: Vec<_> = all.iter().filter(|(_, target)| target.group == group).copied().collect();
        out.push_str(&summary_line(group, &members));
    }
    out
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

    #[test]
    fn numbers_are_short_and_readable() {
        for (value, text) in [(0.7, "0.70"), (12.34, "12.3"), (123.4, "123"), (1_234.5, "1,234"), (1_234_567.0, "1,234,567")] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_cell_holds_one_line() {
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }
}
