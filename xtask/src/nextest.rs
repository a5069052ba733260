//! Tests by cargo-nextest: what it lists is what has to run, and its JUnit report says how it went.

use std::collections::HashSet;
use std::time::Duration;

use roxmltree::{Document, Node};
use serde_json::Value;

use crate::plan::Selection;
use crate::report::{Binary, Case, Kind, Outcome};
use crate::runner::{NOT_COMPILED, Session, failed_run, ignored};
use crate::{Failure, Result, doing, process};

/// Set up in `.config/nextest.toml`.
const PROFILE: &str = "xtask";

/// Runs the selected tests.
///
/// # Errors
///
/// When nextest can't be started, or its list or report can't be read.
pub(crate) fn run(session: &Session<'_>, selection: &Selection) -> Result<Vec<Case>> {
    // Arguments of the user may be of a kind that `list` does not know; then its check is left out.
    let listed = if selection.extra.is_empty() { list(session, selection)? } else { Some(Listed::default()) };
    let Some(listed) = listed else {
        return Ok(vec![failed_run(selection, NOT_COMPILED)]);
    };
    // nextest keeps its reports here whatever the target folder is.
    let report = session.workspace.root.join("target/nextest").join(PROFILE).join("junit.xml");
    // A report of an earlier run must not pass for this one.
    if report.exists() {
        doing(std::fs::remove_file(&report), || format!("cannot remove {}", report.display()))?;
    }
    let mut command = session.cargo();
    command.args(["nextest", "run", "--profile", PROFILE, "--no-tests", "pass"]);
    command.args(arguments(selection)).args(&selection.extra);
    let status = process::run(command)?;
    let mut cases = match std::fs::read_to_string(&report) {
        Ok(text) => parse_report(&text)?,
        // Without tests there is no report.
        Err(_) => Vec::new(),
    };
    cases.extend(listed.missing(&cases));
    if !selection.ignored {
        cases.extend(listed.ignored);
    }
    if !status.success() && !cases.iter().any(|case| case.outcome == Outcome::Failed) {
        cases.push(failed_run(selection, &format!("cargo-nextest ended with {status}")));
    }
    Ok(cases)
}

fn arguments(selection: &Selection) -> Vec<String> {
    let mut arguments = selection.cargo_arguments();
    if selection.ignored {
        arguments.extend(["--run-ignored".to_owned(), "only".to_owned()]);
    }
    arguments.extend(selection.filter.clone());
    arguments
}

/// Builds the tests and lists them; None if they don't build.
fn list(session: &Session<'_>, selection: &Selection) -> Result<Option<Listed>> {
    let mut command = session.cargo();
    command.args(["nextest", "list", "--message-format", "json"]).args(arguments(selection));
    let (status, text) = process::output(command)?;
    if !status.success() {
        return Ok(None);
    }
    let value: Value = doing(serde_json::from_str(&text), || "cannot read the list of tests of cargo-nextest".to_owned())?;
    Ok(Some(parse_list(&value)))
}

/// The tests that nextest knows.
#[derive(Debug, Default)]
struct Listed {
    /// Selected: each has to be in the report.
    selected: Vec<(Binary, String)>,
    /// Marked `#[ignore]`, as the skips they are.
    ignored: Vec<Case>,
}

impl Listed {
    /// A selected test that is not in the report did not run, which is a failure: nextest may have been killed.
    fn missing(&self, cases: &[Case]) -> Vec<Case> {
        let ran: HashSet<(&str, &str, &str)> =
            cases.iter().map(|case| (case.binary.package.as_str(), case.binary.name.as_str(), case.name.as_str())).collect();
        let missing = self.selected.iter().filter(|(binary, name)| {
            !ran.contains(&(binary.package.as_str(), binary.name.as_str(), name.as_str())) //
        });
        missing
            .map(|(binary, name)| Case {
                binary: binary.clone(),
                name: format!("{name} (did not run)"),
                outcome: Outcome::Failed,
                time: Duration::ZERO,
            })
            .collect()
    }
}

fn parse_list(value: &Value) -> Listed {
    let mut listed = Listed::default();
    for (id, suite) in value["rust-suites"].as_object().into_iter().flatten() {
        let binary = binary(id);
        for (name, test) in suite["testcases"].as_object().into_iter().flatten() {
            let filter = &test["filter-match"];
            if filter["status"] == "matches" {
                listed.selected.push((binary.clone(), name.clone()));
            } else if filter["reason"] == "ignored"
                && let Some(outcome) = ignored(name, "")
            {
                listed.ignored.push(Case { binary: binary.clone(), name: name.clone(), outcome, time: Duration::ZERO });
            }
        }
    }
    listed
}

