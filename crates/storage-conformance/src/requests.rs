//! [`RequestCounter`]: how many requests HTTP clients make, counted on their way to a server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// How many bytes are passed on at once.
const PIECE: usize = 64 << 10;
/// The longest head of a request.
const MAX_HEAD: usize = 64 << 10;

/// Passes bytes on between HTTP/1.1 clients and a server, and counts the requests among them: what a request carries in its body, such as those of a batch,
/// does not count. Ends, with all its connections, when it is dropped.
#[derive(Debug)]
pub struct RequestCounter {
    address: SocketAddr,
    count: Arc<AtomicUsize>,
    listener: JoinHandle<()>,
}

impl RequestCounter {
    /// Listens on a free port for the server at `upstream`, such as `http://127.0.0.1:8080`.
    ///
    /// # Panics
    /// Where no port is free.
    pub async fn start(upstream: &str) -> Self {
        let upstream = upstream.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let listener = tokio::spawn(async move {
            // Dropped with this task, and all connections with it.
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let (upstream, counted) = (upstream.clone(), Arc::clone(&counted));
                connections.spawn(async move {
                    let Ok(server) = TcpStream::connect(upstream).await else { return };
                    pass(client, server, &counted).await;
                });
            }
        });
        Self { address, count, listener }
    }

    /// Where it listens, as the URL of the server that it stands for.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many there were since it was asked last.
    pub fn take(&self) -> usize {
        self.count.swap(0, Ordering::SeqCst)
    }
}

impl Drop for RequestCounter {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

/// Until either side ends; or a request is none that can be counted: who sent it gets no answer then.
async fn pass(mut client: TcpStream, mut server: TcpStream, count: &AtomicUsize) {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        let (mut buffer, mut framing) = (vec![0; PIECE], Framing::default());
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            let Some(begun) = framing.take(&buffer[..read]) else { return };
            // Before the server can answer it.
            count.fetch_add(begun, Ordering::SeqCst);
            if to_server.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    let down = tokio::io::copy(&mut from_server, &mut to_client);
    tokio::select! {
        () = up => {}
        _ = down => {}
    }
}

/// Where requests end on a connection.
#[derive(Debug, Default)]
struct Framing {
    /// As much of a request's head as was seen.
    head: Vec<u8>,
    /// How much of a request's body is still to come.
    body: usize,
}

impl Framing {
    /// How many heads end within these bytes. `None`: one of them does not say how long its body is, or is too long.
    fn take(&mut self, bytes: &[u8]) -> Option<usize> {
        let (mut count, mut rest) = (0, bytes);
        while let Some((byte, behind)) = rest.split_first() {
            if self.body > 0 {
                let skipped = self.body.min(rest.len());
                self.body -= skipped;
                rest = &rest[skipped..];
                continue;
            }
            self.head.push(*byte);
            rest = behind;
            if self.head.ends_with(b"\r\n\r\n") {
                self.body = body_length(std::str::from_utf8(&self.head).ok()?)?;
                self.head.clear();
                count += 1;
            } else if self.head.len() > MAX_HEAD {
                return None;
            }
        }
        Some(count)
    }
}

fn body_length(head: &str) -> Option<usize> {
    let mut length = 0;
    for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(':')) {
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return None;
        }
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str =
        "POST /$batch HTTP/1.1\r\ncontent-length: 28\r\n\r\nPOST /t HTTP/1.1\r\nA: 1\r\n\r\n{}GET / HTTP/1.1\r\nHost: h\r\n\r\n";

    #[test]
    fn what_is_in_a_body_does_not_count() {
        assert_eq!(Framing::default().take(TWO.as_bytes()), Some(2));
    }

    #[test]
    fn pieces_count_as_the_whole() {
        for size in 1..TWO.len() {
            let mut framing = Framing::default();
            let counts: Option<Vec<usize>> = TWO.as_bytes().chunks(size).map(|piece| framing.take(piece)).collect();
            assert_eq!(counts.unwrap().iter().sum::<usize>(), 2, "pieces of {size}");
        }
    }

    #[test]
    fn a_body_of_unknown_length_is_not_guessed_at() {
        assert_eq!(Framing::default().take(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), None);
        assert_eq!(Framing::default().take(b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n"), None);
        assert_eq!(Framing::default().take(&[b'x'; MAX_HEAD + 1]), None);
    }
}
