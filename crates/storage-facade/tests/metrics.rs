//! Metrics by configuration: a Prometheus server's request finds what was just done.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use storage_core::ErrorKind;
use storage_facade::{EnvLayer, Storage, StorageBuilder};

fn configured(toml: &str, variables: &[(&str, &str)]) -> (tempfile::TempDir, StorageBuilder) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("c.toml");
    std::fs::write(&file, toml).unwrap();
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    (folder, Storage::builder().file(file).env(EnvLayer::of("STORAGE_", variables)))
}

#[test]
fn it_is_on_where_it_is_said_and_off_where_it_is_not() {
    for (toml, variables, enabled) in [
        ("", &[][..], None),
        ("metrics = true", &[], Some(true)),
        ("metrics = false", &[], Some(false)),
        ("[metrics]", &[], Some(true)),
        ("[metrics]\nlisten = \"127.0.0.1:9000\"\nenabled = false", &[], Some(false)),
        ("metrics = true", &[("STORAGE_METRICS", "false")], Some(false)),
        ("", &[("STORAGE_METRICS", "true")], Some(true)),
        ("", &[("STORAGE_METRICS__LISTEN", "[::1]:9000")], Some(true)),
    ] {
        let (_folder, builder) = configured(toml, variables);
        let config = builder.config().unwrap();
        assert_eq!(config.metrics.map(|metrics| metrics.enabled), enabled, "{toml} {variables:?}");
    }
}

#[cfg(not(feature = "prometheus"))]
#[tokio::test]
async fn what_is_not_compiled_in_names_its_feature() {
    let feature = if cfg!(feature = "metrics") { "prometheus" } else { "metrics" };
    for (toml, feature) in [("metrics = true", feature), ("[metrics]\nlisten = \"127.0.0.1:0\"", "prometheus")] {
        let (_folder, builder) = configured(&format!("blobs = \"memory:\"\n{toml}"), &[]);
        match builder.open().await {
            Err(error) => {
                let named = format!("build with the cargo feature `{feature}`");
                assert!(error.kind() == ErrorKind::Config && error.message().contains(&named), "{error}");
            }
            Ok(_) => assert!(cfg!(feature = "metrics") && !toml.contains("listen"), "{toml}"),
        }
    }
}

#[cfg(feature = "prometheus")]
mod served {
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpListener, TcpStream};

    use super::*;

    fn get(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer
    }

    fn free_address() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    /// One test, since a process has one recorder.
    #[test]
    fn a_scrape_finds_the_calls_just_made() {
        let block_on = |future: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
            // A runtime that ends: the endpoint does not.
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
        };
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let in_use = taken.local_addr().unwrap();
        let address = free_address();
        block_on(Box::pin(async move {
            // An address in use is told of, with the variable that set it, and nothing is opened.
            let (_folder, builder) =
                configured("blobs = \"fs:/dev/null/x\"", &[("STORAGE_METRICS__LISTEN", &in_use.to_string())]);
            let error = builder.open().await.unwrap_err();
            let message = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Config, "{message}");
            for part in ["STORAGE_METRICS__LISTEN", "`metrics.listen`", &in_use.to_string(), "in use"] {
                assert!(message.contains(part), "no {part} in: {message}");
            }
            let toml = format!("blobs = \"memory:\"\n[metrics]\nenabled = true\nlisten = \"{address}\"");
            let (_folder, builder) = configured(&toml, &[]);
            let blobs = builder.open().await.unwrap().blobs().await.unwrap();
            blobs.put(&"a".parse().unwrap(), "12345").await.unwrap();
        }));
        let answer = get(address);
        let calls = r#"storage_calls_total{component="blobs",backend="memory",operation="blobs.put",outcome="ok"} 1"#;
        assert!(answer.contains(calls), "no {calls} in:\n{answer}");
        assert!(answer.contains(r#"storage_bytes_total{component="blobs",backend="memory",direction="written"} 5"#), "{answer}");
        assert!(answer.contains("storage_call_duration_seconds_bucket"), "{answer}");
        block_on(Box::pin(async move {
            // The same again is served there; another address can't be.
            let again = format!("blobs = \"memory:\"\n[metrics]\nlisten = \"{address}\"");
            let (_folder, builder) = configured(&again, &[]);
            let blobs = builder.open().await.unwrap().blobs().await.unwrap();
            blobs.put(&"b".parse().unwrap(), "678").await.unwrap();
            let other = again.replace(&address.to_string(), &free_address().to_string());
            let (_folder, builder) = configured(&other, &[]);
            let error = builder.open().await.unwrap_err();
            assert!(error.message().contains(&format!("on {address} already")), "{error}");
            // `plan` looks and does not serve; what is off is not served either.
            let off = other.replace("[metrics]", "[metrics]\nenabled = false");
            let (_folder, builder) = configured(&off, &[]);
            builder.open().await.unwrap();
            let (_folder, builder) = configured(&other, &[]);
            assert!(builder.plan().is_ok());
        }));
        assert!(get(address).contains(r#"direction="written"} 8"#));
    }
}
