//! `docs/command.md` against the command: its examples are run, and its reference is what `--help` says.
//!
//! In a `console` block a line that begins with `$ ` is a command for `sh`, one with `> ` goes on with it, and the lines behind it are what it
//! prints. Blocks of one section share an empty folder. `…` stands for any text, and alone on a line for any lines; runs of blanks count as one.
//! A command must end well, and one without lines behind it may print what it likes.
//!
//! With `UPDATE_PAGES=1` in the environment the reference is written anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const STORAGE: &str = env!("CARGO_BIN_EXE_storage");
const REFERENCE: &str = "\n## Reference\n";

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/command.md")
}

fn page() -> String {
    fs::read_to_string(path()).unwrap()
}

/// A program in `folder`, with our command on its path and nothing configured.
fn program(name: &str, folder: &Path) -> Command {
    let mut command = Command::new(name);
    let own = Path::new(STORAGE).parent().unwrap().to_owned();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::env::join_paths(std::iter::once(own).chain(std::env::split_paths(&paths))).unwrap();
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("STORAGE_") {
            command.env_remove(variable);
        }
    }
    command.current_dir(folder).env("PATH", paths).env("COLUMNS", "100").env("NO_COLOR", "1");
    command
}

/// One command of a block, and what it should print.
#[derive(Debug, Default)]
struct Step {
    line: usize,
    command: String,
    expected: Vec<String>,
}

/// The steps of the page, section by section.
fn sections(page: &str) -> Vec<Vec<Step>> {
    let mut sections = vec![Vec::new()];
    let mut inside = false;
    for (number, line) in page.lines().enumerate() {
        if line.starts_with("## ") && !inside {
            sections.push(Vec::new());
        }
        if line.starts_with("```") {
            inside = !inside && line == "```console";
            continue;
        }
        if !inside {
            continue;
        }
        let steps: &mut Vec<Step> = sections.last_mut().unwrap();
        match (line.strip_prefix("$ "), line.strip_prefix("> "), steps.last_mut()) {
            (Some(command), _, _) => steps.push(Step { line: number + 1, command: command.to_owned(), expected: Vec::new() }),
            (None, Some(more), Some(step)) if step.expected.is_empty() => step.command.extend(["\n", more]),
            (None, _, Some(step)) => step.expected.push(line.to_owned()),
            (None, _, None) => panic!("line {}: a block begins with a command", number + 1),
        }
    }
    sections.retain(|steps| !steps.is_empty());
    sections
}

/// The words of a line, so that the width of a table's columns does not count.
fn words(line: &str) -> String {
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn line_matches(expected: &str, found: &str) -> bool {
    let (expected, found) = (words(expected), words(found));
    let mut parts = expected.split('…');
    let Some(mut rest) = found.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn lines_match(expected: &[String], found: &[&str]) -> bool {
    match (expected.split_first(), found.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first.trim() == "…" => {
            lines_match(rest, found) || (!found.is_empty() && lines_match(expected, &found[1..]))
        }
        (Some((first, rest)), Some((line, more))) => line_matches(first, line) && lines_match(rest, more),
        _ => false,
    }
}

#[test]
fn examples_do_what_the_page_says() {
    let sections = sections(&page());
    assert!(sections.len() >= 5, "only {} sections with examples", sections.len());
    for steps in sections {
        let folder = tempfile::tempdir().unwrap();
        for Step { line, command, expected } in steps {
            let output = program("sh", folder.path()).args(["-c", &format!("exec 2>&1\n{command}")]).output().unwrap();
            let found = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "command.md:{line}: {command}\nended with {}:\n{found}", output.status);
            let found: Vec<_> = found.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
            let matches = expected.is_empty() || lines_match(&expected, &found);
            assert!(matches, "command.md:{line}: {command}\nexpected:\n{}\nfound:\n{}", expected.join("\n"), found.join("\n"));
        }
    }
}

fn help(words: &[String]) -> String {
    let output = program(STORAGE, Path::new(".")).args(words).arg("--help").output().unwrap();
    assert!(output.status.success(), "storage {words:?} --help");
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// The names below `Commands:`.
fn subcommands(help: &str) -> Vec<String> {
    let list = help.split("Commands:\n").nth(1).unwrap_or_default().split("\n\n").next().unwrap_or_default();
    let names = list.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

/// What every command has stands at the top of the page, once.
fn without_common(help: &str) -> String {
    let common = |paragraph: &str| paragraph.starts_with("Everywhere:") || paragraph.starts_with("Options:\n  -h, --help");
    let own = help.split("\n\n").filter(|paragraph| !common(paragraph));
    own.map(|paragraph| paragraph.lines().filter(|line| !line.contains("-h, --help ")).collect::<Vec<_>>().join("\n"))
        .collect::<Vec<_>>()
        .join("\n\n")
}

fn reference(words: &[String], text: &mut String) {
    let help = help(words);
    let deeper = subcommands(&help);
    if deeper.is_empty() {
        let heading = format!("\n### `storage {}`\n", words.join(" "));
        text.push_str(&format!("{heading}\n```text\n{}\n```\n", without_common(&help).trim_end()));
    }
    for name in deeper {
        reference(&[words, &[name]].concat(), text);
    }
}

#[test]
fn the_reference_is_what_help_says() {
    let page = page();
    let (before, found) = page.split_once(REFERENCE).unwrap();
    let mut expected = String::new();
    reference(&[], &mut expected);
    if std::env::var_os("UPDATE_PAGES").is_some() {
        fs::write(path(), format!("{before}{REFERENCE}{expected}")).unwrap();
        return;
    }
    let differs = expected.lines().zip(found.lines()).find(|(expected, found)| expected != found);
    assert!(expected == found, "docs/command.md: run this test with UPDATE_PAGES=1; help and page differ first in {differs:?}");
}

/// Options for every command, and exit codes: as the top of `storage --help` has them.
#[test]
fn what_is_everywhere_is_on_the_page() {
    let page = page();
    let help = help(&[]);
    for paragraph in help.split("\n\n").filter(|p| p.starts_with("Everywhere:") || p.starts_with("Exit codes:")) {
        assert!(page.contains(paragraph), "docs/command.md should have:\n{paragraph}");
    }
}

#[test]
fn dots_match_any_text() {
    assert!(line_matches("a … c", "a   b b  c") && line_matches("…", "x") && line_matches("a", " a "));
    assert!(!line_matches("a … c", "a b") && !line_matches("a", "a b") && !line_matches("…b", "b c"));
    let expected = ["a", "…", "z"].map(str::to_owned);
    assert!(lines_match(&expected, &["a", "b", "c", "z"]) && lines_match(&expected, &["a", "z"]));
    assert!(!lines_match(&expected, &["a", "b"]));
}
