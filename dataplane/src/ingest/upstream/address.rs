//! Where an upstream is, and what of its URL goes into each request.

use std::fmt;

use http::{HeaderValue, Uri};
use thiserror::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AddressError {
    #[error("not a URL")]
    NotAUrl,
    #[error("not an http:// or https:// URL with a host")]
    Incomplete,
    #[error("credentials in a URL are not supported")]
    Credentials,
    #[error("a URL with a query")]
    Query,
}

#[derive(Clone, PartialEq)]
pub struct Address {
    uri: Uri,
    host: HeaderValue,
    /// Without trailing `/`.
    prefix: String,
    encrypted: bool,
}

impl Address {
    pub fn parse(url: &str) -> Result<Self, AddressError> {
        let uri: Uri = url.parse().map_err(|_| AddressError::NotAUrl)?;
        let encrypted = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(AddressError::Incomplete),
        };
        let authority = uri.authority().ok_or(AddressError::Incomplete)?;
        if authority.as_str().contains('@') {
            return Err(AddressError::Credentials);
        }
        if uri.query().is_some() {
            return Err(AddressError::Query);
        }
        let default_port = if encrypted { 443 } else { 80 };
        let host = match authority.port_u16() {
            Some(port) if port != default_port => authority.as_str(),
            _ => authority.host(),
        };
        let host = HeaderValue::from_str(host).map_err(|_| AddressError::NotAUrl)?;
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self {
            uri,
            host,
            prefix,
            encrypted,
        })
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn encrypted(&self) -> bool {
        self.encrypted
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({:?}{})", self.host, self.prefix)
    }
}
