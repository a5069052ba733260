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
    /// So many bytes of what the server answers still reach clients.
    CutAnswer(usize),
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
    generation: watch::Sender<Generation>,
}

/// Connections of earlier generations are broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Generation {
    number: u64,
    /// False: nobody is let in.
    is_open: bool,
}

const FIRST: Generation = Generation { number: 0, is_open: true };

impl Shared {
    fn harm(&self) -> MutexGuard<'_, Option<Harm>> {
        self.harm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn break_all(&self) {
        self.generation.send_modify(|generation| generation.number += 1);
    }

    fn begin(&self, is_open: bool) {
        self.generation.send_modify(|generation| *generation = Generation { number: generation.number + 1, is_open });
    }

    /// How many of these bytes may pass, of a client or of the server; fewer where the connections are to break.
    fn allow(&self, bytes: usize, is_answer: bool) -> usize {
        let mut harm = self.harm();
        let left = match (&mut *harm, is_answer) {
            (Some(Harm::CutRequest(left)), false) | (Some(Harm::CutAnswer(left)), true) => left,
            _ => return bytes,
        };
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
        let shared = Arc::new(Shared { upstream, harm: Mutex::default(), generation: watch::Sender::new(FIRST) });
        let theirs = Arc::clone(&shared);
        let listener = tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let generation = *theirs.generation.borrow();
                if generation.is_open {
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

    /// Breaks all connections, and lets nobody in until it [comes back](Self::come_back).
    pub fn vanish(&self) {
        self.shared.begin(false);
    }

    /// Lets clients in again.
    pub fn come_back(&self) {
        self.shared.begin(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// Until either side ends, or the connection is broken: both sockets are dropped then.
async fn pass(mut client: TcpStream, generation: Generation, shared: Arc<Shared>) {
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", shared.upstream)).await else { return };
    let mut changes = shared.generation.subscribe();
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        let mut buffer = vec![0; PIECE];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            let allowed = shared.allow(read, false);
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
            let allowed = shared.allow(read, true);
            if to_client.write_all(&buffer[..allowed]).await.is_err() {
                return;
            }
            if allowed < read {
                return shared.break_all();
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        _ = changes.wait_for(|now| *now != generation) => {}
    }
}
