//! The fault proxy does the harm that it says, and none else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use storage_tests::proxy::{Fault, FaultProxy, Rule};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A server that answers every request with its body's length and 1,000 bytes. Says how many requests it read to their ends.
async fn server() -> (String, tokio::sync::mpsc::UnboundedReceiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (told, seen) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let told = told.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"END") {
                    if client.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                told.send(request.len()).unwrap();
                let answer = [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".as_slice(), &[b'x'; 1000]].concat();
                let _ = client.write_all(&answer).await;
            });
        }
    });
    (address, seen)
}

/// What the client gets back until the connection ends or breaks.
async fn ask(proxy: &FaultProxy, method: &str) -> String {
    let mut client = TcpStream::connect(proxy.url().trim_start_matches("http://")).await.unwrap();
    let request = format!("{method} /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\nRange: bytes=3-\r\n\r\n1234567END");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while let Ok(Ok(1..)) = tokio::time::timeout(Duration::from_secs(2), client.read_buf(&mut answer)).await {}
    String::from_utf8(answer).unwrap()
}

fn body_len(answer: &str) -> Option<usize> {
    answer.split_once("\r\n\r\n").map(|(_, body)| body.len())
}

#[tokio::test]
async fn requests_pass_unless_a_rule_fits() {
    let (address, mut served) = server().await;
    let proxy = FaultProxy::start(&address).await;
    proxy.harm(Rule::new(Fault::LoseAnswer).range("bytes=4-"));
    proxy.harm(Rule::new(Fault::Answer { status: 503, retry_after: Some(7) }).method("PUT").target("?b").after(1).times(2));
    assert_eq!(body_len(&ask(&proxy, "GET").await), Some(1000));
    assert_eq!(body_len(&ask(&proxy, "PUT").await), Some(1000));
    for _ in 0..2 {
        let answer = ask(&proxy, "PUT").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 7\r\n"), "{answer}");
    }
    assert_eq!(body_len(&ask(&proxy, "PUT").await), Some(1000));
    proxy.until_idle().await;
    proxy.until_seen(|seen| seen.harmed).await;
    let mut count = 0;
    while served.try_recv().is_ok() {
        count += 1;
    }
    assert_eq!(count, 3, "what the proxy answers never comes to the server");
    let seen = proxy.seen();
    assert_eq!(seen.iter().map(|s| s.harmed).collect::<Vec<_>>(), [false, false, true, true, false]);
    assert_eq!((seen[0].target.as_str(), seen[0].range.as_deref()), ("/a?b", Some("bytes=3-")));
}

#[tokio::test]
async fn connections_break_and_stall_where_they_should() {
    let (address, mut served) = server().await;
    let proxy = FaultProxy::start(&address).await;
    proxy.harm(Rule::new(Fault::CutRequest(4)));
    assert_eq!(ask(&proxy, "PUT").await, "");
    assert!(served.try_recv().is_err(), "the server saw a part");
    proxy.harm(Rule::new(Fault::LoseAnswer));
    assert_eq!(ask(&proxy, "PUT").await, "");
    assert!(served.recv().await.is_some(), "the server saw the whole");
    proxy.harm(Rule::new(Fault::CutResponse(100)).range("bytes=3-"));
    assert_eq!(body_len(&ask(&proxy, "GET").await), Some(100));
    proxy.harm(Rule::new(Fault::StallResponse(200)));
    assert_eq!(body_len(&ask(&proxy, "GET").await), Some(200));
    proxy.harm(Rule::new(Fault::StallRequest));
    assert_eq!(ask(&proxy, "GET").await, "");
    proxy.set_down(true);
    assert_eq!(ask(&proxy, "GET").await, "");
    proxy.set_down(false);
    assert_eq!(body_len(&ask(&proxy, "GET").await), Some(1000));
}
