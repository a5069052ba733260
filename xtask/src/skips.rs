//! The log of tests that could not run.
//!
//! A test whose server, tool or privilege is not there appends one line to the file that `XTASK_TEST_SKIPS` names, and returns.
//! That works with every test runner, while output of a passed test does not reach us from all of them. The line is
//!
//! ```text
//! package<TAB>test name<TAB>reason
//! ```
//!
//! and `test name<TAB>reason` is understood too. A package and a test's name are what the test runner calls them.

use crate::report::{Binary, Case, Kind, Outcome};

/// The environment variable that names the log.
pub(crate) const VARIABLE: &str = "XTASK_TEST_SKIPS";

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Skip {
    package: Option<String>,
    test: String,
    reason: String,
}

/// Reads the log. A line without a reason still counts as a skip.
pub(crate) fn parse(log: &str) -> Vec<Skip> {
    log.lines().filter(|line| !line.trim().is_empty()).map(skip).collect()
}

fn skip(line: &str) -> Skip {
    let fields: Vec<&str> = line.splitn(3, '\t').map(str::trim).collect();
    let (package, test, reason) = match fields.as_slice() {
        [package, test, reason] => (Some((*package).to_owned()), *test, *reason),
        [test, reason] => (None, *test, *reason),
        _ => (None, line.trim(), ""),
    };
    let reason = if reason.is_empty() { "no reason given" } else { reason };
    Skip { package, test: test.to_owned(), reason: reason.to_owned() }
}

/// Turns passed cases into skipped ones. A skip of a test that did not run is added as a case of its own: it must not get lost.
pub(crate) fn apply(cases: &mut Vec<Case>, skips: Vec<Skip>) {
    for skip in skips {
        let mut matching = cases.iter_mut().filter(|case| matches(case, &skip)).peekable();
        if matching.peek().is_none() {
            drop(matching);
            cases.push(stray(skip));
        } else if let Some(case) = matching.find(|case| case.outcome == Outcome::Passed) {
            case.outcome = Outcome::Skipped(skip.reason);
        }
        // Else all of that name have failed, or are skipped already (a test that was tried twice).
    }
}

fn matches(case: &Case, skip: &Skip) -> bool {
    let package = skip.package.as_ref().is_none_or(|package| *package == case.binary.package);
    package && (case.name == skip.test || case.name.ends_with(&format!("::{}", skip.test)))
}

fn stray(skip: Skip) -> Case {
    let package = skip.package.unwrap_or_else(|| "unknown".to_owned());
    let binary = Binary { package, kind: Kind::Unit, name: String::new() };
    Case { binary, name: skip.test, outcome: Outcome::Skipped(skip.reason), time: std::time::Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::case;

    fn skipped(reason: &str) -> Outcome {
        Outcome::Skipped(reason.to_owned())
    }

    #[test]
    fn both_forms_of_a_line() {
        let skips = parse("storage-redis\trecords::a\tno server\nrecords::b\tno tool\n\nrecords::c\n");
        let expected = [
            (Some("storage-redis"), "records::a", "no server"),
            (None, "records::b", "no tool"),
            (None, "records::c", "no reason given"),
        ];
        let expected = expected.map(|(package, test, reason)| Skip {
            package: package.map(str::to_owned),
            test: test.to_owned(),
            reason: reason.to_owned(),
        });
        assert_eq!(skips, expected);
    }

    #[test]
    fn a_skip_finds_its_case() {
        let mut cases = vec![
            case("storage-a", "records::x", Outcome::Passed),
            case("storage-b", "records::x", Outcome::Passed),
            case("storage-b", "records::y", Outcome::Failed),
        ];
        apply(&mut cases, parse("storage-b\trecords::x\tone\nstorage-b\trecords::y\ttwo"));
        let outcomes: Vec<&Outcome> = cases.iter().map(|case| &case.outcome).collect();
        assert_eq!(outcomes, [&Outcome::Passed, &skipped("one"), &Outcome::Failed]);
    }

    #[test]
    fn as_many_skips_as_lines_where_the_package_is_not_named() {
        let passed = |package| case(package, "records::x", Outcome::Passed);
        let mut cases = vec![passed("storage-a"), passed("storage-b"), passed("storage-c")];
        apply(&mut cases, parse("x\tno server\nrecords::x\tno server"));
        let count = cases.iter().filter(|case| case.outcome == skipped("no server")).count();
        assert_eq!(count, 2);
    }

    #[test]
    fn a_skip_is_not_lost_and_not_counted_twice() {
        let mut cases = vec![case("storage-a", "records::x", Outcome::Passed)];
        apply(&mut cases, parse("storage-a\trecords::x\tr\nstorage-a\trecords::x\tr\nstorage-z\tgone\tr"));
        assert_eq!(cases.len(), 2);
        assert_eq!(cases[1].name, "gone");
        assert_eq!(cases[1].outcome, skipped("r"));
    }
}
