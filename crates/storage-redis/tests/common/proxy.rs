//! A TCP proxy that does harm to one connection when it is told to.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What happens, once, to the next bytes that fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// The connection breaks after so many bytes of what the client sends.
    CutRequest(usize),
    /// The server is given what the client sends; the connection breaks before its answer.
    LoseAnswer,
}

/// The proxy. Ends, with all its connections, when it is dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    harm: Arc<Mutex<Option<Harm>>>,
    listener: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port for the server at `upstream`, a port of this machine.
    pub(crate) async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let harm = Arc::<Mutex<Option<Harm>>>::default();
        let shared = Arc::clone(&harm);
        let listener = tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(serve(client, upstream, Arc::clone(&shared)));
            }
        });
        Self { address, harm, listener }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub(crate) fn harm(&self, harm: Harm) {
        *self.harm.lock().unwrap() = Some(harm);
    }

    /// True once the harm was done.
    pub(crate) fn is_done(&self) -> bool {
        self.harm.lock().unwrap().is_none()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn serve(mut client: TcpStream, upstream: u16, harm: Arc<Mutex<Option<Harm>>>) -> std::io::Result<()> {
    let mut server = TcpStream::connect(("127.0.0.1", upstream)).await?;
    let (mut client_out, mut client_in) = client.split();
    let (mut server_out, mut server_in) = server.split();
    let request = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let length = client_out.read(&mut buffer).await?;
            let (pass, cut) = {
                let mut harm = harm.lock().unwrap();
                match &mut *harm {
                    Some(Harm::CutRequest(left)) if *left < length => (std::mem::take(left), harm.take().is_some()),
                    Some(Harm::CutRequest(left)) => {
                        *left -= length;
                        (length, false)
                    }
                    _ => (length, length == 0),
                }
            };
            server_in.write_all(&buffer[..pass]).await?;
            if cut {
                return Ok(());
            }
        }
    };
    let response = async {
        let mut buffer = vec![0; 16 * 1024];
        loop {
            let length = server_out.read(&mut buffer).await?;
            let lose = {
                let mut harm = harm.lock().unwrap();
                *harm == Some(Harm::LoseAnswer) && harm.take().is_some()
            };
            if lose || length == 0 {
                return Ok(());
            }
            client_in.write_all(&buffer[..length]).await?;
        }
    };
    // Dropping both sockets breaks the connection.
    tokio::select! { end = request => end, end = response => end }
}
