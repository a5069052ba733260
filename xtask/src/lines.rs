//! What `cargo test` prints, line by line, as cases.
//!
//! The lines are made for people and one of them may be torn by a program that prints past the test harness, so each binary's
//! summary (`test result: …`) has the last word on how many tests passed and failed.

use std::collections::HashMap;
use std::time::Duration;

use crate::report::{Binary, Case, Kind, Outcome};
use crate::runner::ignored;

/// Collects cases from lines.
#[derive(Debug)]
pub(crate) struct Parser {
    /// By file name for test programs, by library for documentation.
    binaries: HashMap<String, Binary>,
    section: Option<Section>,
    cases: Vec<Case>,
}

/// What one test program prints.
#[derive(Debug)]
struct Section {
    binary: Binary,
    cases: Vec<Case>,
    /// `running N tests` was seen: this is a program of the usual kind, that will print a summary.
    announced: bool,
    summed_up: bool,
    /// The details of failures repeat names, and print whatever the tests printed.
    details: bool,
}

impl Parser {
    pub(crate) fn new(binaries: HashMap<String, Binary>) -> Self {
        Self { binaries, section: None, cases: Vec::new() }
    }

    /// Takes the next line.
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(binary) = self.header(line) {
            self.close(true);
            let (announced, summed_up, details) = (false, false, false);
            self.section = Some(Section { binary, cases: Vec::new(), announced, summed_up, details });
        } else if line.starts_with("error: ") && line.contains("test failed") || line.starts_with("error: doctest failed") {
            self.close(false);
        } else if let Some(section) = &mut self.section {
            section.line(line);
        }
    }

    /// The cases of all lines.
    pub(crate) fn finish(mut self) -> Vec<Case> {
        self.close(true);
        self.cases
    }

    /// `     Running tests/a.rs (target/debug/deps/a-0123)` or `   Doc-tests name`.
    fn header(&self, line: &str) -> Option<Binary> {
        let line = line.trim_start();
        let key = match line.strip_prefix("Running ") {
            Some(rest) => rest.strip_suffix(')')?.rsplit_once('(')?.1.rsplit(['/', '\\']).next()?,
            None => line.strip_prefix("Doc-tests ")?,
        };
        self.binaries.get(key).cloned()
    }

    /// Ends a section. `well` tells how a program without the usual harness ended, of which there is no other sign.
    fn close(&mut self, well: bool) {
        let Some(mut section) = self.section.take() else {
            return;
        };
        if !section.summed_up && section.announced {
            section.add("(ended before its summary)".to_owned(), Outcome::Failed);
        } else if !section.summed_up {
            let outcome = if well { Outcome::Passed } else { Outcome::Failed };
            section.add(section.binary.name.clone(), outcome);
        }
        self.cases.append(&mut section.cases);
    }
}

