//! Reads a key set document from where the configuration points: a file or a web server.
//!
//! One call is one attempt, bounded in size and time by the constants below; when to try, and what becomes of
//! the result, is up to `source`. Redirects are not followed: the configured address is the trusted one.
//! Error texts are for logs and hold no addresses, which can carry credentials.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::io::AsyncReadExt;

use crate::outbound::{self, with_causes};

/// Largest key set document; published ones have a few KiB.
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// For one attempt as a whole: a client may be waiting for it.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a document comes from.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Location {
    File(PathBuf),
    Web(http::Uri),
}

impl Location {
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("file://") {
            let path = path.strip_prefix("localhost").unwrap_or(path);
            let is_absolute = path.starts_with('/');
            return is_absolute
                .then(|| Self::File(path.into()))
                .ok_or_else(|| "not an absolute path".to_owned());
        }
        let uri: http::Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
        match (uri.scheme_str(), uri.host()) {
            (Some("http" | "https"), Some(_)) => Ok(Self::Web(uri)),
            _ => Err("not an http://, https:// or file:// URL".to_owned()),
        }
    }
}

/// Fetches from one location.
pub(super) struct Fetcher {
    location: Location,
    /// Made at the first attempt: it reads the certificates of the system.
    client: Option<WebClient>,
}

type WebClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

impl Fetcher {
    pub(super) fn new(location: Location) -> Self {
        Self {
            location,
            client: None,
        }
    }

    pub(super) async fn fetch(&mut self) -> Result<Bytes, String> {
        tokio::time::timeout(ATTEMPT_TIMEOUT, self.attempt())
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", ATTEMPT_TIMEOUT.as_secs())))
    }

    async fn attempt(&mut self) -> Result<Bytes, String> {
        let uri = match &self.location {
            Location::File(path) => return read_file(path).await,
            Location::Web(uri) => uri.clone(),
        };
        let client = match &mut self.client {
            Some(client) => client,
            none => none.insert(web_client(uri.scheme_str() == Some("https"))?),
        };
        let request = http::Request::get(uri)
            .header(
                http::header::ACCEPT,
                "application/jwk-set+json, application/json",
            )
            .header(
                http::header::USER_AGENT,
                concat!("sluice/", env!("CARGO_PKG_VERSION")),
            )
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let response = client
            .request(request)
            .await
            .map_err(|error| with_causes(&error))?;
        if response.status() != http::StatusCode::OK {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let body = Limited::new(response.into_body(), DOCUMENT_BYTES_MAX)
            .collect()
            .await;
        body.map(|body| body.to_bytes())
            .map_err(|error| with_causes(error.as_ref()))
    }
}

async fn read_file(path: &std::path::Path) -> Result<Bytes, String> {
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| error.to_string())?;
    let mut document = Vec::new();
    let limit = DOCUMENT_BYTES_MAX as u64 + 1;
    file.take(limit)
        .read_to_end(&mut document)
        .await
        .map_err(|error| error.to_string())?;
    if document.len() > DOCUMENT_BYTES_MAX {
        return Err(format!("more than {DOCUMENT_BYTES_MAX} bytes"));
    }
    Ok(document.into())
}

fn web_client(encrypted: bool) -> Result<WebClient, String> {
    let connector = outbound::connector(encrypted, HttpConnector::new())?;
    // Attempts are far apart, so that a kept connection would mostly be a dead one.
    Ok(Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector))
}