fn parse_report(text: &str) -> Result<Vec<Case>> {
    let document =
        Document::parse(text).map_err(|error| Failure::Failed(format!("cannot read nextest's JUnit report: {error}")))?;
    Ok(document.descendants().filter(|node| node.has_tag_name("testcase")).filter_map(case).collect())
}

fn case(node: Node<'_, '_>) -> Option<Case> {
    let suite = node.parent_element()?.attribute("name")?;
    let bad = node.children().any(|child| child.has_tag_name("failure") || child.has_tag_name("error"));
    let seconds = node.attribute("time").and_then(|time| time.parse().ok()).unwrap_or(0.0);
    Some(Case {
        binary: binary(suite),
        name: node.attribute("name")?.to_owned(),
        outcome: if bad { Outcome::Failed } else { Outcome::Passed },
        time: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
    })
}

/// Reads nextest's name of a test binary: `package` (its library), `package::bin/name`, or `package::name` (in `tests/`).
fn binary(id: &str) -> Binary {
    let (package, rest) = id.split_once("::").unwrap_or((id, ""));
    let (kind, name) = match rest.split_once('/') {
        Some((_, name)) => (Kind::Unit, name),
        None if rest.is_empty() => (Kind::Unit, ""),
        None => (Kind::Integration, rest),
    };
    Binary { package: package.to_owned(), kind, name: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::binary as sample;

    const REPORT: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites name="nextest-run" tests="4" failures="2" errors="0" time="0.376">
    <testsuite name="storage-core" tests="1">
        <testcase name="tests::unit" classname="storage-core" time="0.008"/>
    </testsuite>
    <testsuite name="storage-sqlite::conformance" tests="3">
        <testcase name="records::get" classname="x" time="1.500"><system-out>1 &lt; 2</system-out></testcase>
        <testcase name="records::put" classname="x" time="0.115">
            <failure message="boo &lt;&amp;]]&gt;" type="test failure with exit code 101">text</failure>
        </testcase>
        <testcase name="records::late"><error type="execution failure"/></testcase>
        <testcase name="records::flaky"><flakyFailure type="test failure">once</flakyFailure></testcase>
    </testsuite>
</testsuites>"#;

    #[test]
    fn the_report_is_read() {
        let cases = parse_report(REPORT).unwrap();
        let found: Vec<(&str, bool)> = cases.iter().map(|c| (c.name.as_str(), c.outcome == Outcome::Passed)).collect();
        let expected = [
            ("tests::unit", true),
            ("records::get", true),
            ("records::put", false),
            ("records::late", false),
            ("records::flaky", true),
        ];
        assert_eq!(found, expected);
        assert_eq!(cases[0].binary, sample("storage-core", Kind::Unit, ""));
        assert_eq!(cases[1].binary, sample("storage-sqlite", Kind::Integration, "conformance"));
        assert_eq!(cases[1].time, Duration::from_millis(1_500));
        assert!(parse_report("<testsuites>").is_err());
    }

    #[test]
    fn names_of_binaries() {
        assert_eq!(binary("storage-cli::bin/storage"), sample("storage-cli", Kind::Unit, "storage"));
        assert_eq!(binary("storage-tests::crash"), sample("storage-tests", Kind::Integration, "crash"));
    }

    #[test]
    fn what_is_listed_has_to_run() {
        let value = serde_json::json!({"rust-suites": {"storage-sqlite::conformance": {"testcases": {
            "records::get": {"filter-match": {"status": "matches"}},
            "records::gone": {"filter-match": {"status": "matches"}},
            "records::other": {"filter-match": {"status": "mismatch", "reason": "ignored"}},
            "records::soak": {"filter-match": {"status": "mismatch", "reason": "ignored"}},
            "records::filtered": {"filter-match": {"status": "mismatch", "reason": "string"}},
        }}}});
        let listed = parse_list(&value);
        let missing = listed.missing(&parse_report(REPORT).unwrap());
        assert_eq!(missing.iter().map(|case| case.name.as_str()).collect::<Vec<_>>(), ["records::gone (did not run)"]);
        assert_eq!(listed.ignored.iter().map(|case| case.name.as_str()).collect::<Vec<_>>(), ["records::other"]);
    }
}
