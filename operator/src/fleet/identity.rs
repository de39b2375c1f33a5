//! What the manager is known by, kept in a Secret that all operators share; and the cluster's keys, by which data planes are known.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use http::Request;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, PostParams};
use kube::{Client, Error};
use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::tls::{self, Identity};
use super::tokens::{self, Bearer, Key, Keys, Refused};
use crate::monitor::leader::PROTOCOL;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_secs(5);
/// Keys are read again for a token that none of them has signed, but no more often than this.
const KEYS_APART: Duration = Duration::from_secs(5);
/// Where the Secret keeps it.
const DOCUMENT: &str = "identity.json";
const TRUSTED: &str = "ca.crt";

/// Name of the Secret, of the Service, and with it of the certificate.
pub fn service(lease: &str) -> String {
    format!("{lease}-manager")
}

/// Where the Service is found in the cluster.
pub fn host(namespace: &str, lease: &str) -> String {
    format!("{}.{namespace}.svc", service(lease))
}

fn secret_name(lease: &str) -> String {
    format!("{lease}-manager-tls")
}

/// What the server shows, and what data planes are to trust.
pub struct Shown {
    pub server: watch::Sender<Option<Arc<ServerConfig>>>,
    pub trusted: watch::Sender<Arc<str>>,
}

/// Reads the Secret, for as long as the process lives; makes and renews it while this operator leads.
pub async fn keep(
    client: Client,
    namespace: &str,
    lease: &str,
    mut leading: watch::Receiver<bool>,
    shown: Shown,
) {
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let name = secret_name(lease);
    let service = service(lease);
    let names = [
        host(namespace, lease),
        format!("{service}.{namespace}"),
        service,
    ];
    let mut last: Option<Identity> = None;
    loop {
        let leads = *leading.borrow_and_update();
        let looked = timeout(REQUEST_TIMEOUT, look(&secrets, &name, &names, leads)).await;
        let looked =
            looked.unwrap_or_else(|_| Err(anyhow!("no answer within {REQUEST_TIMEOUT:?}")));
        let pause = match looked {
            Ok(Some(identity)) => {
                if last.as_ref() != Some(&identity) {
                    match show(&identity, &shown) {
                        Ok(()) => info!("the manager's certificate is in use"),
                        Err(failure) => warn!(
                            failure = format!("{failure:#}"),
                            "the manager's certificate cannot be used"
                        ),
                    }
                    last = Some(identity);
                }
                tls::LOOKED_AT
            }
            // The leader makes it in a moment.
            Ok(None) => RETRY,
            Err(failure) => {
                warn!(
                    failure = format!("{failure:#}"),
                    secret = name,
                    "the manager's certificate is not kept"
                );
                RETRY
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            changed = leading.changed() => if changed.is_err() { return },
        }
    }
}

async fn look(
    secrets: &Api<Secret>,
    name: &str,
    names: &[String],
    leads: bool,
) -> anyhow::Result<Option<Identity>> {
    let found = secrets.get_opt(name).await.context("it cannot be read")?;
    let known = found.as_ref().and_then(identity_of);
    if !leads {
        return Ok(known);
    }
    let renewed =
        Identity::renewed(known.clone(), names, unix_s()).context("no certificate can be made")?;
    if known.as_ref() == Some(&renewed) {
        return Ok(known);
    }
    let how = PostParams::default();
    let written = match found {
        None => {
            secrets
                .create(&how, &secret(ObjectMeta::default(), name, &renewed))
                .await
        }
        // By its version: whoever was faster has made one that is as good.
        Some(found) => {
            secrets
                .replace(name, &how, &secret(found.metadata, name, &renewed))
                .await
        }
    };
    match written {
        Ok(_) => Ok(Some(renewed)),
        Err(Error::Api(status)) if status.code == 409 => Ok(None),
        Err(failure) => Err(failure).context("it cannot be written"),
    }
}

fn secret(metadata: ObjectMeta, name: &str, identity: &Identity) -> Secret {
    let document = serde_json::to_vec(identity).unwrap_or_default();
    let data = [
        (DOCUMENT, document),
        (TRUSTED, identity.trusted().into_bytes()),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..metadata
        },
        data: Some(
            data.map(|(key, bytes)| (key.to_owned(), ByteString(bytes)))
                .into(),
        ),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    }
}

fn identity_of(secret: &Secret) -> Option<Identity> {
    let document = secret.data.as_ref()?.get(DOCUMENT)?;
    serde_json::from_slice(&document.0).ok()
}

fn show(identity: &Identity, shown: &Shown) -> anyhow::Result<()> {
    let (certificate, key) = identity.server();
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
    let chain = chain
        .collect::<Result<Vec<_>, _>>()
        .map_err(|wrong| anyhow!("{wrong:?}"))?;
    let key =
        PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|wrong| anyhow!("{wrong:?}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider);
    let config = config
        .with_safe_default_protocol_versions()?
        .with_no_client_auth();
    let mut config = config.with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), PROTOCOL.to_vec()];
    shown.server.send_replace(Some(Arc::new(config)));
    shown.trusted.send_replace(identity.trusted().into());
    Ok(())
}

/// The cluster's keys, read when they are needed.
pub struct Cluster {
    client: Client,
    read: Mutex<Read>,
}

#[derive(Default)]
struct Read {
    keys: Keys,
    at: Option<Instant>,
}

impl Cluster {
    pub fn new(client: Client) -> Self {
        Self {
            client,
            read: Mutex::default(),
        }
    }

    pub(super) async fn bearer(&self, token: &str) -> Result<Bearer, Refused> {
        let mut read = self.read.lock().await;
        let verified = tokens::verify(token, &read.keys, unix_s());
        let may_read = read.at.is_none_or(|at| at.elapsed() >= KEYS_APART);
        if !matches!(verified, Err(Refused::UnknownKey)) || !may_read {
            return verified;
        }
        read.at = Some(Instant::now());
        match timeout(REQUEST_TIMEOUT, self.keys()).await {
            Ok(Ok(keys)) => read.keys = keys,
            Ok(Err(failure)) => warn!(
                failure = format!("{failure:#}"),
                "the cluster's keys cannot be read"
            ),
            Err(_) => warn!("the cluster's keys cannot be read in time"),
        }
        tokens::verify(token, &read.keys, unix_s())
    }

    async fn keys(&self) -> anyhow::Result<Keys> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
        }
        #[derive(Deserialize)]
        struct Set {
            // One by one: a kind of key that is not known must not hide the others.
            keys: Vec<serde_json::Value>,
        }
        let ask = async |path: &str| {
            let request = Request::get(path).body(Vec::new())?;
            anyhow::Ok(self.client.request_text(request).await?)
        };
        let discovery: Discovery =
            serde_json::from_str(&ask("/.well-known/openid-configuration").await?)?;
        let set: Set = serde_json::from_str(&ask("/openid/v1/jwks").await?)?;
        let keys = set.keys.into_iter();
        Ok(Keys {
            issuer: discovery.issuer,
            keys: keys
                .filter_map(|key| serde_json::from_value::<Key>(key).ok())
                .collect(),
        })
    }
}

fn unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
