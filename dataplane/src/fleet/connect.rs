//! One stream to a manager: connection, TLS with the operator's own CA, token.
//!
//! Files are read for each connection, so that what replaces them counts from the next one on.

use std::fs::File;
use std::future::Future;
use std::io::{self, Read};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::rt::TokioIo;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use sluice_proto::fleet_wire::{self as wire, fleet_client::FleetClient};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tonic::codegen::http::uri::Scheme;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};
use tower_service::Service;

use super::limits::{CONNECT_TIMEOUT, FILE_BYTES_MAX, PING_AFTER, PING_TIMEOUT};
use crate::args::ManagerArgs;
use crate::outbound::with_causes;

/// Where the manager is, and how to be let in.
pub(super) struct Target {
    url: Uri,
    connector: Connector,
    token: Option<MetadataValue<Ascii>>,
}

impl Target {
    /// Reads certificates and token as they are now.
    pub(super) fn read(url: &Uri, args: &ManagerArgs) -> Result<Self, String> {
        let host = url.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let tls = if url.scheme() == Some(&Scheme::HTTPS) {
            let ca = args
                .ca
                .as_ref()
                .ok_or("https:// needs certificates to trust: give --manager-ca FILE")?;
            let name = ServerName::try_from(bare.to_owned())
                .map_err(|_| format!("{bare:?} is no name for a certificate"))?;
            Some((TlsConnector::from(trusting(ca)?), name))
        } else {
            None
        };
        let token = args.token.as_deref().map(read_token).transpose()?;
        Ok(Self {
            url: url.clone(),
            connector: Connector {
                host: bare.into(),
                port: url.port_u16().unwrap_or_default(),
                tls,
            },
            token,
        })
    }

    /// Opens the stream; the first of the reports has to be there already.
    pub(super) async fn attend(
        self,
        reports: mpsc::Receiver<wire::Report>,
    ) -> Result<Streaming<wire::Directive>, String> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.open(reports))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {CONNECT_TIMEOUT:?}")))
    }

    async fn open(
        self,
        reports: mpsc::Receiver<wire::Report>,
    ) -> Result<Streaming<wire::Directive>, String> {
        let authority = self.url.authority().map_or("", |place| place.as_str());
        // Encryption is the connector's affair.
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))
            .map_err(|error| with_causes(&error))?
            .origin(self.url)
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(PING_AFTER)
            .keep_alive_timeout(PING_TIMEOUT)
            .keep_alive_while_idle(true);
        let channel = endpoint
            .connect_with_connector(self.connector)
            .await
            .map_err(|error| with_causes(&error))?;
        let reports = futures_util::stream::unfold(reports, |mut reports| async {
            reports.recv().await.map(|report| (report, reports))
        });
        let mut request = Request::new(reports);
        if let Some(token) = self.token {
            request.metadata_mut().insert("authorization", token);
        }
        let answer = FleetClient::new(channel).attend(request).await;
        answer
            .map(tonic::Response::into_inner)
            .map_err(|status| describe(&status))
    }
}

/// A status on one line.
pub(super) fn describe(status: &tonic::Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

fn trusting(ca: &Path) -> Result<Arc<ClientConfig>, String> {
    let unreadable = |error: String| format!("{}: {error}", ca.display());
    let pem = read(ca).map_err(|error| unreadable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
        roots
            .add(certificate)
            .map_err(|error| unreadable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unreadable("holds no certificate".to_owned()));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn read_token(path: &Path) -> Result<MetadataValue<Ascii>, String> {
    let unreadable = |error: String| format!("{}: {error}", path.display());
    let bytes = read(path).map_err(|error| unreadable(error.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| unreadable("is no token".to_owned()))?;
    // What is wrong with a token is not told: the message would hold it.
    let mut token = MetadataValue::try_from(format!("Bearer {}", text.trim()))
        .map_err(|_| unreadable("is no token".to_owned()))?;
    token.set_sensitive(true);
    Ok(token)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(FILE_BYTES_MAX)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A byte stream to the manager: TCP or TLS.
trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Pipe for T {}

struct Connector {
    host: Arc<str>,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Box<dyn Pipe>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (host, port, tls) = (Arc::clone(&self.host), self.port, self.tls.clone());
        Box::pin(async move {
            let tcp = TcpStream::connect((&*host, port)).await?;
            tcp.set_nodelay(true)?;
            let pipe: Box<dyn Pipe> = match tls {
                Some((connector, name)) => Box::new(connector.connect(name, tcp).await?),
                None => Box::new(tcp),
            };
            Ok(TokioIo::new(pipe))
        })
    }
}
