//! Section `layers`: what policies cost per call, and transforms per byte.

mod policy;
mod sink;
mod transform;

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

pub use policy::Guard;
pub use sink::Store;
pub use transform::Cipher;

use crate::context::Context;
use crate::report::Section;

const INTRO: &str = "\
Everything here runs on one core: threads held to one processor, with a runtime of their own. Times are the processor's, as nothing \
here waits. Calls go to stores in memory; each round makes its calls in twenty turns, guarded and bare by turns, and takes the middle \
turn of each. Transforms get 64 MiB in pieces of 1 MiB that nobody else holds, as from a file or a socket, in front of a store that \
keeps nothing, and give back what was stored before; the test's own memory is freed when the clock has stopped. The baselines work on \
bytes that lie there already, in place (encryption, 64 KiB messages) or from one buffer into another (compression, 1 MiB frames), with \
the same library.";

/// Measures on a thread of its own.
pub fn run(context: &Context) -> Result<Section> {
    let measure = || -> Result<Section> {
        stay_on_one_core()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tables = runtime.block_on(async {
            let mut tables = policy::run(context).await?;
            tables.extend(transform::run(context).await?);
            anyhow::Ok(tables)
        })?;
        Ok(context.section("layers", "Policies and transforms", INTRO, tables))
    };
    std::thread::scope(|scope| scope.spawn(measure).join()).map_err(|_| anyhow!("the measuring thread panicked"))?
}

/// Holds this thread, and those that it starts, to the last processor that it may use.
fn stay_on_one_core() -> Result<()> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).context("asking for the processors")?;
    let last = (0..CpuSet::count()).rev().find(|core| allowed.is_set(*core).unwrap_or(false)).context("no processor")?;
    let mut one = CpuSet::new();
    one.set(last)?;
    sched_setaffinity(this, &one).context("staying on one processor")
}

/// Measures the processor's time of all threads of this process; the others have nothing to do meanwhile.
#[derive(Clone, Copy)]
struct Stopwatch(Duration);

impl Stopwatch {
    fn start() -> Result<Self> {
        Ok(Self(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.into()))
    }

    fn seconds(self) -> Result<f64> {
        Ok((Self::start()?.0 - self.0).as_secs_f64())
    }
}
