//! A TCP proxy that cuts connections after so many bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

/// Passes bytes on until its budget of those that go to the server, or come from it, is used up; then all connections break.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    /// How many bytes may still go to the server. Negative: without end.
    up: AtomicI64,
    /// How many may still come from it.
    down: AtomicI64,
    /// True: nobody gets through.
    closed: watch::Sender<bool>,
    cuts: AtomicUsize,
    cut: Notify,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            up: AtomicI64::new(-1),
            down: AtomicI64::new(-1),
            closed: watch::Sender::new(false),
            cuts: AtomicUsize::new(0),
            cut: Notify::new(),
        });
        let theirs = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = Arc::clone(&theirs);
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
                    pass(client, server, &shared).await;
                });
            }
        });
        Self { address, shared, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Breaks all connections after so many more bytes to the server.
    pub(crate) fn cut_after(&self, bytes: i64) {
        self.shared.up.store(bytes, Ordering::SeqCst);
    }

    /// Breaks all connections after so many more bytes of answers.
    pub(crate) fn cut_answers_after(&self, bytes: i64) {
        self.shared.down.store(bytes, Ordering::SeqCst);
    }

    /// Breaks all connections and takes no new ones, until it is opened again.
    pub(crate) fn close(&self, closed: bool) {
        self.shared.closed.send_replace(closed);
    }

    /// How often it has cut.
    pub(crate) fn cuts(&self) -> usize {
        self.shared.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
        self.shared.cut.notify_waiters();
    }
}

/// Copies until one of the two has no more, or the budget is used up.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, budget: &AtomicI64, shared: &Shared) {
    let mut buffer = vec![0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        let before = budget.load(Ordering::SeqCst);
        let mut allowed = read;
        if before >= 0 {
            allowed = usize::try_from(before).unwrap_or_default().min(read);
            budget.fetch_sub(i64::try_from(allowed).expect("small"), Ordering::SeqCst);
        }
        if to.write_all(&buffer[..allowed]).await.is_err() {
            return;
        }
        if allowed < read {
            budget.store(-1, Ordering::SeqCst);
            shared.cuts.fetch_add(1, Ordering::SeqCst);
            shared.cut.notify_waiters();
            return;
        }
    }
}

async fn pass(client: TcpStream, server: TcpStream, shared: &Shared) {
    let mut closed = shared.closed.subscribe();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        () = copy(from_client, to_server, &shared.up, shared) => {}
        () = copy(from_server, to_client, &shared.down, shared) => {}
        () = shared.cut.notified() => {}
        _ = closed.wait_for(|closed| *closed) => {}
    }
}
