//! A TCP proxy that cuts connections after so many bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Passes bytes on until its budget of those that go to the server is used up; then all connections break.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    /// How many bytes may still go to the server. Negative: without end.
    budget: AtomicI64,
    cuts: AtomicUsize,
    cut: Notify,
}

impl Proxy {
    pub(crate) async fn to(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared { budget: AtomicI64::new(-1), cuts: AtomicUsize::new(0), cut: Notify::new() });
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
        self.shared.budget.store(bytes, Ordering::SeqCst);
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

async fn pass(client: TcpStream, server: TcpStream, shared: &Shared) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let mut buffer = vec![0; 4096];
        loop {
            let read = match from_client.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => read,
            };
            let before = shared.budget.load(Ordering::SeqCst);
            let mut allowed = read;
            if before >= 0 {
                allowed = usize::try_from(before).unwrap_or_default().min(read);
                shared.budget.fetch_sub(i64::try_from(allowed).expect("small"), Ordering::SeqCst);
            }
            if to_server.write_all(&buffer[..allowed]).await.is_err() {
                return;
            }
            if allowed < read {
                shared.budget.store(-1, Ordering::SeqCst);
                shared.cuts.fetch_add(1, Ordering::SeqCst);
                shared.cut.notify_waiters();
                return;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 4096];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            if to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        () = shared.cut.notified() => {}
    }
}
