//! The machine in general terms: nothing that names a host, a user or a path.

use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

/// What numbers depend on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Logical processors.
    pub cores: usize,
    /// Memory, in GiB.
    pub memory_gib: u64,
    /// Operating system and its version, two numbers long.
    pub kernel: String,
    /// The file system of the data folder.
    pub filesystem: String,
    /// Appends of 4 KiB, each followed by an fsync, per second: what a growing log can commit.
    pub appends_per_second: f64,
    /// The same onto blocks that are already written: what a log that is used again can commit.
    pub overwrites_per_second: f64,
}

impl Machine {
    /// Looks at the machine and tries the disk under `dir`.
    ///
    /// # Errors
    ///
    /// When the disk can't be written.
    pub fn look(dir: &Path) -> Result<Self> {
        let (appends_per_second, overwrites_per_second) = try_disk(dir).context("trying the disk")?;
        Ok(Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: memory_gib(),
            kernel: kernel(),
            filesystem: filesystem(dir),
            appends_per_second,
            overwrites_per_second,
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} cores, {} GiB of memory, {}, {}; 4 KiB + fsync: {:.0}/s appending, {:.0}/s overwriting",
            self.cores, self.memory_gib, self.kernel, self.filesystem, self.appends_per_second, self.overwrites_per_second
        )
    }
}

fn try_disk(dir: &Path) -> Result<(f64, f64)> {
    const WRITES: u32 = 300;
    let mut file: File = tempfile::tempfile_in(dir)?;
    let block = [0x5A_u8; 4_096];
    let mut pass = || -> Result<f64> {
        file.seek(SeekFrom::Start(0))?;
        let started = Instant::now();
        for _ in 0..WRITES {
            file.write_all(&block)?;
            file.sync_all()?;
        }
        Ok(f64::from(WRITES) / started.elapsed().as_secs_f64())
    };
    Ok((pass()?, pass()?))
}

fn memory_gib() -> u64 {
    let kib = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    kib.unwrap_or(0).div_ceil(1 << 20)
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version: Vec<&str> = release.trim().split('.').take(2).collect();
    if version.iter().all(|part| part.is_empty()) {
        std::env::consts::OS.to_owned()
    } else {
        format!("Linux {}", version.join("."))
    }
}

/// The type of the mount that holds `dir`: the longest mount point that is a prefix of it.
fn filesystem(dir: &Path) -> String {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    mounts
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (point, kind) = (fields.next()?, fields.next()?);
            dir.starts_with(point).then_some((point.len(), kind))
        })
        .max()
        .map_or_else(|| "unknown file system".to_owned(), |(_, kind)| kind.to_owned())
}
