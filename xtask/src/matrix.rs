//! `cargo xtask matrix`: the conformance suites alone, backend by suite, and what the backends declare as `docs/capabilities.md`.

use std::collections::BTreeMap;

use crate::report::{COMPONENTS, Case, Tally, details, group};
use crate::runner::Session;
use crate::table::{Align, Table};
use crate::workspace::Workspace;
use crate::{Failure, Result, capabilities, plan};

/// Runs the suites, prints the matrix and writes the page of capabilities. The caller prints the tally.
///
/// # Errors
///
/// When the suites can't be run, or there are none.
pub(crate) fn run(workspace: &Workspace, backend: Option<&str>) -> Result<Tally> {
    let mut session = Session::new(workspace)?;
    let _servers = session.serve(backend)?;
    let mut cases = Vec::new();
    for selection in plan::conformance(workspace, backend)? {
        cases.extend(session.run(&selection)?);
    }
    session.apply_skips(&mut cases)?;
    if cases.is_empty() {
        return Err(Failure::Failed("no crate has conformance suites (tests/conformance.rs)".to_owned()));
    }
    println!("\n{}{}\n", matrix(&cases), details(&cases));
    if capabilities::write(workspace, &session.declared(&cases)?)? {
        println!("docs/capabilities.md is written anew: see what changed, and commit it.\n");
    }
    Ok(Tally::of(&cases))
}

fn matrix(cases: &[Case]) -> String {
    let mut backends: BTreeMap<String, BTreeMap<usize, Tally>> = BTreeMap::new();
    for case in cases {
        let group = group(&case.binary, &case.name);
        // What belongs to no backend (a build that failed) stands under its own name.
        let backend = if group.backend.is_empty() { group.suite } else { group.backend };
        let rank = group.rank.min(COMPONENTS.len());
        backends.entry(backend).or_default().entry(rank).or_default().add(&case.outcome);
    }
    // The column for cases outside the components is there only if there are any.
    let other = backends.values().any(|suites| suites.contains_key(&COMPONENTS.len()));
    let columns: Vec<&str> = COMPONENTS.into_iter().chain(other.then_some("other")).collect();
    let head = columns.iter().map(|name| (*name, Align::Right));
    let mut table = Table::new(std::iter::once(("backend", Align::Left)).chain(head));
    for (backend, suites) in backends {
        let cells = (0..columns.len()).map(|rank| suites.get(&rank).map_or_else(|| "–".to_owned(), cell));
        table.row(std::iter::once(backend).chain(cells).collect());
    }
    table.render()
}

/// Passed of all, so that a full suite is seen at a glance.
fn cell(tally: &Tally) -> String {
    let mut cell = format!("{}/{}", tally.passed, tally.total());
    if tally.failed > 0 {
        cell.push_str(" FAILED");
    }
    if tally.skipped > 0 {
        cell.push_str(" skipped");
    }
    cell
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Outcome;
    use crate::report::tests::case;

    #[test]
    fn backend_by_suite() {
        let cases = [
            case("storage-sqlite", "records::a", Outcome::Passed),
            case("storage-sqlite", "records::b", Outcome::Failed),
            case("storage-sqlite", "queues::a", Outcome::Skipped("no server".to_owned())),
            case("storage-fs", "blobs::a", Outcome::Passed),
        ];
        let expected = "\
backend     records  transactions       queues  blobs
───────  ──────────  ────────────  ───────────  ─────
fs                –             –            –    1/1
sqlite   1/2 FAILED             –  0/1 skipped      –";
        assert_eq!(matrix(&cases), expected);
        assert!(matrix(&[case("storage-fs", "odd", Outcome::Passed)]).contains("other"));
    }
}
