//! `cargo xtask test`.

use crate::args::TestOptions;
use crate::plan::Selection;
use crate::report::{Case, Tally, render};
use crate::runner::{NOT_COMPILED, Session, failed_run};
use crate::workspace::Workspace;
use crate::{Failure, Result, capabilities, plan, provision};

/// Runs the tests and prints the table. The caller prints the tally, which is the last line.
///
/// # Errors
///
/// When the tests can't be run, or there are none of that name.
pub(crate) fn run(workspace: &Workspace, options: &TestOptions) -> Result<Tally> {
    let selections = plan::tests(workspace, options)?;
    if options.all {
        provision::test_tools(workspace)?;
    }
    let mut session = Session::new(workspace)?;
    for (name, on) in [("XTASK_TEST_NO_SERVERS", options.no_servers), ("XTASK_TEST_SOAK", options.soak)] {
        if on {
            session.set(name, "1".into());
        }
    }
    let _servers = match options.no_servers {
        true => None,
        false => Some(session.serve(options.backend.as_deref())?),
    };
    let mut cases = Vec::new();
    for selection in &selections {
        cases.extend(session.run(selection)?);
    }
    // Examples in the documentation of what does not compile would only say so again.
    let compiled = cases.iter().all(|case| case.name != NOT_COMPILED);
    if compiled && options.runner.is_empty() {
        let packages = selections.first().map(|selection| selection.packages.clone()).unwrap_or_default();
        cases.extend(session.run_docs(&packages)?);
    }
    session.apply_skips(&mut cases)?;
    if !capabilities::holds(workspace, &session.declared(&cases)?)? {
        cases.push(failed_run(
            &Selection::default(),
            "docs/capabilities.md is not what backends declare: run `cargo xtask matrix`",
        ));
    }
    summarise(&cases, options.all)
}

fn summarise(cases: &[Case], all: bool) -> Result<Tally> {
    if cases.is_empty() {
        return Err(Failure::Failed("no test ran: nothing matches what was asked for".to_owned()));
    }
    println!("\n{}\n", render(cases));
    let tally = Tally::of(cases);
    if !all {
        return Ok(tally);
    }
    if tally.skipped > 0 {
        println!("--all has to run everything: {} skipped tests count as failed.", tally.skipped);
    }
    Ok(tally.strict())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;
    use crate::report::tests::case;

    #[test]
    fn all_makes_a_skip_a_failure() {
        let skipped = Outcome::Skipped("no server".to_owned());
        let cases = [case("storage-a", "records::x", Outcome::Passed), case("storage-a", "records::y", skipped)];
        assert_eq!(summarise(&cases, false).unwrap(), Tally { passed: 1, failed: 0, skipped: 1 });
        assert_eq!(summarise(&cases, true).unwrap(), Tally { passed: 1, failed: 1, skipped: 0 });
    }

    #[test]
    fn no_tests_are_no_success() {
        assert!(summarise(&[], false).is_err());
    }
}
