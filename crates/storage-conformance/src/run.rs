//! Running one case.

use std::fmt;
use std::io::Write as _;
use std::panic::Location;
use std::time::Duration;

use futures::future::LocalBoxFuture;

use crate::Harness;
use crate::caches::CacheHarness;

/// What a case answers. Assertions panic, as in any test; errors that a case does not expect come out here.
pub type CaseResult = Result<(), Failure>;

/// A case.
pub type Case = for<'h> fn(&'h dyn Harness) -> LocalBoxFuture<'h, CaseResult>;

/// A case about caches.
pub type CacheCase = for<'h> fn(&'h dyn CacheHarness) -> LocalBoxFuture<'h, CaseResult>;

/// How long a case may take before it counts as hanging: far beyond what any needs.
const LIMIT: Duration = Duration::from_secs(120);

/// The runtime that the cases of a module need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavor {
    /// One thread.
    Single,
    /// Several, for cases that race.
    Threaded,
}

/// An error that a case did not expect, and where it came up.
pub struct Failure {
    error: Box<dyn std::error::Error + Send + Sync>,
    at: &'static Location<'static>,
}

impl<E: Into<Box<dyn std::error::Error + Send + Sync>>> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        Self { error: error.into(), at: Location::caller() }
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, at {}", self.error, self.at)
    }
}

tokio::task_local! {
    static NAME: String;
}

/// Runs a case on a runtime of its own. The macros expand to this.
///
/// # Panics
/// Where the case fails, or hangs.
pub fn run(name: &'static str, flavor: Flavor, harness: &dyn Harness, case: Case) {
    run_whole(name, flavor, async {
        match harness.unavailable().await {
            Some(reason) => skip_case(&reason),
            None => case(harness).await,
        }
    });
}

/// The same for a case about caches.
///
/// # Panics
/// Where the case fails, or hangs.
pub fn run_caches(name: &'static str, flavor: Flavor, harness: &dyn CacheHarness, case: CacheCase) {
    run_whole(name, flavor, async {
        match harness.unavailable().await {
            Some(reason) => skip_case(&reason),
            None => case(harness).await,
        }
    });
}

fn skip_case(reason: &str) -> CaseResult {
    skip(reason);
    Ok(())
}

fn run_whole(name: &'static str, flavor: Flavor, whole: impl Future<Output = CaseResult>) {
    let mut builder = match flavor {
        Flavor::Single => tokio::runtime::Builder::new_current_thread(),
        Flavor::Threaded => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime");
    // Where suites run against several services, the module before the suite tells them apart.
    let thread = std::thread::current();
    let full = thread.name().filter(|full| full.ends_with(name)).unwrap_or(name).to_owned();
    match runtime.block_on(NAME.scope(full, async { tokio::time::timeout(LIMIT, whole).await })) {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => panic!("{name}: {failure:?}"),
        Err(_) => panic!("{name} hangs: not done after {LIMIT:?}"),
    }
    // Threads that a backend blocks in are not waited for: a test is to end.
    runtime.shutdown_background();
}

/// Says that the current test can't run, and why; the test should then return.
///
/// Prints `SKIPPED: reason`, and appends `package<TAB>test<TAB>reason` to the file that the environment variable `XTASK_TEST_SKIPS` names,
/// where it is set.
///
/// # Panics
/// Where that file can't be written: a skip must not get lost.
pub fn skip(reason: &str) {
    #[allow(clippy::print_stdout, reason = "tests print")]
    {
        println!("SKIPPED: {reason}");
    }
    let Some(log) = std::env::var_os("XTASK_TEST_SKIPS") else { return };
    let thread = std::thread::current();
    let named = NAME.try_with(Clone::clone).ok().or_else(|| thread.name().map(str::to_owned));
    let test = named.unwrap_or_else(|| "unnamed".to_owned());
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "unknown".into());
    let line = format!("{package}\t{test}\t{}\n", reason.replace(['\t', '\n', '\r'], " "));
    // One write of one short line: lines of concurrent tests do not mix.
    let written = std::fs::OpenOptions::new().create(true).append(true).open(&log).and_then(|mut f| f.write_all(line.as_bytes()));
    written.unwrap_or_else(|error| panic!("can't write to {}: {error}", log.display()));
}