impl Section {
    fn line(&mut self, line: &str) {
        if line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test")) {
            // Documentation examples may come in several rounds.
            (self.announced, self.details, self.summed_up) = (true, false, false);
        } else if line == "failures:" {
            self.details = true;
        } else if let Some(summary) = line.strip_prefix("test result: ") {
            self.sum_up(summary);
        } else if !self.details
            && let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... "))
        {
            self.test(name, result);
        }
    }

    fn test(&mut self, name: &str, result: &str) {
        let name =
            [" - should panic", " - compile fail", " - compile"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        match result.split_once(',').map_or((result, ""), |(result, reason)| (result, reason.trim())) {
            ("ok", _) => self.add(name.to_owned(), Outcome::Passed),
            ("FAILED", _) => self.add(name.to_owned(), Outcome::Failed),
            // An example marked `ignore` is text, not a test.
            ("ignored", reason) if self.binary.kind != Kind::Doc => {
                if let Some(outcome) = ignored(name, reason) {
                    self.add(name.to_owned(), outcome);
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, name: String, outcome: Outcome) {
        self.cases.push(Case { binary: self.binary.clone(), name, outcome, time: Duration::ZERO });
    }

    /// `ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.12s`
    fn sum_up(&mut self, summary: &str) {
        self.summed_up = true;
        let parts = || summary.split_once(". ").map_or(summary, |(_, numbers)| numbers).split("; ");
        let number = |what: &str| parts().find_map(|part| part.strip_suffix(what)?.trim().parse::<usize>().ok()).unwrap_or(0);
        for (what, outcome) in [(" passed", Outcome::Passed), (" failed", Outcome::Failed)] {
            let wanted = number(what);
            let seen = self.untimed().filter(|case| case.outcome == outcome).count();
            for _ in seen..wanted {
                self.add("(a test whose line was torn)".to_owned(), outcome.clone());
            }
        }
        let seconds = parts().find_map(|part| part.strip_prefix("finished in ")?.strip_suffix('s')?.parse().ok());
        self.share_time(Duration::try_from_secs_f64(seconds.unwrap_or(0.0)).unwrap_or_default());
    }

    /// Times of single tests are not printed, so each gets its share of the whole.
    fn share_time(&mut self, whole: Duration) {
        let count = u32::try_from(self.untimed().count()).unwrap_or(u32::MAX).max(1);
        // At least a nanosecond: it marks the cases of this round as timed.
        let share = (whole / count).max(Duration::from_nanos(1));
        for case in self.cases.iter_mut().filter(|case| case.time.is_zero()) {
            case.time = share;
        }
    }

    /// The cases of this round.
    fn untimed(&self) -> impl Iterator<Item = &Case> {
        self.cases.iter().filter(|case| case.time.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::binary;

    fn parse(text: &str) -> Vec<Case> {
        let binaries = HashMap::from([
            ("a-3110".to_owned(), binary("a", Kind::Unit, "a")),
            ("conformance-71f4".to_owned(), binary("storage-b", Kind::Integration, "conformance")),
            ("storage_b".to_owned(), binary("storage-b", Kind::Doc, "storage_b")),
        ]);
        let mut parser = Parser::new(binaries);
        text.lines().for_each(|line| parser.line(line));
        parser.finish()
    }

    fn outcomes(cases: &[Case]) -> Vec<(String, &Outcome)> {
        cases.iter().map(|case| (format!("{} {}", case.binary.package, case.name), &case.outcome)).collect()
    }

    #[test]
    fn sections_belong_to_their_binaries() {
        let cases = parse(
            "\
   Compiling a v0.1.0
     Running unittests src/lib.rs (target/debug/deps/a-3110)

running 4 tests
test tests::long ... ignored, soak: ten minutes
test tests::tape ... ignored, needs a tape
test tests::ok ... ok
test tests::panics - should panic ... ok
test tests::ok has been running for over 60 seconds

test result: ok. 2 passed; 0 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.30s

     Running tests/conformance.rs (/t/debug/deps/conformance-71f4)

running 2 tests
test records::put ... ok
test records::fails ... FAILED

failures:

---- records::fails stdout ----
test records::faked ... ok

failures:
    records::fails

test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.16s

error: test failed, to rerun pass `-p storage-b --test conformance`",
        );
        let skipped = Outcome::Skipped("marked #[ignore]: needs a tape".to_owned());
        let expected = [
            ("a tests::tape".to_owned(), &skipped),
            ("a tests::ok".to_owned(), &Outcome::Passed),
            ("a tests::panics".to_owned(), &Outcome::Passed),
            ("storage-b records::put".to_owned(), &Outcome::Passed),
            ("storage-b records::fails".to_owned(), &Outcome::Failed),
        ];
        assert_eq!(outcomes(&cases), expected);
        assert_eq!(cases[1].time, Duration::from_millis(100));
    }

    #[test]
    fn documentation_examples_in_two_rounds() {
        let cases = parse(
            "\
   Doc-tests storage_b

running 2 tests
test crates/storage-b/src/lib.rs - x (line 11) - compile ... ok
test crates/storage-b/src/lib.rs - x (line 8) ... ignored

test result: ok. 1 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.11s

running 1 test
test crates/storage-b/src/lib.rs - (line 2) ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.11s

all doctests ran in 0.39s; merged doctests compilation took 0.28s",
        );
        let expected = [
            ("storage-b crates/storage-b/src/lib.rs - x (line 11)".to_owned(), &Outcome::Passed),
            ("storage-b crates/storage-b/src/lib.rs - (line 2)".to_owned(), &Outcome::Passed),
        ];
        assert_eq!(outcomes(&cases), expected);
    }

    #[test]
    fn the_summary_has_the_last_word() {
        let cases = parse(
            "     Running unittests src/lib.rs (x/a-3110)\nrunning 2 tests\ntest one ... noise\nok\ntest two ... ok\n\
             test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s",
        );
        let expected = [("a two".to_owned(), &Outcome::Passed), ("a (a test whose line was torn)".to_owned(), &Outcome::Failed)];
        assert_eq!(outcomes(&cases), expected);
    }

    #[test]
    fn a_program_that_dies_has_failed() {
        let cases = parse(
            "     Running unittests src/lib.rs (x/a-3110)\nrunning 2 tests\ntest one ... ok\n\
             error: test failed, to rerun pass `-p a --lib`\n\
             process didn't exit successfully: `x/a-3110` (signal: 6, SIGABRT: process abort signal)",
        );
        let expected = [("a one".to_owned(), &Outcome::Passed), ("a (ended before its summary)".to_owned(), &Outcome::Failed)];
        assert_eq!(outcomes(&cases), expected);
    }

    #[test]
    fn a_program_without_the_harness_is_one_case() {
        let header = "     Running tests/conformance.rs (x/conformance-71f4)\nhello\n";
        let good = parse(header);
        assert_eq!(outcomes(&good), [("storage-b conformance".to_owned(), &Outcome::Passed)]);
        let bad = parse(&format!("{header}error: test failed, to rerun pass `x`\n"));
        assert_eq!(outcomes(&bad), [("storage-b conformance".to_owned(), &Outcome::Failed)]);
        assert_eq!(parse("nothing at all"), []);
    }
}
