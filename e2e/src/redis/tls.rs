//! What servers that speak TLS show, and what their clients do.

use std::sync::Arc;

use anyhow::Result;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::tls::Authority;

/// PEM texts. Servers answer to `127.0.0.1`, `localhost` and `redis.test`.
#[derive(Debug, Clone)]
pub struct Tls {
    pub ca: String,
    pub server_certificate: String,
    pub server_key: String,
    pub client_certificate: String,
    pub client_key: String,
    /// Refuses clients without a certificate of the authority.
    pub client_required: bool,
}

impl Tls {
    pub fn generate(client_required: bool) -> Result<Self> {
        let authority = Authority::generate()?;
        let names = ["127.0.0.1", "localhost", "redis.test"];
        let (server_certificate, server_key) = authority.issue(&names)?;
        let (client_certificate, client_key) = authority.issue(&["client.test"])?;
        Ok(Self {
            ca: authority.certificate,
            server_certificate,
            server_key,
            client_certificate,
            client_key,
            client_required,
        })
    }

    pub(super) fn connector(&self) -> Result<TlsConnector> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(
                    self.client_certificate.as_bytes(),
                )?],
                PrivateKeyDer::from_pem_slice(self.client_key.as_bytes())?,
            )?;
        Ok(TlsConnector::from(Arc::new(config)))
    }
}
