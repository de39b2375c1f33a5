//! Certificates for a test's servers: an authority made for the occasion, a server's and a client's certificate.

use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

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

/// Made for the occasion.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// PEM.
    pub certificate: String,
}

impl Authority {
    pub fn generate() -> Result<Self> {
        let mut authority = named("Sluice test authority", &[])?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let certificate = authority.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(authority, key),
            certificate,
        })
    }

    /// A certificate for these names, and its key, both PEM.
    pub fn issue(&self, names: &[&str]) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let certificate = named(names[0], names)?.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
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

/// Each with a subject of its own: OpenSSL takes a certificate whose issuer has its name for self-signed.
fn named(common_name: &str, names: &[&str]) -> Result<CertificateParams> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut parameters = CertificateParams::new(names)?;
    let subject = &mut parameters.distinguished_name;
    subject.push(DnType::CommonName, common_name);
    Ok(parameters)
}
