//! Ctrl-C and SIGTERM.

use tokio::sync::watch;

use crate::exit::Failure;

/// Which signal came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    /// The code that shells expect: 128 and the signal's number.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// The signals that came so far. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Signals(watch::Receiver<(u32, Option<Signal>)>);

impl Signals {
    /// Takes over Ctrl-C and SIGTERM. After so many of them the process ends, whatever it is doing: a write to a pipe that nobody reads can't be
    /// broken off otherwise.
    pub(crate) fn listen(patience: u32) -> Result<Self, Failure> {
        let (sender, receiver) = watch::channel((0, None));
        let mut source = Source::new().map_err(|e| storage_core::Error::from(e).with_operation("signals"))?;
        tokio::spawn(async move {
            loop {
                let signal = source.next().await;
                let mut count = 0;
                sender.send_modify(|state| {
                    *state = (state.0 + 1, Some(signal));
                    count = state.0;
                });
                if count >= patience {
                    std::process::exit(signal.exit_code().into());
                }
            }
        });
        Ok(Self(receiver))
    }

    /// The next signal.
    pub(crate) async fn next(&self) -> Signal {
        self.at_least(1).await
    }

    /// Ready when one came.
    pub(crate) async fn stop(&self) {
        let _ = self.next().await;
    }

    /// Ready when so many signals came.
    pub(crate) async fn at_least(&self, count: u32) -> Signal {
        let mut receiver = self.0.clone();
        let state = receiver.wait_for(|state| state.0 >= count).await.map(|state| *state);
        match state {
            Ok((_, Some(signal))) => signal,
            // The sender lives as long as the runtime.
            _ => std::future::pending().await,
        }
    }
}

#[cfg(unix)]
struct Source {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Source {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

#[cfg(not(unix))]
struct Source;

#[cfg(not(unix))]
impl Source {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::Interrupt,
            Err(_) => std::future::pending().await,
        }
    }
}
