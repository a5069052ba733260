//! Progress bars, on a terminal only.

use std::sync::Arc;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use storage_core::{Progress, ProgressFn};

use crate::output::Out;

/// A bar that shows how many of so many bytes are through, how fast, and how long it will take.
pub(crate) fn bytes(out: &Out) -> ProgressBar {
    bar(out, "{bytes} of {total_bytes}  {bar:30}  {binary_bytes_per_sec}  {eta} left  {msg}")
}

/// A bar that shows how many of so many things are done.
pub(crate) fn things(out: &Out, total: u64, what: &str) -> ProgressBar {
    let bar = bar(out, "{msg}  {human_pos} of {human_len}  {bar:30}  {per_sec}  {eta} left");
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
    let bar = bar.clone();
    Some(Arc::new(move |progress: Progress| {
        bar.set_length(progress.total_bytes);
        bar.set_position(progress.bytes);
        if progress.total_files > 1 {
            bar.set_message(format!("file {} of {}", progress.files, progress.total_files));
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_good() {
        for template in [
            "{bytes} of {total_bytes}  {bar:30}  {binary_bytes_per_sec}  {eta} left  {msg}",
            "{msg}  {human_pos} of {human_len}  {bar:30}  {per_sec}  {eta} left",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
