//! SeaweedFS, the S3 server of the comparisons: one process from PyPI on private ports, its data on the same disk as everything.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use reqwest::StatusCode;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::context::Context;

/// The only user.
pub const USER: &str = "bench";
/// Its password. The server listens on 127.0.0.1 and is gone with the run.
pub const PASSWORD: &str = "bench-password";
/// Signatures want one; the server does not.
pub const REGION: &str = "us-east-1";

/// How long the server may take to start.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at whether it is up.
const LOOK: Duration = Duration::from_millis(100);
/// A volume is not cut off below 1 GiB, and there are enough of them whatever room the disk has.
const VOLUMES: [&str; 2] = ["-master.volumeSizeLimitMB=1024", "-volume.max=200"];

/// The server, killed when dropped: asked to end, it takes half a minute.
pub struct Seaweed {
    process: Child,
    _data: TempDir,
    client: reqwest::Client,
    filer: u16,
    s3: u16,
}

impl Seaweed {
    /// Starts the server and waits until it takes buckets.
    ///
    /// # Errors
    ///
    /// When `weed` is not below `tools`, or does not come up.
    pub async fn start(context: &Context, tools: &Path) -> Result<Self> {
        let data = context.folder()?;
        let users = serde_json::json!({"identities": [{
            "name": USER,
            "credentials": [{"accessKey": USER, "secretKey": PASSWORD}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }]});
        let config = data.path().join("users.json");
        std::fs::write(&config, users.to_string())?;
        let volumes = data.path().join("volumes");
        std::fs::create_dir(&volumes)?;
        let ports = free_ports()?;
        let log = std::fs::File::create(data.path().join("log"))?;
        let mut command = Command::new(tools.join("weed"));
        command.args(["-logtostderr=true", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-master.telemetry=false"]);
        command.args(VOLUMES);
        for (part, pair) in ["master", "volume", "filer", "s3"].into_iter().zip(ports) {
            command.arg(format!("-{part}.port={}", pair[0])).arg(format!("-{part}.port.grpc={}", pair[1]));
        }
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0"]);
        command.arg(format!("-s3.config={}", config.display())).arg(format!("-dir={}", volumes.display()));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        let process = command.spawn().context("starting SeaweedFS")?;
        let client = reqwest::Client::builder().no_proxy().build()?;
        let mut server = Self { process, _data: data, client, filer: ports[2][0], s3: ports[3][0] };
        server.wait().await?;
        Ok(server)
    }

    /// Where its S3 interface is.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.s3)
    }

    async fn wait(&mut self) -> Result<()> {
        let started = Instant::now();
        loop {
            let healthy = self.client.get(format!("{}/healthz", self.endpoint())).send().await;
            if healthy.is_ok_and(|answer| answer.status().is_success()) && self.create_bucket("ready").await.is_ok() {
                return self.remove_bucket("ready").await;
            }
            if let Some(status) = self.process.try_wait()? {
                bail!("SeaweedFS ended at its start: {status}");
            }
            ensure!(started.elapsed() < START_LIMIT, "SeaweedFS was not up after {START_LIMIT:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends it, and then removes its data.
    pub async fn stop(mut self) -> Result<()> {
        self.process.kill().await.context("ending SeaweedFS")
    }

    /// Makes an empty bucket. Its volumes are made with the first file: with one of ours, so that nobody's transfer waits for them.
    pub async fn create_bucket(&self, name: &str) -> Result<()> {
        let bucket = format!("http://127.0.0.1:{}/buckets/{name}/", self.filer);
        let first = format!("{bucket}first");
        let requests = [self.client.post(&bucket), self.client.put(&first).body("first"), self.client.delete(&first)];
        for request in requests {
            let status = request.send().await?.status();
            ensure!(status.is_success(), "SeaweedFS made no bucket {name}: {status}");
        }
        Ok(())
    }

    /// Removes a bucket and all that is in it: its volumes, that is, so that the disk is free at once.
    pub async fn remove_bucket(&self, name: &str) -> Result<()> {
        let address = format!("http://127.0.0.1:{}/buckets/{name}?recursive=true", self.filer);
        let status = self.client.delete(address).send().await?.status();
        ensure!(status.is_success() || status == StatusCode::NOT_FOUND, "SeaweedFS did not remove bucket {name}: {status}");
        Ok(())
    }
}

/// Four pairs of ports, for HTTP and gRPC, that nobody listens on at the moment.
fn free_ports() -> Result<[[u16; 2]; 4]> {
    let listeners = (0..8).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<std::io::Result<Vec<_>>>()?;
    let port = |index: usize| listeners[index].local_addr().map(|address| address.port());
    let mut ports = [[0; 2]; 4];
    for (index, pair) in ports.iter_mut().enumerate() {
        *pair = [port(2 * index)?, port(2 * index + 1)?];
    }
    Ok(ports)
}
