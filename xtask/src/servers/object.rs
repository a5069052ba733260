//! Services for blobs.

use std::path::{Path, PathBuf};

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
    Ok(Launch { program: None, arguments, address: format!("http://127.0.0.1:{s3}"), ready: Ready::Http(s3), beside: None })
}

/// An S3 in memory, which does not check signatures. Started by a program of ours, so that it does one thing after the other.
pub(super) fn moto(place: &Place) -> Result<Launch> {
    // The Python that moto was installed for is beside it.
    let find = "beside=$(dirname \"$(command -v moto_server)\")/python3; [ -x \"$beside\" ] || beside=python3; exec \"$beside\" -c \"$@\"";
    let port = place.ports[0];
    let arguments =
        ["-c", find, "moto", include_str!("moto.py"), "-H", "127.0.0.1", "-p", &port.to_string()].map(str::to_owned).to_vec();
    Ok(Launch {
        program: Some("sh"),
        arguments,
        address: format!("http://127.0.0.1:{port}"),
        ready: Ready::Http(port),
        beside: None,
    })
}

/// Azure Blob Storage in memory.
pub(super) fn azurite(place: &Place) -> Result<Launch> {
    azurite_as(place, "blob", &["--inMemoryPersistence"])
}

/// Azure Storage Queue. In memory it holds each body apart, and stands still for minutes every minute while it removes those of a few thousand
/// deleted messages one by one; in files many share one.
pub(super) fn azurite_queue(place: &Place) -> Result<Launch> {
    azurite_as(place, "queue", &["--location", &place.folder.to_string_lossy()])
}

/// Azure Table Storage in memory.
pub(super) fn azurite_table(place: &Place) -> Result<Launch> {
    azurite_as(place, "table", &["--inMemoryPersistence"])
}

/// One of Azurite's servers, with `keeping` for where it keeps what it has.
fn azurite_as(place: &Place, service: &str, keeping: &[&str]) -> Result<Launch> {
    let port = place.ports[0];
    let patch = place.folder.join("azurite.js");
    doing(std::fs::write(&patch, include_str!("azurite.js")), || format!("cannot write {}", patch.display()))?;
    let mut arguments = vec![format!("NODE_OPTIONS=--require=\"{}\"", patch.display()), format!("azurite-{service}")];
    arguments.extend(["--silent", "--disableTelemetry"].map(str::to_owned));
    arguments.extend([format!("--{service}Host"), "127.0.0.1".to_owned(), format!("--{service}Port"), port.to_string()]);
    arguments.extend(keeping.iter().map(|argument| (*argument).to_owned()));
    let address = format!("http://127.0.0.1:{port}");
    Ok(Launch { program: Some("env"), arguments, address, ready: Ready::Http(port), beside: None })
}

/// A WebDAV server. `/private` wants the key and the secret.
pub(super) fn apache(place: &Place) -> Result<Launch> {
    let port = place.ports[0];
    let (folder, beside) = served_folder(place)?;
    let files = folder.join("files");
    doing(std::fs::create_dir_all(files.join("private")), || format!("cannot create {}", files.display()))?;
    for folder in [&folder, &files, &files.join("private")] {
        open_to_all(folder)?;
    }
    let write = |name: &str, text: String| {
        let file = folder.join(name);
        doing(std::fs::write(&file, text), || format!("cannot write {}", file.display()))
    };
    // {SHA} is no way to keep a password; the tests' is no secret.
    write("users", format!("{KEY}:{{SHA}}O//9OGcBkOhdz07tqKFht0AoX5U=\n"))?;
    write("apache.conf", apache_config(&folder))?;
    let config = folder.join("apache.conf").display().to_string();
    let listen = format!("Listen 127.0.0.1:{port}");
    let arguments = ["-DFOREGROUND", "-f", &config, "-c", &listen].map(str::to_owned).to_vec();
    Ok(Launch { program: None, arguments, address: format!("http://127.0.0.1:{port}"), ready: Ready::Http(port), beside })
}

/// Apache serves nothing as root: where it is started by root, it becomes another user, who may see no folder of root's.
fn served_folder(place: &Place) -> Result<(PathBuf, Option<PathBuf>)> {
    if !crate::provision::is_root() {
        return Ok((place.folder.clone(), None));
    }
    let folder = std::env::temp_dir().join(format!("storage-apache-{}-{}", std::process::id(), place.ports[0]));
    doing(std::fs::create_dir(&folder), || format!("cannot create {}", folder.display()))?;
    Ok((folder.clone(), Some(folder)))
}

fn open_to_all(folder: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        doing(std::fs::set_permissions(folder, mode), || format!("cannot open {} to others", folder.display()))?;
    }
    Ok(())
}

fn apache_config(folder: &Path) -> String {
    let modules = ["mpm_event", "authn_core", "authn_file", "authz_core", "authz_user", "auth_basic", "dav", "dav_fs"];
    let modules = modules.map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")).concat();
    format!(
        r#"{modules}ServerName 127.0.0.1
ServerRoot "{folder}"
DefaultRuntimeDir "{folder}"
PidFile apache.pid
ErrorLog error.log
User nobody
Group nogroup
DocumentRoot "{folder}/files"
DavLockDB "{folder}/locks"
LimitRequestBody 0
<Directory "{folder}/files">
    Dav On
    Require all granted
</Directory>
<Directory "{folder}/files/private">
    AuthType Basic
    AuthName tests
    AuthUserFile "{folder}/users"
    Require valid-user
</Directory>
"#,
        folder = folder.display()
    )
}
