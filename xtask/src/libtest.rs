//! Tests by plain `cargo test`, read from the lines it prints. Documentation examples always run this way.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitStatus};

use serde_json::Value;

use crate::Result;
use crate::lines::Parser;
use crate::plan::Selection;
use crate::process;
use crate::report::{Binary, Case, Kind, Outcome};
use crate::runner::{NOT_COMPILED, Session, failed_run};
use crate::workspace::Workspace;

/// Runs the selected tests.
///
/// # Errors
///
/// When cargo can't be started, or hangs.
pub(crate) fn run(session: &Session<'_>, selection: &Selection) -> Result<Vec<Case>> {
    // The lines don't say which package a binary is from, so it is asked for first.
    let mut build = session.cargo();
    build.arg("test").args(selection.cargo_arguments());
    build.args(["--no-run", "--message-format", "json-render-diagnostics"]);
    let (status, text) = process::output(build)?;
    if !status.success() {
        return Ok(vec![failed_run(selection, NOT_COMPILED)]);
    }
    let mut command = session.cargo();
    command.arg("test").args(selection.cargo_arguments()).arg("--no-fail-fast").args(arguments(selection));
    let mut parser = Parser::new(binaries(&text, session.workspace));
    let status = watched(command, &mut parser)?;
    Ok(checked(parser.finish(), status, selection))
}

/// Runs the documentation examples of `packages`, or of all if none is named.
///
/// # Errors
///
/// When cargo can't be started, or hangs.
pub(crate) fn run_docs(session: &Session<'_>, packages: &[String]) -> Result<Vec<Case>> {
    let workspace = session.workspace;
    let wanted = workspace.packages.iter().filter(|package| packages.is_empty() || packages.contains(&package.name));
    let names: Vec<&str> = wanted.filter(|package| package.doctests).map(|package| package.name.as_str()).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let mut command = session.cargo();
    command.args(["test", "--doc", "--all-features", "--no-fail-fast"]);
    if packages.is_empty() {
        // Not a list of packages: the same features as for the other tests, so nothing is compiled twice.
        command.arg("--workspace");
    } else {
        command.args(names.iter().flat_map(|name| ["-p", name]));
    }
    let libraries = workspace.packages.iter().filter_map(|package| Some((package.library.clone()?, package.name.clone())));
    let docs = libraries.map(|(library, package)| (library.clone(), Binary { package, kind: Kind::Doc, name: library }));
    let mut parser = Parser::new(docs.collect());
    let status = watched(command, &mut parser)?;
    Ok(checked(parser.finish(), status, &Selection { packages: packages.to_vec(), ..Selection::default() }))
}

/// Runs cargo, prints what it prints, and has it read.
fn watched(mut command: Command, parser: &mut Parser) -> Result<ExitStatus> {
    command.env("CARGO_TERM_COLOR", "never");
    process::run_watched(command, |line| {
        // A closed standard output is no reason to stop the tests.
        _ = writeln!(std::io::stdout(), "{line}");
        parser.line(line);
    })
}

/// A runner that failed without a failed test has failed all the same.
fn checked(mut cases: Vec<Case>, status: ExitStatus, selection: &Selection) -> Vec<Case> {
    if !status.success() && !cases.iter().any(|case| case.outcome == Outcome::Failed) {
        cases.push(failed_run(selection, &format!("cargo test ended with {status}, see above")));
    }
    cases
}

/// What comes after cargo's own arguments: what the user gave, and what goes to the test programs.
fn arguments(selection: &Selection) -> Vec<String> {
    let mut arguments = selection.extra.clone();
    let mut program: Vec<String> = selection.filter.iter().cloned().collect();
    if selection.ignored {
        program.push("--ignored".to_owned());
    }
    if !program.is_empty() && !arguments.iter().any(|argument| argument == "--") {
        arguments.push("--".to_owned());
    }
    arguments.extend(program);
    arguments
}

/// The test programs that cargo built, by file name, from its messages.
fn binaries(messages: &str, workspace: &Workspace) -> HashMap<String, Binary> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    messages.filter_map(|message| artifact(&message, workspace)).collect()
}

fn artifact(message: &Value, workspace: &Workspace) -> Option<(String, Binary)> {
    let file = Path::new(message["executable"].as_str()?).file_name()?.to_str()?.to_owned();
    let target = &message["target"];
    // `path+file:///folder/name#0.1.0` or `path+file:///folder#name@0.1.0`: the package is the one of the workspace that fits.
    let id = message["package_id"].as_str()?;
    let (path, version) = id.rsplit_once('#')?;
    let name = version.split_once('@').map_or_else(|| path.rsplit('/').next().unwrap_or(path), |(name, _)| name);
    let package = workspace.packages.iter().find(|package| package.name == name)?.name.clone();
    let kind = if target["kind"][0] == "test" { Kind::Integration } else { Kind::Unit };
    Some((file, Binary { package, kind, name: target["name"].as_str()?.to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::binary;
    use crate::workspace::tests::sample;

    #[test]
    fn binaries_are_found_in_cargos_messages() {
        let packages = vec![sample("storage-b", &["conformance"], &[]), sample("storage-tests", &["crash"], &[])];
        let workspace = Workspace { root: "/w".into(), target: "/w/target".into(), packages };
        let messages = r#"
{"reason":"compiler-artifact","package_id":"path+file:///w/crates/storage-b#0.1.0","target":{"kind":["test"],"name":"conformance"},"executable":"/t/debug/deps/conformance-71f4"}
{"reason":"compiler-artifact","package_id":"path+file:///w/crates/storage-b#0.1.0","target":{"kind":["lib"],"name":"storage_b"},"executable":null}
{"reason":"compiler-artifact","package_id":"path+file:///w/tests#storage-tests@0.1.0","target":{"kind":["lib"],"name":"storage_tests"},"executable":"/t/debug/deps/storage_tests-0a"}
{"reason":"build-finished","success":true}"#;
        let found = binaries(messages, &workspace);
        assert_eq!(found.len(), 2);
        assert_eq!(found["conformance-71f4"], binary("storage-b", Kind::Integration, "conformance"));
        assert_eq!(found["storage_tests-0a"], binary("storage-tests", Kind::Unit, "storage_tests"));
    }

    #[test]
    fn arguments_go_where_they_belong() {
        let mut selection = Selection::default();
        assert!(arguments(&selection).is_empty());
        selection.extra = vec!["get".to_owned()];
        selection.filter = Some("soak".to_owned());
        selection.ignored = true;
        assert_eq!(arguments(&selection), ["get", "--", "soak", "--ignored"]);
        selection.extra.extend(["--".to_owned(), "--exact".to_owned()]);
        assert_eq!(arguments(&selection), ["get", "--", "--exact", "soak", "--ignored"]);
    }
}
