//! What the workspace consists of, as `cargo metadata` tells it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::args::nearest;
use crate::process;
use crate::{Failure, Result, doing};

/// The test binary of a backend crate that holds its conformance suites.
pub(crate) const CONFORMANCE: &str = "conformance";
const PREFIX: &str = "storage-";

/// The packages of the workspace and its folders.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    /// cargo's target folder, wherever it is.
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// One package of the workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// Names of the files and folders in `tests/`.
    pub(crate) tests: Vec<String>,
    /// True if it has a library whose documentation examples run.
    pub(crate) doctests: bool,
    /// Its library, if any: the name with `_` in place of `-`.
    pub(crate) library: Option<String>,
    pub(crate) dependencies: Vec<String>,
}

impl Package {
    /// The backend that this package implements, if its name and its conformance suites say so.
    pub(crate) fn backend(&self) -> Option<&str> {
        if !self.tests.iter().any(|test| test == CONFORMANCE) {
            return None;
        }
        self.name.strip_prefix(PREFIX)
    }
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    ///
    /// When cargo can't read the manifests, or answers something else than metadata.
    pub(crate) fn load() -> Result<Self> {
        let mut command = cargo();
        command.args(["metadata", "--no-deps", "--format-version", "1", "--quiet"]);
        let (status, text) = process::output(command)?;
        if !status.success() {
            return Err(Failure::Failed("`cargo metadata` cannot read the workspace, see above".to_owned()));
        }
        let value: Value = doing(serde_json::from_str(&text), || "cannot read what `cargo metadata` printed".to_owned())?;
        Self::parse(&value).ok_or_else(|| Failure::Failed("`cargo metadata` named no folders or packages".to_owned()))
    }

    fn parse(value: &Value) -> Option<Self> {
        let packages = value["packages"].as_array()?.iter().filter_map(package).collect();
        Some(Self {
            root: Path::new(value["workspace_root"].as_str()?).to_owned(),
            target: Path::new(value["target_directory"].as_str()?).to_owned(),
            packages,
        })
    }

    /// cargo in the root folder of the workspace.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = cargo();
        command.current_dir(&self.root);
        if std::env::var_os("CARGO_TARGET_DIR").is_some() {
            // It may be relative to the folder that we were called in.
            command.env("CARGO_TARGET_DIR", &self.target);
        }
        command
    }

    /// Where tools are kept that were installed for the tests.
    pub(crate) fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// The package that implements `backend`.
    ///
    /// # Errors
    ///
    /// A usage error with the names there are.
    pub(crate) fn backend(&self, backend: &str) -> Result<&Package> {
        let wanted = format!("{PREFIX}{backend}");
        if let Some(package) = self.packages.iter().find(|package| package.name == wanted) {
            return Ok(package);
        }
        let names: Vec<&str> = self.packages.iter().filter_map(Package::backend).collect();
        let hint = nearest(backend, names.iter().copied()).map_or_else(String::new, |name| format!("; did you mean '{name}'?"));
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Err(Failure::Usage(format!("there is no package '{wanted}'{hint} (backends: {known})")))
    }
}

/// The cargo that runs us, so that the toolchain stays the same.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn package(value: &Value) -> Option<Package> {
    let targets = value["targets"].as_array()?;
    let library = targets.iter().find(|target| has_kind(target, &["lib", "rlib", "proc-macro"]));
    Some(Package {
        name: value["name"].as_str()?.to_owned(),
        tests: targets.iter().filter(|target| has_kind(target, &["test"])).filter_map(name).collect(),
        doctests: library.is_some_and(|target| target["doctest"].as_bool().unwrap_or(false)),
        library: library.and_then(name),
        dependencies: value["dependencies"].as_array()?.iter().filter_map(name).collect(),
    })
}

fn name(value: &Value) -> Option<String> {
    value["name"].as_str().map(str::to_owned)
}

fn has_kind(target: &Value, kinds: &[&str]) -> bool {
    target["kind"].as_array().is_some_and(|found| found.iter().filter_map(Value::as_str).any(|kind| kinds.contains(&kind)))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A package for the tests of other modules.
    pub(crate) fn sample(name: &str, tests: &[&str], dependencies: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            tests: tests.iter().map(ToString::to_string).collect(),
            doctests: true,
            library: Some(name.replace('-', "_")),
            dependencies: dependencies.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn metadata_is_read() {
        let value = serde_json::json!({
            "workspace_root": "/w", "target_directory": "/t",
            "packages": [{
                "name": "storage-sqlite",
                "dependencies": [{"name": "storage-core"}],
                "targets": [
                    {"name": "storage_sqlite", "kind": ["lib"], "doctest": true},
                    {"name": "conformance", "kind": ["test"], "doctest": false},
                ],
            }, {
                "name": "xtask", "dependencies": [], "targets": [{"name": "xtask", "kind": ["bin"], "doctest": false}],
            }],
        });
        let workspace = Workspace::parse(&value).unwrap();
        assert_eq!(workspace.tools(), Path::new("/t/tools"));
        assert_eq!(workspace.packages[0], sample("storage-sqlite", &["conformance"], &["storage-core"]));
        assert_eq!(workspace.packages[0].backend(), Some("sqlite"));
        assert_eq!(workspace.packages[1].library, None);
        assert!(!workspace.packages[1].doctests);
        assert_eq!(workspace.backend("sqlite").unwrap().name, "storage-sqlite");
        let Err(Failure::Usage(message)) = workspace.backend("sqlit") else { panic!("found") };
        assert!(message.contains("did you mean 'sqlite'?"), "{message}");
    }
}
