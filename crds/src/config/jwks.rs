//! Where a key set comes from.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Secret;

#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub enum JwksSource {
    /// `http://`, `https://` or `file://`.
    Url(String),
    /// The key set itself, from a Secret or ConfigMap.
    Document(Secret),
}

/// Without the user and password that a URL may carry.
impl fmt::Debug for JwksSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => match split(url) {
                Some((scheme, _, rest)) => write!(f, "Url({scheme}://{rest})"),
                None => f.write_str("Url"),
            },
            Self::Document(document) => f.debug_tuple("Document").field(document).finish(),
        }
    }
}

/// Scheme, user information with its `@`, and the rest.
fn split(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let host = rest[..authority].rfind('@').map_or(0, |at| at + 1);
    let (user, rest) = rest.split_at(host);
    Some((scheme, user, rest))
}

/// As a configuration file has it: an address with a password stands among the secrets.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Written {
    Url(String),
    SecretUrl(Secret),
    Document(Secret),
}

impl From<JwksSource> for Written {
    fn from(source: JwksSource) -> Self {
        match source {
            JwksSource::Url(url) => match split(&url) {
                Some((_, "", _)) => Self::Url(url),
                Some(_) | None => Self::SecretUrl(Secret::new(url.into_bytes())),
            },
            JwksSource::Document(document) => Self::Document(document),
        }
    }
}

impl TryFrom<Written> for JwksSource {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Url(url) => Ok(Self::Url(url)),
            Written::SecretUrl(url) => String::from_utf8(url.expose().to_vec())
                .map(Self::Url)
                .map_err(|_| "the address of the key set is no text"),
            Written::Document(document) => Ok(Self::Document(document)),
        }
    }
}
