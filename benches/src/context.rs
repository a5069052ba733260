//! What every section is told: where to work, how much, and on what machine.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::machine::Machine;
use crate::report::{Section, Table};

/// How much to measure.
#[derive(Debug)]
pub struct Options {
    /// Rounds that count; one more is run before as a warm-up.
    pub rounds: usize,
    /// Small sizes: proves that the bench works, not that anything is fast.
    pub quick: bool,
    /// Leave out the peers that have to be built or installed.
    pub no_peers: bool,
    /// Text in the titles of the queue cases to measure; empty for all.
    pub case: String,
    /// Text in the names of the queue subjects to measure; empty for all.
    pub subject: String,
}

impl Options {
    /// Whether the figures are not those of whole sections at full size.
    pub fn partial(&self) -> bool {
        self.quick || !self.case.is_empty() || !self.subject.is_empty()
    }
}

/// Where to work, and how.
#[derive(Debug)]
pub struct Context {
    /// The `benches` folder of the repository.
    pub home: PathBuf,
    /// Where peers are built and the Python environment lives.
    pub target: PathBuf,
    /// Where the subjects write: every one of them, so that all are on one disk.
    pub data: PathBuf,
    /// How much to measure.
    pub options: Options,
    /// The machine, in general terms.
    pub machine: Machine,
}

impl std::ops::Deref for Context {
    type Target = Options;

    fn deref(&self) -> &Options {
        &self.options
    }
}

impl Context {
    /// Checks the data folder and looks at the machine.
    ///
    /// # Errors
    ///
    /// When the folder can't be made or lies in memory, where a commit costs nothing and no comparison holds.
    pub fn new(home: PathBuf, data: Option<PathBuf>, options: Options) -> Result<Self> {
        let target = home.join("target");
        let data = data.unwrap_or_else(|| target.join("data"));
        std::fs::create_dir_all(&data).with_context(|| format!("making the data folder {}", data.display()))?;
        let data = data.canonicalize().context("resolving the data folder")?;
        let machine = Machine::look(&data)?;
        if machine.filesystem == "tmpfs" {
            bail!("{} is in memory (tmpfs): give --dir a folder on a disk", data.display());
        }
        Ok(Self { home, target, data, options, machine })
    }

    /// A fresh folder on the disk, removed when dropped.
    pub fn folder(&self) -> Result<TempDir> {
        tempfile::Builder::new().prefix("round-").tempdir_in(&self.data).context("making a folder for a round")
    }

    /// A section's result, with the circumstances under which it was had.
    pub fn section(&self, id: &str, title: &str, intro: &str, tables: Vec<Table>) -> Section {
        Section {
            id: id.to_owned(),
            title: title.to_owned(),
            intro: intro.to_owned(),
            date: chrono::Utc::now().format("%Y-%m-%d").to_string(),
            machine: self.machine.clone(),
            rounds: self.rounds,
            quick: self.quick,
            tables,
            absent: Vec::new(),
        }
    }

    /// Says on standard error what is being done.
    #[allow(clippy::print_stderr)] // progress is for the person at the terminal
    pub fn progress(&self, what: &str) {
        eprintln!("{what}");
    }

    /// The repository's root.
    pub fn root(&self) -> &Path {
        self.home.parent().unwrap_or(&self.home)
    }
}
