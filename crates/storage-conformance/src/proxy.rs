//! [`Proxy`]: a network between a backend and its server that breaks when a test wants it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// How many bytes are passed on at once.
const PIECE: usize = 4096;

/// What happens, once, to what passes next. All connections break with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// So many bytes of what clients send still reach the server.
    CutRequest(usize),
    /// The server is given what a client sends; its answer gets lost.
    LoseAnswer,
}

/// Passes bytes on between clients and a server on this machine, whatever they speak, until it is told to do harm. Ends, with all its connections, when it is
/// dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listener: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    upstream: u16,
    harm: Mutex<Option<Harm>>,
    /// Connections of earlier generations are broken; `None`: nobody is let in any more.
    generation: watch::Sender<Option<u64>>,
}

impl Shared {
    fn harm(&self) -> MutexGuard<'_, Option<Harm>> {
        self.harm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn break_all(&self) {
        self.generation.send_modify(|generation| *generation = generation.map(|n| n + 1));
    }

    /// How many of these bytes of a client may pass; fewer where the connections are to break.
    fn allow(&self, bytes: usize) -> usize {
        let mut harm = self.harm();
        let Some(Harm::CutRequest(left)) = &mut *harm else { return bytes };
        if *left >= bytes {
            *left -= bytes;
            return bytes;
        }
        let allowed = *left;
        *harm = None;
        allowed
    }

    fn loses_answer(&self) -> bool {
        let mut harm = self.harm();
        *harm == Some(Harm::LoseAnswer) && harm.take().is_some()
    }
}

impl Proxy {
    /// Listens on a free port for the server at the port `upstream` of this machine.
    ///
    /// # Panics
    /// Where no port is free.
    pub async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let shared = Arc::new(Shared { upstream, harm: Mutex::default(), generation: watch::Sender::new(Some(0)) });
        let theirs = Arc::clone(&shared);
        let listener = tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let generation = *theirs.generation.borrow();
                if let Some(generation) = generation {
                    connections.spawn(pass(client, generation, Arc::clone(&theirs)));
                }
            }
        });
        Self { address, shared, listener }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port of [`address`](Self::address).
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Does this to what passes next.
    pub fn harm(&self, harm: Harm) {
        *self.shared.harm() = Some(harm);
    }

    /// True once the harm was done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.shared.harm().is_none()
    }

    /// Breaks all connections, and lets nobody in any more.
    pub fn vanish(&self) {
        self.shared.generation.send_replace(None);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// Until either side ends, or the connection is broken: both sockets are dropped then.
async fn pass(mut client: TcpStream, generation: u64, shared: Arc<Shared>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", shared.upstream)).await else { return };
    let mut changes = shared.generation.subscribe();
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        let mut buffer = vec![0; PIECE];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            let allowed = shared.allow(read);
            if to_server.write_all(&buffer[..allowed]).await.is_err() {
                return;
            }
            if allowed < read {
                return shared.break_all();
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; PIECE];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            if shared.loses_answer() {
                return shared.break_all();
            }
            if to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = changes.wait_for(|now| *now != Some(generation)) => {}
    }
}
