//! The compact form of a signed token (RFC 7515): taken apart and decoded, not yet trusted.
//!
//! Nothing here looks at the claims or checks a signature. A token is refused when it asks for something this
//! gateway does not know: another algorithm (which covers `none`) or any `crit` header.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::AuthError;

/// Longest token that is looked at; what real issuers write is below 8 KiB, lists of channels included.
const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// What a token may be signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(super) enum Algorithm {
    #[serde(rename = "HS256")]
    Hs256,
    #[serde(rename = "HS384")]
    Hs384,
    #[serde(rename = "HS512")]
    Hs512,
    #[serde(rename = "RS256")]
    Rs256,
    #[serde(rename = "RS384")]
    Rs384,
    #[serde(rename = "RS512")]
    Rs512,
    #[serde(rename = "PS256")]
    Ps256,
    #[serde(rename = "PS384")]
    Ps384,
    #[serde(rename = "PS512")]
    Ps512,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "ES384")]
    Es384,
    #[serde(rename = "ES512")]
    Es512,
    /// RFC 9864 gives EdDSA with Ed25519 its own name.
    #[serde(rename = "EdDSA", alias = "Ed25519")]
    EdDsa,
}

impl Algorithm {
    /// Signed with a secret that both sides share, as opposed to a key pair.
    pub(super) fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }
}

/// A token whose signature has not been checked.
pub(super) struct Token<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) key_id: Option<String>,
    /// What the signature covers.
    pub(super) message: &'a [u8],
    pub(super) claims: Vec<u8>,
    pub(super) signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<serde::de::IgnoredAny>,
}

impl<'a> Token<'a> {
    pub(super) fn parse(token: &'a str) -> Result<Self, AuthError> {
        if token.is_empty() {
            return Err(AuthError::invalid("the token is empty"));
        }
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::invalid("the token is too long"));
        }
        let parts = || {
            let (message, signature) = token.rsplit_once('.')?;
            let (header, claims) = message.split_once('.')?;
            (!claims.contains('.')).then_some((message, header, claims, signature))
        };
        let (message, header, claims, signature) =
            parts().ok_or_else(|| AuthError::invalid("the token does not have three parts"))?;
        let header: Header = serde_json::from_slice(&decode("header", header)?)
            .map_err(|error| AuthError::Invalid(format!("header: {error}")))?;
        if header.crit.is_some() {
            return Err(AuthError::invalid("header: crit is not supported"));
        }
        Ok(Self {
            algorithm: header.alg,
            key_id: header.kid,
            message: message.as_bytes(),
            claims: decode("claims", claims)?,
            signature: decode("signature", signature)?,
        })
    }
}

fn decode(part: &str, text: &str) -> Result<Vec<u8>, AuthError> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|error| AuthError::Invalid(format!("{part}: {error}")))
}
