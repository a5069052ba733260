//! Running selections of tests with the runner that is there, and documentation examples.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::plan::{SOAK, Selection};
use crate::report::{Binary, Case, Kind, Outcome};
use crate::servers::Servers;
use crate::workspace::Workspace;
use crate::{Result, capabilities, doing, libtest, nextest, process, provision, skips};

/// What all test programs of one run share.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) workspace: &'a Workspace,
    environment: Vec<(&'static str, OsString)>,
    skip_log: PathBuf,
    capability_log: PathBuf,
    nextest: bool,
}

impl<'a> Session<'a> {
    /// Creates empty logs of skips and capabilities, and looks which runner there is.
    ///
    /// # Errors
    ///
    /// When the logs can't be created.
    pub(crate) fn new(workspace: &'a Workspace) -> Result<Self> {
        let folder = workspace.target.join("xtask");
        doing(std::fs::create_dir_all(&folder), || format!("cannot create {}", folder.display()))?;
        // The process id keeps two runs that share a target folder apart.
        let skip_log = folder.join(format!("skips-{}.tsv", std::process::id()));
        let capability_log = folder.join(format!("capabilities-{}.jsonl", std::process::id()));
        for log in [&skip_log, &capability_log] {
            doing(std::fs::write(log, ""), || format!("cannot write {}", log.display()))?;
        }
        let mut session = Self { workspace, environment: Vec::new(), skip_log, capability_log, nextest: false };
        session.set(capabilities::VARIABLE, session.capability_log.clone().into());
        session.set(skips::VARIABLE, session.skip_log.clone().into());
        session.set("PATH", provision::search_path(workspace));
        let mut version = session.cargo();
        version.args(["nextest", "--version"]);
        session.nextest = process::succeeds(version);
        Ok(session)
    }

    /// Sets an environment variable for the tests.
    pub(crate) fn set(&mut self, name: &'static str, value: OsString) {
        self.environment.push((name, value));
    }

    /// Starts the servers that the tests of `backend` (`None`: of all) can use, and tells the tests of them.
    pub(crate) fn serve(&mut self, backend: Option<&str>) -> Result<Servers> {
        let servers = Servers::start(self.workspace, |name| backend.is_none_or(|backend| backend == name))?;
        for (variable, address) in servers.addresses() {
            self.set(variable, address.into());
        }
        Ok(servers)
    }

    /// cargo in the workspace with the environment of the tests.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = self.workspace.cargo();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the selected tests. What does not compile is a failed case.
    ///
    /// # Errors
    ///
    /// When the runner can't be started, hangs, or reports what can't be read.
    pub(crate) fn run(&self, selection: &Selection) -> Result<Vec<Case>> {
        if self.nextest { nextest::run(self, selection) } else { libtest::run(self, selection) }
    }

    /// Runs the documentation examples of the packages that have any.
    ///
    /// # Errors
    ///
    /// When cargo can't be started or hangs.
    pub(crate) fn run_docs(&self, packages: &[String]) -> Result<Vec<Case>> {
        libtest::run_docs(self, packages)
    }

    /// Marks the tests that said they could not run.
    ///
    /// # Errors
    ///
    /// When the log can't be read.
    pub(crate) fn apply_skips(&self, cases: &mut Vec<Case>) -> Result<()> {
        let log = std::fs::read(&self.skip_log);
        let log = doing(log, || format!("cannot read the log of skipped tests {}", self.skip_log.display()))?;
        skips::apply(cases, skips::parse(&String::from_utf8_lossy(&log)));
        Ok(())
    }

    /// What the backends declared in these cases.
    ///
    /// # Errors
    ///
    /// When the log can't be read.
    pub(crate) fn declared(&self, cases: &[Case]) -> Result<capabilities::Measured> {
        let log = std::fs::read_to_string(&self.capability_log);
        let log = doing(log, || format!("cannot read the log of capabilities {}", self.capability_log.display()))?;
        capabilities::measured(self.workspace, &log, cases)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // If it stays, nothing reads it: the next run has a log of its own.
        _ = std::fs::remove_file(&self.skip_log);
        _ = std::fs::remove_file(&self.capability_log);
    }
}

/// How a test marked `#[ignore]` counts: not at all if it is a long one, else as skipped.
pub(crate) fn ignored(test: &str, reason: &str) -> Option<Outcome> {
    if test.contains(SOAK) || reason.starts_with(SOAK) {
        return None;
    }
    let reason = if reason.is_empty() { "marked #[ignore]".to_owned() } else { format!("marked #[ignore]: {reason}") };
    Some(Outcome::Skipped(reason))
}

/// What the failure is called when tests or examples do not compile.
pub(crate) const NOT_COMPILED: &str = "does not compile, see above";

/// A failure that belongs to no single test, as a case of its own.
pub(crate) fn failed_run(selection: &Selection, what: &str) -> Case {
    let package = selection.packages.first().map_or("workspace", String::as_str);
    let binary = Binary { package: package.to_owned(), kind: Kind::Runner, name: String::new() };
    Case { binary, name: what.to_owned(), outcome: Outcome::Failed, time: Duration::ZERO }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_tests_are_skips_unless_they_are_long() {
        assert_eq!(ignored("records::soak_writes", ""), None);
        assert_eq!(ignored("records::writes", "soak: ten minutes"), None);
        assert_eq!(ignored("records::writes", ""), Some(Outcome::Skipped("marked #[ignore]".to_owned())));
        let outcome = Some(Outcome::Skipped("marked #[ignore]: needs a tape".to_owned()));
        assert_eq!(ignored("records::writes", "needs a tape"), outcome);
    }
}
