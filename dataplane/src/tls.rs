//! Server-side TLS: certificates to what the accept path needs.
//!
//! Each HTTPS listener holds one [`Certificates`]. The accept path takes the current configuration for each new
//! connection; a reload replaces it, and established connections go on with what they began with. Only `ring`,
//! TLS 1.2 and 1.3, no client certificates.
//!
//! What an idle connection costs is `rustls`' own state and its read buffer (4 KiB); write buffers are empty
//! between writes whatever the fragment size, so that stays at its default. Sessions are resumed by encrypted
//! tickets, which the server does not store: reconnects after a drain come in the thousands.

use std::fmt;
use std::sync::Arc;

use parking_lot::RwLock;
use rustls::crypto::ring;
use rustls::server::NoServerSessionStorage;
use rustls::{InconsistentKeys, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sluice_crds::config::TlsMaterial;
use thiserror::Error;

#[cfg(test)]
pub(crate) mod tests;

/// One reconnect uses one ticket, and only new tickets come with each connection.
const TICKETS: usize = 1;

/// Longest certificate chain; the handshake sends it to every client.
const CHAIN_MAX: usize = 16;

/// Why a certificate and its key cannot be served. Holds nothing of the key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlsError {
    #[error("certificate: {0}")]
    Certificate(String),
    #[error("private key: {0}")]
    PrivateKey(String),
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    #[error("tls: {0}")]
    Setup(String),
}

/// The configuration that new connections of one listener get.
pub struct Certificates {
    current: RwLock<Arc<ServerConfig>>,
}

impl Certificates {
    pub fn new(material: &TlsMaterial) -> Result<Self, TlsError> {
        Ok(Self {
            current: RwLock::new(server_config(material)?),
        })
    }

    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read())
    }

    /// For connections from now on. On an error the old one stays.
    pub fn replace(&self, material: &TlsMaterial) -> Result<(), TlsError> {
        let next = server_config(material)?;
        *self.current.write() = next;
        Ok(())
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Certificates")
    }
}

pub fn server_config(material: &TlsMaterial) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = certificate_chain(material.certificate.expose())?;
    let key = PrivateKeyDer::from_pem_slice(material.private_key.expose())
        .map_err(|error| TlsError::PrivateKey(pem_error(&error)))?;
    let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
    let provider = ring::default_provider();
    // Checked apart from the certificate, to be able to say which of the two is at fault.
    provider
        .key_provider
        .load_private_key(key.clone_key())
        .map_err(|error| TlsError::PrivateKey(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .map_err(setup)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| {
            let is_mismatch =
                error == rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch);
            if is_mismatch {
                TlsError::Mismatch
            } else {
                TlsError::Certificate(error.to_string())
            }
        })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = ring::Ticketer::new().map_err(setup)?;
    config.send_tls13_tickets = TICKETS;
    Ok(Arc::new(config))
}

fn certificate_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .take(CHAIN_MAX + 1)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TlsError::Certificate(pem_error(&error)))?;
    match chain.len() {
        0 => Err(TlsError::Certificate(
            "no PEM section \"CERTIFICATE\"".to_owned(),
        )),
        1..=CHAIN_MAX => Ok(chain),
        _ => Err(TlsError::Certificate(format!(
            "chain of more than {CHAIN_MAX}"
        ))),
    }
}

/// Without the text at fault, which may be a line of the key.
fn pem_error(error: &rustls_pki_types::pem::Error) -> String {
    let is_missing = matches!(error, rustls_pki_types::pem::Error::NoItemsFound);
    if is_missing {
        "no PEM section with a key"
    } else {
        "not PEM"
    }
    .to_owned()
}
