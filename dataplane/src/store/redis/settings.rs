//! How to reach Redis, made from what the user said.

use std::sync::Arc;

use anyhow::Context;
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sluice_crds::config::{Redis, RedisTls, Secret};

use super::topology::Address;

/// Everything a connection needs but its server.
#[derive(Debug, Clone)]
pub struct Settings {
    pub seeds: Vec<Address>,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub tls: Option<Tls>,
    /// Names the gateway among those that use the same Redis.
    pub gateway: String,
}

#[derive(Debug, Clone)]
pub struct Tls {
    pub client: Arc<ClientConfig>,
    /// What certificates must name, when that is not the address.
    pub server_name: Option<String>,
}

impl Settings {
    pub fn new(redis: &Redis, gateway: String) -> anyhow::Result<Self> {
        let seeds = redis.seeds.iter();
        Ok(Self {
            seeds: seeds
                .map(|seed| Address::new(&seed.host, seed.port))
                .collect(),
            username: redis.username.clone(),
            password: redis.password.clone(),
            tls: redis
                .tls
                .as_ref()
                .map(tls)
                .transpose()
                .context("redis TLS")?,
            gateway,
        })
    }
}

fn tls(settings: &RedisTls) -> anyhow::Result<Tls> {
    let mut roots = rustls::RootCertStore::empty();
    match &settings.ca {
        Some(ca) => {
            for certificate in CertificateDer::pem_slice_iter(ca.expose()) {
                roots.add(certificate.context("ca")?).context("ca")?;
            }
        }
        None => {
            let found = rustls_native_certs::load_native_certs();
            roots.add_parsable_certificates(found.certs);
        }
    }
    anyhow::ensure!(!roots.is_empty(), "no authority to trust");
    let builder =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
    let client = match &settings.client {
        None => builder.with_no_client_auth(),
        Some(material) => {
            let chain = CertificateDer::pem_slice_iter(material.certificate.expose());
            let chain = chain
                .collect::<Result<_, _>>()
                .context("client certificate")?;
            let key = PrivateKeyDer::from_pem_slice(material.private_key.expose());
            builder.with_client_auth_cert(chain, key.context("client key")?)?
        }
    };
    Ok(Tls {
        client: Arc::new(client),
        server_name: settings.server_name.clone(),
    })
}
