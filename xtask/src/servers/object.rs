//! Services for blobs.

use super::{Launch, Place, Ready};
use crate::{Result, doing};

/// What tests sign with; see `crates/storage-object/tests/common`.
const KEY: &str = "storagetest";
const SECRET: &str = "storagetestsecret";

/// An S3 that checks signatures.
pub(super) fn seaweedfs(place: &Place) -> Result<Launch> {
    let identities = format!(
        r#"{{"identities":[{{"name":"test","credentials":[{{"accessKey":"{KEY}","secretKey":"{SECRET}"}}],"actions":["Admin","Read","Write","List","Tagging"]}}]}}"#
    );
    let config = place.folder.join("s3.json");
    doing(std::fs::write(&config, identities), || format!("cannot write {}", config.display()))?;
    let ports = [
        "master.port",
        "master.port.grpc",
        "volume.port",
        "volume.port.grpc",
        "filer.port",
        "filer.port.grpc",
        "s3.port",
        "s3.port.grpc",
    ];
    let ports = ports.iter().zip(&place.ports).map(|(name, port)| format!("-{name}={port}"));
    let rest = [
        "-ip=127.0.0.1".to_owned(),
        "-ip.bind=127.0.0.1".to_owned(),
        format!("-dir={}", place.folder.display()),
        "-filer".to_owned(),
        "-s3".to_owned(),
        format!("-s3.config={}", config.display()),
        "-s3.autoCreateBucket=false".to_owned(),
        "-iam=false".to_owned(),
        "-s3.port.iceberg=0".to_owned(),
        "-s3.port.lance=0".to_owned(),
        // In the server's own folder: absolute paths may be longer than the name of a socket.
        "-s3.localSocket=s3.sock".to_owned(),
        "-filer.localSocket=filer.sock".to_owned(),
        "-master.telemetry=false".to_owned(),
        "-master.volumeSizeLimitMB=64".to_owned(),
        "-volume.max=0".to_owned(),
        // Else they take fixed ports, of which a second server on the machine dies.
        "-s3.port.iceberg=0".to_owned(),
        "-s3.port.lance=0".to_owned(),
    ];
    let s3 = place.ports[6];
    let arguments = ["-logtostderr=true".to_owned(), "server".to_owned()].into_iter().chain(ports).chain(rest).collect();
    Ok(Launch { program: None, arguments, address: format!("http://127.0.0.1:{s3}"), ready: Ready::Http(s3) })
}

/// An S3 in memory, which does not check signatures.
pub(super) fn moto(place: &Place) -> Result<Launch> {
    let port = place.ports[0];
    let arguments = ["-H", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned).to_vec();
    Ok(Launch { program: None, arguments, address: format!("http://127.0.0.1:{port}"), ready: Ready::Http(port) })
}

/// Azure Blob Storage in memory.
pub(super) fn azurite(place: &Place) -> Result<Launch> {
    let port = place.ports[0];
    let arguments =
        ["--inMemoryPersistence", "--silent", "--disableTelemetry", "--blobHost", "127.0.0.1", "--blobPort", &port.to_string()];
    let arguments = arguments.map(str::to_owned).to_vec();
    Ok(Launch { program: None, arguments, address: format!("http://127.0.0.1:{port}"), ready: Ready::Http(port) })
}
