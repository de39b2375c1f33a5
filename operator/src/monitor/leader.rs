//! Asks the operator that leads, at the port where data planes attend it: by TLS, as they do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName};
use http::{Request, StatusCode, request};
use http_body_util::Full;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use sluice_manager::monitor::api::{Answer, Refusal};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::debug;

use crate::leader::Leadership;
use crate::web;

/// What leads the monitor's questions aside from the managers' on that port.
pub const PROTOCOL: &[u8] = b"http/1.1";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// More than the leader itself waits for what it asks.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What it needs to know of a question.
const PASSED_ON: [HeaderName; 2] = [AUTHORIZATION, CONTENT_TYPE];

pub struct Leader {
    pub leadership: Leadership,
    /// The certificates of operators.
    pub trusted: watch::Receiver<Arc<str>>,
    /// What its certificate says.
    pub name: String,
}

impl Leader {
    pub(super) async fn ask(&self, head: &request::Parts, body: Bytes) -> Result<Answer, Refusal> {
        let address = self.leadership.leader().ok_or_else(nobody)?;
        let asked = self.exchange(&address, head, body).await;
        asked.map_err(|failure| {
            let failure = format!("{failure:#}");
            debug!(failure, address, "the leader was not asked");
            nobody()
        })
    }

    async fn exchange(
        &self,
        address: &str,
        head: &request::Parts,
        body: Bytes,
    ) -> anyhow::Result<Answer> {
        let config = client(&self.trusted.borrow().clone())?;
        let name = ServerName::try_from(self.name.clone()).context("name")?;
        let connected = timeout(CONNECT_TIMEOUT, async {
            let stream = TcpStream::connect(address).await?;
            TlsConnector::from(Arc::new(config))
                .connect(name, stream)
                .await
        });
        let stream = connected.await.context("no connection in time")??;
        let mut request = Request::builder().method(&head.method).uri(&head.uri);
        request = request.header(HOST, &self.name);
        for passed in PASSED_ON {
            if let Some(value) = head.headers.get(&passed) {
                request = request.header(passed, value);
            }
        }
        let request = request.body(Full::new(body))?;
        let asked = web::ask(stream, request, ANSWER_BYTES_MAX);
        timeout(ANSWER_TIMEOUT, asked)
            .await
            .context("no answer in time")?
    }
}

fn client(trusted: &str) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
        roots.add(certificate.map_err(|wrong| anyhow!("{wrong:?}"))?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider);
    let config = config.with_safe_default_protocol_versions()?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(config)
}

/// What is said while no operator leads.
pub(super) fn nobody() -> Refusal {
    let problem = "no operator leads at the moment, or it does not answer: try again";
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, problem)
}
