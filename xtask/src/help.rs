//! Help texts.

use crate::args::Topic;

/// The help on one topic.
pub(crate) fn text(topic: Topic) -> &'static str {
    match topic {
        Topic::All => ALL,
        Topic::Test => TEST,
        Topic::Ci => CI,
        Topic::Matrix => MATRIX,
        Topic::Bench => BENCH,
        Topic::Docs => DOCS,
    }
}

const ALL: &str = "\
The project's own commands.

Usage: cargo xtask COMMAND [OPTIONS]

  test     run every test that this machine can run, and say what was skipped and why
  matrix   the conformance suites alone: backend by suite
  ci       everything a change has to pass: format, lints, tests, documentation, dependencies
  bench    build and run the benchmarks
  docs     build the API documentation and check links
  help     this text; `cargo xtask help COMMAND` says more

Rust is enough for all of them. cargo-nextest is used where it is installed.
Exit codes: 0 all well, 1 something failed, 2 wrong usage, 130 interrupted.";

const TEST: &str = "\
Runs every test that this machine can run, documentation examples included.

Usage: cargo xtask test [OPTIONS] [-- RUNNER ARGUMENTS]

  --all              install what is missing, and count a skip as a failure
  --backend NAME     only crate storage-NAME, and tests of other crates that mention it
  --no-servers       neither use nor start servers: those tests are skipped
  --soak             also the long tests (ignored tests with 'soak' in their name), and longer rounds in others
  -- ARGUMENTS       handed to cargo-nextest, or to `cargo test` where nextest is not installed;
                     a part of a test's name works with both. Documentation examples are left out then.

What the tests see:
  XTASK_TEST_SKIPS       file to which a test that can't run appends a line (see CONTRIBUTING.md)
  XTASK_TEST_NO_SERVERS  1 with --no-servers
  XTASK_TEST_SOAK        1 with --soak
  XTASK_TEST_…         addresses of servers that are installed and were started, each on a free port of 127.0.0.1;
                         one that is set already is used as it is
  PATH                     starts with the folders of what --all installed under the target folder

The last line reads `N passed, N failed`, followed by `, N skipped` if there were any.";

const CI: &str = "\
Runs everything a change has to pass, to the end, whatever fails on the way.

Usage: cargo xtask ci

  format         cargo fmt --all -- --check
  lints          cargo clippy on all targets with all features, warnings are errors
  tests          cargo xtask test --all
  documentation  cargo doc, warnings are errors
  links          relative links in the Markdown files
  dependencies   cargo deny (installed under the target folder if it is not there)

The last line reads `N passed, N failed`: test cases, and one for each of the other steps.";

const MATRIX: &str = "\
Runs the conformance suites alone, prints backend by suite, and writes what the backends declared into docs/capabilities.md.
The column of a backend that can't run here, or failed, stays as it is. `cargo xtask test` and `ci` compare, and write nothing.

Usage: cargo xtask matrix [--backend NAME]";

const BENCH: &str = "\
Builds the benchmarks (a workspace of their own, in benches/) with optimisation and runs them.

Usage: cargo xtask bench [ARGUMENTS OF THE BENCHMARKS]";

const DOCS: &str = "\
Builds the API documentation of all crates, and checks the links in the Markdown files.

Usage: cargo xtask docs";
