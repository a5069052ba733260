//! Progress bars, on a terminal only.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use storage_core::{Progress, ProgressFn};

use crate::output::Out;

const BYTES: &str = "{bytes} of {total_bytes}  {bar:30}  {binary_bytes_per_sec}  {eta} left  {msg}";
const FLOW: &str = "{bytes}  {binary_bytes_per_sec}  {elapsed}";
const THINGS: &str = "{msg}  {human_pos} of {human_len}  {bar:30}  {per_sec}  {eta} left";

/// A bar is told no more often: a hundred thousand small files must not cost seconds of drawing.
const EVERY_MS: u64 = 100;

/// A bar that shows how many of so many bytes are through, how fast, and how long it will take.
pub(crate) fn bytes(out: &Out) -> ProgressBar {
    bar(out, BYTES)
}

/// What shows how many bytes are through, and how fast, where nobody knows how many there will be.
pub(crate) fn flow(out: &Out) -> ProgressBar {
    bar(out, FLOW)
}

/// A bar that shows how many of so many things are done.
pub(crate) fn things(out: &Out, total: u64, what: &str) -> ProgressBar {
    let bar = bar(out, THINGS);
    bar.set_length(total);
    bar.set_message(what.to_owned());
    bar
}

fn bar(out: &Out, template: &str) -> ProgressBar {
    if !out.shows_progress() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
    // A bad template shows the default style, and in a test its error.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

/// Tells a bar how far a transfer is.
pub(crate) fn follow(bar: &ProgressBar) -> Option<ProgressFn> {
    if bar.is_hidden() {
        // Without anybody to tell, a local file may be moved at the disk's speed.
        return None;
    }
    let (bar, started, last) = (bar.clone(), Instant::now(), AtomicU64::new(0));
    Some(Arc::new(move |progress: Progress| {
        let now = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let seen = last.load(Ordering::Relaxed);
        let due = now >= seen + EVERY_MS;
        // Of several that are due at once, one tells.
        if !due || last.compare_exchange(seen, now, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.bytes);
        if progress.total_files > 1 {
            bar.set_message(format!("{} of {} files", progress.files, progress.total_files));
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_good() {
        for template in [BYTES, FLOW, THINGS] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
