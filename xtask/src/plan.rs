//! Which tests to run: options turned into selections of packages, binaries and names.

use crate::Result;
use crate::args::TestOptions;
use crate::workspace::{CONFORMANCE, Package, Workspace};

/// Part of the name of a long test. Such a test is marked `#[ignore]` and runs with `--soak`.
pub(crate) const SOAK: &str = "soak";

/// One start of the test runner.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    /// None means the whole workspace.
    pub(crate) packages: Vec<String>,
    pub(crate) targets: Targets,
    /// Only tests whose names contain this.
    pub(crate) filter: Option<String>,
    /// Only tests marked `#[ignore]`, in place of the others.
    pub(crate) ignored: bool,
    /// Further arguments, from the command line.
    pub(crate) extra: Vec<String>,
}

/// The test binaries of a selection.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Targets {
    #[default]
    All,
    /// These files of `tests/`.
    Only(Vec<String>),
    /// The library, if there is one, the programs, and these files of `tests/`.
    Rest { library: bool, tests: Vec<String> },
}

impl Selection {
    /// The arguments that cargo and cargo-nextest share.
    pub(crate) fn cargo_arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--all-features".to_owned()];
        if self.packages.is_empty() {
            arguments.push("--workspace".to_owned());
        }
        for package in &self.packages {
            arguments.extend(["-p".to_owned(), package.clone()]);
        }
        let tests = match &self.targets {
            // Unit tests and `tests/`, but neither examples nor benchmarks.
            Targets::All => {
                arguments.push("--tests".to_owned());
                return arguments;
            }
            Targets::Only(tests) => tests,
            Targets::Rest { library, tests } => {
                arguments.extend(library.then(|| "--lib".to_owned()));
                arguments.push("--bins".to_owned());
                tests
            }
        };
        for test in tests {
            arguments.extend(["--test".to_owned(), test.clone()]);
        }
        arguments
    }
}

/// The selections for `cargo xtask test`.
///
/// # Errors
///
/// A usage error if there is no such backend.
pub(crate) fn tests(workspace: &Workspace, options: &TestOptions) -> Result<Vec<Selection>> {
    let mut selections = match &options.backend {
        None => vec![Selection::default()],
        Some(backend) => {
            let package = workspace.backend(backend)?;
            let mut selections = vec![Selection { packages: vec![package.name.clone()], ..Selection::default() }];
            let dependents = workspace.packages.iter().filter(|other| other.dependencies.contains(&package.name));
            selections.extend(dependents.flat_map(|dependent| mentions(dependent, backend)));
            selections
        }
    };
    if options.soak {
        let whole = selections.iter().filter(|selection| selection.filter.is_none()).cloned();
        let soak = whole.map(|selection| Selection { filter: Some(SOAK.to_owned()), ignored: true, ..selection });
        let soak: Vec<Selection> = soak.collect();
        selections.extend(soak);
    }
    for selection in &mut selections {
        selection.extra.clone_from(&options.runner);
    }
    Ok(selections)
}

/// The selections for `cargo xtask matrix`: none if no crate has conformance suites.
///
/// # Errors
///
/// A usage error if there is no such backend.
pub(crate) fn conformance(workspace: &Workspace, backend: Option<&str>) -> Result<Vec<Selection>> {
    let packages: Vec<String> = match backend {
        Some(backend) => vec![workspace.backend(backend)?.name.clone()],
        None => workspace.packages.iter().filter(|p| p.backend().is_some()).map(|p| p.name.clone()).collect(),
    };
    if packages.is_empty() {
        return Ok(Vec::new());
    }
    let targets = Targets::Only(vec![CONFORMANCE.to_owned()]);
    Ok(vec![Selection { packages, targets, ..Selection::default() }])
}

/// What of `package` mentions `backend`: test files named after it as a whole, and from the others the tests that are.
fn mentions(package: &Package, backend: &str) -> Vec<Selection> {
    let word = backend.replace('-', "_");
    let packages = vec![package.name.clone()];
    let (named, others): (Vec<String>, Vec<String>) = package.tests.iter().cloned().partition(|test| has_word(test, &word));
    let mut selections = Vec::new();
    if !named.is_empty() {
        selections.push(Selection { packages: packages.clone(), targets: Targets::Only(named), ..Selection::default() });
    }
    let targets = Targets::Rest { library: package.library.is_some(), tests: others };
    selections.push(Selection { packages, targets, filter: Some(word), ..Selection::default() });
    selections
}

/// True if `word` stands in `name` between its ends, `_` or `-`.
fn has_word(name: &str, word: &str) -> bool {
    format!("_{}_", name.replace('-', "_")).contains(&format!("_{word}_"))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::workspace::tests::sample;

    fn workspace() -> Workspace {
        let packages = vec![
            sample("storage-core", &[], &[]),
            sample("storage-fs", &["conformance", "layout"], &["storage-core"]),
            sample("storage-tests", &["crash_fs", "interop", "offset"], &["storage-fs"]),
        ];
        Workspace { root: PathBuf::from("/w"), target: PathBuf::from("/w/target"), packages }
    }

    fn lines(selections: &[Selection]) -> Vec<String> {
        selections
            .iter()
            .map(|s| format!("{} | {} | {}", s.cargo_arguments().join(" "), s.filter.clone().unwrap_or_default(), s.ignored))
            .collect()
    }

    #[test]
    fn all_tests_are_one_selection() {
        let options = TestOptions { runner: vec!["get".to_owned()], ..TestOptions::default() };
        let selections = tests(&workspace(), &options).unwrap();
        assert_eq!(lines(&selections), ["--all-features --workspace --tests |  | false"]);
        assert_eq!(selections[0].extra, ["get"]);
    }

    #[test]
    fn a_backend_selects_its_package_and_what_mentions_it() {
        let options = TestOptions { backend: Some("fs".to_owned()), soak: true, ..TestOptions::default() };
        let expected = [
            "--all-features -p storage-fs --tests |  | false",
            "--all-features -p storage-tests --test crash_fs |  | false",
            "--all-features -p storage-tests --lib --bins --test interop --test offset | fs | false",
            "--all-features -p storage-fs --tests | soak | true",
            "--all-features -p storage-tests --test crash_fs | soak | true",
        ];
        assert_eq!(lines(&tests(&workspace(), &options).unwrap()), expected);
        let options = TestOptions { backend: Some("redis".to_owned()), ..TestOptions::default() };
        assert!(tests(&workspace(), &options).is_err());
    }

    #[test]
    fn the_matrix_is_conformance_alone() {
        let selections = conformance(&workspace(), None).unwrap();
        assert_eq!(lines(&selections), ["--all-features -p storage-fs --test conformance |  | false"]);
        let empty = Workspace { packages: Vec::new(), ..workspace() };
        assert!(conformance(&empty, None).unwrap().is_empty());
    }

    #[test]
    fn words_in_names() {
        assert!(has_word("crash_fs", "fs") && has_word("fs", "fs") && has_word("x-queue-azure", "queue_azure"));
        assert!(!has_word("offset", "fs") && !has_word("fsx", "fs"));
    }
}
