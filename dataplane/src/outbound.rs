//! Reaching servers that are not ours: connections, encrypted or not, and what went wrong with them.

use std::error::Error;
use std::sync::Arc;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::crypto::ring;

/// Connects with HTTP/1.1; trusts the certificates of the system, which are read only when they are needed.
pub fn connector(
    encrypted: bool,
    mut http: HttpConnector,
) -> Result<HttpsConnector<HttpConnector>, String> {
    http.enforce_http(false);
    let builder = if encrypted {
        HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(ring::default_provider())
            .map_err(|error| format!("certificates of the system: {error}"))?
    } else {
        // Nobody to trust, because nothing is encrypted.
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        HttpsConnectorBuilder::new().with_tls_config(tls)
    };
    Ok(builder.https_or_http().enable_http1().wrap_connector(http))
}

/// An error with all that caused it, on one line.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
