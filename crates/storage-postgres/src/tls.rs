//! TLS by rustls, with the cryptography that the toolkit uses everywhere.

#[cfg(not(feature = "tls"))]
pub(crate) use plain::{Tls, make};
#[cfg(feature = "tls")]
pub(crate) use rustls_based::{Tls, make};

#[cfg(not(feature = "tls"))]
mod plain {
    use storage_core::Result;

    use crate::config::Settings;

    pub(crate) type Tls = tokio_postgres::NoTls;

    pub(crate) fn make(_settings: &Settings) -> Result<Tls> {
        Ok(tokio_postgres::NoTls)
    }
}

#[cfg(feature = "tls")]
mod rustls_based {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
    use rustls::pki_types::pem::PemObject as _;
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
    use storage_core::{Error, Result};

    use crate::config::{Settings, TlsMode};

    pub(crate) type Tls = tokio_postgres_rustls::MakeRustlsConnect;

    pub(crate) fn make(settings: &Settings) -> Result<Tls> {
        // Named here, so that no other crate's choice for the process matters.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::internal(format!("TLS can't be set up: {e}")).with_source(e))?;
        let config = if settings.tls == TlsMode::VerifyFull {
            builder.with_root_certificates(roots(settings.root_certificates.as_deref())?).with_no_client_auth()
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked(provider))).with_no_client_auth()
        };
        Ok(Tls::new(config))
    }

    fn roots(file: Option<&str>) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        let Some(file) = file else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            return Ok(roots);
        };
        let bad = |what: String| Error::config(format!("sslrootcert `{file}`: {what}"));
        let certificates = CertificateDer::pem_file_iter(file).map_err(|e| bad(e.to_string()))?;
        for certificate in certificates {
            roots.add(certificate.map_err(|e| bad(e.to_string()))?).map_err(|e| bad(e.to_string()))?;
        }
        if roots.is_empty() { Err(bad("no certificate in it".into())) } else { Ok(roots) }
    }

    /// What `sslmode=prefer` and `require` mean in libpq: encrypted, with whoever answers.
    #[derive(Debug)]
    struct Unchecked(Arc<CryptoProvider>);

    impl ServerCertVerifier for Unchecked {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}
