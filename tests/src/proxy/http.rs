//! As much of HTTP/1.1 as the proxy has to understand: where a head ends, what it asks for.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest head.
const MAX_HEAD: usize = 64 << 10;

/// The head of a request.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) method: String,
    /// Path and query.
    pub(super) target: String,
    pub(super) range: Option<String>,
    /// How many bytes of body follow, where the head says it.
    content_length: usize,
    /// It, with `Connection: close`.
    pub(super) raw: Vec<u8>,
}

/// Reads up to the empty line: the head with it, and what came behind. `None`: the connection ended before.
pub(super) async fn read_raw_head(from: &mut (impl AsyncRead + Unpin)) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut head = Vec::with_capacity(4096);
    loop {
        if let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            let rest = head.split_off(end + 4);
            return Ok((head, rest));
        }
        if head.len() > MAX_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if from.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Reads the head of a request and what came of its body with it. `None`: what came is not a request.
pub(super) async fn read_head(client: &mut TcpStream) -> io::Result<Option<(Head, Vec<u8>)>> {
    let (raw, body) = read_raw_head(client).await?;
    let text = String::from_utf8_lossy(&raw);
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
    let fields = || text.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
    let field = |name: &str| fields().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned());
    let (range, length) = (field("range"), field("content-length"));
    let content_length = length.and_then(|n| n.parse().ok()).unwrap_or(0);
    let kept = text.split("\r\n").filter(|line| !line.to_ascii_lowercase().starts_with("connection:") && !line.is_empty());
    let raw = kept.chain(["Connection: close", "", ""]).collect::<Vec<_>>().join("\r\n").into_bytes();
    Ok(Some((Head { method, target, range, content_length, raw }, body)))
}

/// Copies `begun`, then the stream: up to `limit` bytes in all, or to its end. True where the limit was met.
pub(super) async fn copy(
    begun: &[u8],
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    limit: Option<usize>,
) -> io::Result<bool> {
    let limit = limit.unwrap_or(usize::MAX);
    let begun = &begun[..begun.len().min(limit)];
    to.write_all(begun).await?;
    let mut rest = from.take((limit - begun.len()) as u64);
    tokio::io::copy(&mut rest, to).await?;
    to.flush().await?;
    Ok(rest.limit() == 0)
}

/// Reads the request to its end, as a server does, and answers.
pub(super) async fn answer(
    client: &mut TcpStream,
    head: &Head,
    body: Vec<u8>,
    status: u16,
    retry_after: Option<u64>,
) -> io::Result<()> {
    let left = head.content_length.saturating_sub(body.len());
    tokio::io::copy(&mut (&mut *client).take(left as u64), &mut tokio::io::sink()).await?;
    let wait = retry_after.map(|seconds| format!("Retry-After: {seconds}\r\n")).unwrap_or_default();
    let answer = format!("HTTP/1.1 {status} By The Proxy\r\n{wait}Content-Length: 0\r\nConnection: close\r\n\r\n");
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await
}
