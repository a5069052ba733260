//! What is told of calls: the numbers of every outcome, and a span.

#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use storage_core::{BlobStore, ErrorKind, NewMessage, QueueSpec, QueueStore, Receive};
use storage_layers::guarded::guard;
use storage_layers::policy::Policy;
use storage_memory::MemoryStore;

/// `name{label=value,…}` → value; histograms by how many values they have.
fn numbers(recorder: &metrics_util::debugging::Snapshotter) -> BTreeMap<String, u64> {
    let named = recorder.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
        let mut labels: Vec<_> = key.key().labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        labels.sort();
        let value = match value {
            DebugValue::Counter(count) => count,
            DebugValue::Histogram(values) => values.len() as u64,
            DebugValue::Gauge(_) => 0,
        };
        (format!("{}{{{}}}", key.key().name(), labels.join(",")), value)
    });
    named.collect()
}

#[test]
fn every_outcome_is_counted() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let backends = guard(MemoryStore::new().backends(), &Policy::default(), Some("task_queue"));
            let (queues, blobs) = (QueueStore::new(backends.queue.unwrap()), BlobStore::new(backends.blobs.unwrap()));
            let q = "q".parse().unwrap();
            assert_eq!(queues.stats(&q).await.unwrap_err().kind(), ErrorKind::NotFound);
            queues.create_queue(&q, &QueueSpec::default()).await.unwrap();
            queues.send(&q, NewMessage::new("hello")).await.unwrap();
            queues.receive(&q, &Receive::default()).await.unwrap();
            let wait = Receive::default().wait(std::time::Duration::from_secs(60));
            assert!(queues.receive(&q, &wait).now_or_never().is_none(), "dropped while it waits");
            blobs.put_text(&"a".parse().unwrap(), "blob").await.unwrap();
            blobs.get(&"a".parse().unwrap()).await.unwrap();
        });
    });
    let numbers = numbers(&snapshotter);
    let operation = |name: &str| format!("backend=memory,component=task_queue,{name}");
    for (name, expected) in [
        (format!("storage_calls_total{{{}}}", operation("operation=queues.send,outcome=ok")), 1),
        (format!("storage_calls_total{{{}}}", operation("operation=queues.stats,outcome=error")), 1),
        (format!("storage_calls_total{{{}}}", operation("operation=queues.receive,outcome=ok")), 1),
        (format!("storage_calls_total{{{}}}", operation("operation=queues.receive,outcome=cancelled")), 1),
        ("storage_errors_total{backend=memory,component=task_queue,kind=not-found,operation=queues.stats}".to_owned(), 1),
        (format!("storage_call_duration_seconds{{{}}}", operation("operation=queues.receive")), 2),
        (format!("storage_bytes_total{{{}}}", operation("direction=written")), 9),
        (format!("storage_bytes_total{{{}}}", operation("direction=read")), 9),
    ] {
        assert_eq!(numbers.get(&name), Some(&expected), "{name} in {numbers:#?}");
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_span_names_component_operation_and_subject_and_no_contents() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let backends = guard(MemoryStore::new().backends(), &Policy::default(), Some("mail"));
            let queues = QueueStore::new(backends.queue.unwrap());
            let letters = "letters".parse().unwrap();
            queues.create_queue(&letters, &QueueSpec::default()).await.unwrap();
            queues.send(&letters, NewMessage::new("confidential").attribute("to", "somebody")).await.unwrap();
            assert!(queues.stats(&"nowhere".parse().unwrap()).await.is_err());
        });
    });
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for expected in [
        "component=mail",
        "operation=\"queues.send\"",
        "subject=letters",
        "outcome=\"ok\"",
        "outcome=\"not-found\"",
        "backend=memory",
    ] {
        assert!(log.contains(expected), "no {expected} in:\n{log}");
    }
    assert!(!log.contains("confidential") && !log.contains("somebody"), "{log}");
}

#[cfg(feature = "prometheus")]
#[tokio::test]
async fn a_prometheus_server_can_scrape() {
    use storage_layers::observe::Prometheus;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let prometheus = Prometheus::install(Some(free)).unwrap();
    let backends = guard(MemoryStore::new().backends(), &Policy::default(), Some("blobs"));
    let blobs = BlobStore::new(backends.blobs.unwrap());
    blobs.put_text(&"a".parse().unwrap(), "x").await.unwrap();

    let mut connection = tokio::net::TcpStream::connect(free).await.unwrap();
    connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    for text in [&answer, &prometheus.render()] {
        assert!(
            text.contains("storage_calls_total{component=\"blobs\",backend=\"memory\",operation=\"blobs.put\",outcome=\"ok\"} 1"),
            "{text}"
        );
        assert!(text.contains("storage_call_duration_seconds_bucket"), "{text}");
    }
    assert_eq!(Prometheus::install(None).unwrap_err().kind(), ErrorKind::Config);
}
