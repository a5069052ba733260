//! `amqps://`: the broker's certificate is checked, and the client shows its own.

#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::time::Duration;

use common::broker::{Broker, free_ports};
use storage_conformance::certificates::authority;
use storage_core::{Driver as _, DriverConfig, ErrorKind, NewMessage, QueueStore, Receive, Result};
use storage_queue_amqp::AmqpDriver;
use storage_queue_amqp::celery::{Celery, Task};

async fn ping(url: &str) -> Result<QueueStore> {
    let opened = AmqpDriver.open(&DriverConfig::from_url(url)).await?;
    let store = QueueStore::new(opened.queue.expect("it opens queues"));
    store.ping().await.map(|()| store)
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["ours", "theirs"] {
        if let Err(reason) = authority(folder.path(), name) {
            return storage_conformance::skip(&reason);
        }
    }
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let [port, ..] = free_ports();
    let settings = |_: &std::path::Path| {
        let (ca, cert, key) = (file("ours.pem"), file("ours-own.pem"), file("ours-own.key"));
        format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {ca}\nssl_options.certfile = {cert}\n\
             ssl_options.keyfile = {key}\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n"
        )
    };
    let Some(broker) = Broker::start_with_or_skip(settings) else { return };
    let with = |ca: &str, own: &str| {
        let (cert, key) = (file(&format!("{own}-own.pem")), file(&format!("{own}-own.key")));
        format!("amqps://guest:guest@127.0.0.1:{port}/?tls_ca={}&tls_cert={cert}&tls_key={key}", file(ca))
    };
    let store = ping(&with("ours.pem", "ours")).await.unwrap();
    let name = "work".parse().unwrap();
    store.create_queue(&name, &store.default_spec()).await.unwrap();
    store.send(&name, NewMessage::new("hello")).await.unwrap();
    let received = store.receive(&name, &Receive::default().wait(Duration::from_secs(20))).await.unwrap();
    assert_eq!(received[0].message.body, "hello");
    store.delete(&name, &received[0].receipt).await.unwrap();
    let celery = Celery::open(&DriverConfig::from_url(&format!("celery+{}", with("ours.pem", "ours")))).unwrap();
    celery.send("tasks", &Task::new("a")).await.unwrap();

    for (ca, own) in [("theirs.pem", "ours"), ("ours.pem", "theirs")] {
        let error = ping(&with(ca, own)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{ca} {own}: {error}");
    }
    // By Mozilla's authorities alone, and without a certificate of the client's own.
    let alone = ping(&format!("amqps://guest:guest@127.0.0.1:{port}/")).await.unwrap_err();
    assert_eq!(alone.kind(), ErrorKind::Unavailable, "{alone}");
    let ours = ping(&format!("amqps://guest:guest@127.0.0.1:{port}/?tls_ca={}", file("ours.pem"))).await.unwrap_err();
    assert_eq!(ours.kind(), ErrorKind::Unavailable, "{ours}");
    // The broker speaks TLS there, and the plain protocol elsewhere.
    let plain = ping(&format!("amqp://guest:guest@127.0.0.1:{port}/")).await.unwrap_err();
    assert!(matches!(plain.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{plain}");
    ping(&broker.url("")).await.unwrap();
}
