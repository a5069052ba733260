//! Small file systems of their own: to be filled up, or made read-only.

use std::path::Path;
use std::process::Command;

/// A tmpfs in a folder of its own, unmounted on drop.
#[derive(Debug)]
pub struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    /// Mounts one of so many KiB. `None` where this process may not mount; the test is then noted as skipped.
    #[must_use]
    pub fn mount(kib: u32) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = format!("size={kib}k");
        let mounted = mount(&["-t", "tmpfs", "-o", &options, "tmpfs"], folder.path());
        if !mounted {
            storage_conformance::skip("this process may not mount a tmpfs (needs root)");
            return None;
        }
        Some(Self { folder })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes it read-only, or writable again.
    pub fn set_read_only(&self, read_only: bool) {
        let mode = if read_only { "remount,ro" } else { "remount,rw" };
        assert!(mount(&["-o", mode], self.path()), "can't remount {}: {:?}", self.path().display(), open_files(self.path()));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a test that failed may still have files open.
        drop(Command::new("umount").arg("-l").arg(self.path()).status());
    }
}

fn mount(arguments: &[&str], target: &Path) -> bool {
    Command::new("mount").args(arguments).arg(target).output().is_ok_and(|output| output.status.success())
}

/// Which files below `folder` this process has open: what keeps a file system from being made read-only.
fn open_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    entries.filter_map(|entry| std::fs::read_link(entry.path()).ok()).filter(|target| target.starts_with(folder)).collect()
}
