//! TLS before a server that speaks none: ends it and passes bytes on.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// A running front; ends when dropped.
pub struct TlsFront {
    pub address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    task: JoinHandle<()>,
}

impl TlsFront {
    /// Listens on a port of its own. `pair`: certificate chain and key, PEM.
    pub async fn start(server: SocketAddr, pair: &(String, String)) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let config = Arc::new(Mutex::new(config(pair)?));
        let shown = Arc::clone(&config);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let config = shown.lock().unwrap_or_else(PoisonError::into_inner);
                let acceptor = TlsAcceptor::from(Arc::clone(&config));
                drop(config);
                tokio::spawn(async move {
                    // A client that does not trust us ends the handshake; that is its right.
                    let Ok(mut client) = acceptor.accept(client).await else {
                        return;
                    };
                    if let Ok(mut server) = TcpStream::connect(server).await {
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        Ok(Self {
            address,
            config,
            task,
        })
    }

    /// Shows another certificate from the next connection on.
    pub fn show(&self, pair: &(String, String)) -> Result<()> {
        let config = config(pair)?;
        *self.config.lock().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn config((chain, key): &(String, String)) -> Result<Arc<ServerConfig>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("certificate chain")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("key")?;
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}
