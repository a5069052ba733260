//! [`authority`]: certificates for servers that speak TLS.

use std::path::Path;
use std::process::Command;

/// Makes an authority `<name>.pem` in `folder`, and what it signs for 127.0.0.1 and `localhost`: `<name>-own.pem` and `<name>-own.key`, valid for two days.
///
/// # Errors
/// Says that `openssl` is missing: a reason to [`skip`](crate::skip).
///
/// # Panics
/// Where `openssl` is there and does not make them.
pub fn authority(folder: &Path, name: &str) -> Result<(), String> {
    const NEW: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(folder, &format!("req -x509 {NEW} -keyout {name}.key -out {name}.pem -days 2 -subj /CN={name}"))?;
    openssl(folder, &format!("req {NEW} -keyout {name}-own.key -out {name}-own.csr -subj /CN=own"))?;
    let names = format!("{name}-names");
    std::fs::write(folder.join(&names), "subjectAltName=IP:127.0.0.1,DNS:localhost").expect("a file");
    let out = format!("-CAcreateserial -out {name}-own.pem -days 2 -extfile {names}");
    openssl(folder, &format!("x509 -req -in {name}-own.csr -CA {name}.pem -CAkey {name}.key {out}"))
}

fn openssl(folder: &Path, arguments: &str) -> Result<(), String> {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let output = output.map_err(|e| format!("no openssl to make certificates ({e}): `cargo xtask test --all` installs it"))?;
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
