//! TLS by rustls, with the cryptography that the toolkit uses everywhere.

use mysql_async::SslOpts;
use storage_core::Result;

use crate::config::TlsMode;

#[cfg(not(feature = "tls"))]
pub(crate) fn options(mode: TlsMode, _: Option<&str>) -> Result<Option<SslOpts>> {
    if mode == TlsMode::Disable {
        return Ok(None);
    }
    Err(storage_core::Error::config(
        "TLS to MySQL is not compiled in: build with the cargo feature `mysql-tls` (`tls` of storage-mysql)",
    ))
}

#[cfg(feature = "tls")]
pub(crate) fn options(mode: TlsMode, root_certificates: Option<&str>) -> Result<Option<SslOpts>> {
    use storage_core::Error;
    // The driver takes the process's, and there has to be one where more than one is compiled in. What somebody has chosen stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = match (mode, root_certificates) {
        (TlsMode::Disable, _) => return Ok(None),
        // Encrypted, with whoever answers.
        (TlsMode::Require, _) => {
            SslOpts::default().with_danger_accept_invalid_certs(true).with_danger_skip_domain_validation(true)
        }
        (TlsMode::VerifyFull, Some(file)) => {
            let pem = std::fs::read(file).map_err(|e| Error::config(format!("sslrootcert `{file}`: {e}")))?;
            if !pem.windows(27).any(|part| part == b"-----BEGIN CERTIFICATE-----") {
                return Err(Error::config(format!("sslrootcert `{file}`: no certificate in it")));
            }
            SslOpts::default().with_disable_built_in_roots(true).with_root_certs(vec![pem.into()])
        }
        (TlsMode::VerifyFull, None) => {
            let system = rustls_native_certs::load_native_certs().certs;
            let certificates = system.into_iter().map(|certificate| certificate.to_vec().into());
            SslOpts::default().with_root_certs(certificates.collect())
        }
    };
    Ok(Some(options))
}
