//! Removing what has expired.
//!
//! Whatever expires is invisible from that moment on, and its file stays until somebody takes it away. A reminder per ten minutes says
//! where to look, so nobody goes through everything: `_storage/expiry/<time>/<hash>` holds the path of a file.

use chrono::{DateTime, Utc};
use serde::Deserialize;
use storage_core::Result;

use crate::file;
use crate::group::{Group, Stage};
use crate::{names, queue, records};

const FOLDER: &str = "_storage/expiry";
/// How many seconds share a folder.
const SECONDS: i64 = 600;
/// How many files one sweep looks at.
const AT_ONCE: usize = 1000;

/// Has the file at `path` looked at after `at`.
pub(crate) fn remind(stage: &mut Stage<'_, '_>, at: DateTime<Utc>, path: &str) -> Result<()> {
    let slot = at.timestamp().div_euclid(SECONDS);
    stage.write(format!("{FOLDER}/{slot}/{}", names::hash(path.as_bytes())), path.to_owned());
    Ok(())
}

/// Removes some of what has expired. `false`: there was nothing to do.
pub(crate) fn expired(group: &mut Group<'_>) -> Result<bool> {
    let (base, now) = (group.base, group.now.timestamp().div_euclid(SECONDS));
    let mut left = AT_ONCE;
    for slot in file::names(&base.path(FOLDER))? {
        if slot.parse().is_ok_and(|slot: i64| slot >= now) || left == 0 {
            continue;
        }
        let folder = format!("{FOLDER}/{slot}");
        let reminders = file::names(&base.path(&folder))?;
        if reminders.is_empty() {
            // Somebody may be writing into it again: then it is not removed.
            let _ = std::fs::remove_dir(base.path(&folder));
        }
        for name in reminders.into_iter().take(left) {
            left -= 1;
            let reminder = format!("{folder}/{name}");
            let path = base.read(&reminder)?.and_then(|path| String::from_utf8(path.to_vec()).ok());
            let mut stage = Stage::new(group);
            if let Some(path) = path {
                // One damaged file does not keep the others.
                remove(&mut stage, &path).unwrap_or_else(|error| tracing::warn!(%error, "an expired file stays"));
            }
            stage.remove(reminder);
            stage.accept()?;
        }
    }
    Ok(left < AT_ONCE)
}

fn remove(stage: &mut Stage<'_, '_>, path: &str) -> Result<()> {
    // A reminder that somebody has tampered with leads nowhere else.
    if path.split('/').any(|part| part == "..") {
        return Ok(());
    }
    if path.starts_with(records::TABLES) {
        return records::remove_expired(stage, path);
    }
    #[derive(Deserialize)]
    struct Expiring {
        expires_at: DateTime<Utc>,
    }
    if path.starts_with(queue::QUEUES)
        && let Some(bytes) = stage.read(path)?
        && serde_json::from_slice::<Expiring>(&bytes)?.expires_at <= stage.group.now
    {
        stage.remove(path.to_owned());
    }
    Ok(())
}
