//! The configuration of ingest, made ready for looking applications up by key. Rebuilt when the configuration changes.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use prometheus_client::metrics::counter::Counter;
use ring::digest::{SHA256, digest};
use sluice_crds::config::{Application, Ingest, RequestPart, UnknownKeys};

use super::decision::Rejected;
use crate::ingest::entry::EVERY_KEY;
use crate::store::queue::{Lane, OrderingKey};

/// Longer keys are replaced by a digest: they are kept in memory for as long as an entry waits.
const KEY_BYTES_MAX: usize = 256;

/// An application as accepting sees it; also the one that stands for unknown keys.
pub struct Tenant {
    /// `None`: unknown keys.
    pub application: Option<Arc<Application>>,
    pub lane: Lane,
    pub accepted: Counter,
}

impl fmt::Debug for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tenant({:?})", self.lane.application)
    }
}

impl PartialEq for Tenant {
    fn eq(&self, other: &Self) -> bool {
        self.lane == other.lane
    }
}

impl Eq for Tenant {}

pub struct Table {
    pub ingest: Arc<Ingest>,
    tenants: Vec<Tenant>,
    /// Indices of `tenants`.
    by_key: HashMap<Box<[u8]>, usize, RandomState>,
    unknown: Tenant,
    /// Names of the parameters and of the headers that every request needs.
    required_parameters: Vec<String>,
    required_headers: Vec<String>,
}

impl Table {
    /// `accepted`: the counter of an application, by name.
    pub fn new(ingest: Arc<Ingest>, accepted: impl Fn(&str) -> Counter) -> Self {
        let tenant = |application: Option<&Arc<Application>>| {
            let name = application.map_or("", |application| &application.name);
            Tenant {
                application: application.cloned(),
                lane: Lane {
                    partition: 0,
                    application: name.into(),
                    replay: false,
                },
                accepted: accepted(name),
            }
        };
        let mut by_key = HashMap::default();
        for (index, application) in ingest.applications.iter().enumerate() {
            for key in &application.keys {
                by_key.entry(key.expose().into()).or_insert(index);
            }
        }
        let mut required_parameters = Vec::new();
        let mut required_headers = Vec::new();
        for part in &ingest.accept.required_fields {
            match part {
                RequestPart::Header(name) => required_headers.push(name.clone()),
                RequestPart::Parameter(name) => required_parameters.push(name.clone()),
            }
        }
        Self {
            tenants: ingest
                .applications
                .iter()
                .map(|application| tenant(Some(application)))
                .collect(),
            by_key,
            unknown: tenant(None),
            required_parameters,
            required_headers,
            ingest,
        }
    }

    pub fn find(&self, key: &[u8]) -> Option<&Tenant> {
        self.by_key.get(key).map(|index| &self.tenants[*index])
    }

    /// What becomes of a request whose key belongs to nobody: it has a lane, or is not queued.
    pub fn unknown(&self) -> Result<&Tenant, Rejected> {
        match self.ingest.accept.unknown_keys {
            UnknownKeys::Accept => Ok(&self.unknown),
            UnknownKeys::AcceptAndDiscard => Err(Rejected::UnknownKeyDiscarded),
            UnknownKeys::Reject => Err(Rejected::UnknownKey),
        }
    }

    pub fn required_parameters(&self) -> &[String] {
        &self.required_parameters
    }

    /// The first header that a request lacks.
    pub fn missing_header(&self, headers: &http::HeaderMap) -> Option<&str> {
        self.required_headers
            .iter()
            .find(|name| {
                headers
                    .get(name.as_str())
                    .is_none_or(http::HeaderValue::is_empty)
            })
            .map(String::as_str)
    }
}

/// The ordering key that stands for a client's device or whatever it orders by.
pub fn ordering_key(client: &[u8]) -> OrderingKey {
    if client.len() <= KEY_BYTES_MAX && client != EVERY_KEY {
        return Bytes::copy_from_slice(client);
    }
    let hash = digest(&SHA256, client);
    Bytes::copy_from_slice(&[b"sha256:", hash.as_ref()].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded_and_stay_different() {
        assert_eq!(ordering_key(b"device"), &b"device"[..]);
        assert_eq!(ordering_key(b""), &b""[..]);
        let longest = [b'x'; KEY_BYTES_MAX];
        assert_eq!(ordering_key(&longest), &longest[..]);
        let (a, b) = ([b'x'; 4_000], [b'x'; 4_001]);
        assert!(ordering_key(&a).len() < KEY_BYTES_MAX);
        assert_ne!(ordering_key(&a), ordering_key(&b));
        assert_ne!(ordering_key(EVERY_KEY), EVERY_KEY);
    }
}
