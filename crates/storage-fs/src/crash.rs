//! Where the process may die: the recovery tests end it at each of these places in turn.

/// A place between two file operations.
#[cfg(not(test))]
#[inline]
pub(crate) const fn step() {}

/// A place between two file operations: aborts the process at the one that the environment asks for.
#[cfg(test)]
pub(crate) fn step() {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI64, Ordering};
    static LEFT: OnceLock<Option<AtomicI64>> = OnceLock::new();
    let left = LEFT.get_or_init(|| std::env::var(AT).ok().and_then(|n| n.parse().ok()).map(AtomicI64::new));
    if let Some(left) = left
        && ARMED.load(Ordering::SeqCst)
        && left.fetch_sub(1, Ordering::SeqCst) == 0
    {
        std::process::abort();
    }
}

/// The variable that says after how many steps to die.
#[cfg(test)]
pub(crate) const AT: &str = "STORAGE_FS_TEST_CRASH_AT";

/// Steps count from when this is set.
#[cfg(test)]
pub(crate) static ARMED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
