//! Tokens to identities.
//!
//! [`Authenticator`] checks signatures, dates and claims of the tokens that clients bring, with the keys that the
//! configuration names. It owns the key set and its refresh; it does not know channels, namespaces or sessions,
//! and what becomes of an error is up to the session. Checking a token is I/O only when its key is not at hand.

mod claims;
mod fetch;
mod jwks;
mod keys;
mod pem;
mod source;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use bytes::Bytes;
use sluice_crds::config::{Authentication, Jwks, JwksSource, Jwt};
use thiserror::Error;
use tokio::runtime::Handle;

use self::claims::Rules;
use self::fetch::Location;
use self::jwks::{KeySet, Verdict};
use self::keys::{ConfiguredKeys, SharedSecret};
use self::source::KeySource;
use self::token::Token;

/// What a connection token says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Identity {
    /// Empty for the default account.
    pub account: Arc<str>,
    /// Empty for anonymous clients.
    pub user: Arc<str>,
    /// `info` or decoded `b64info`.
    pub info: Bytes,
    /// Unix seconds; `None` when the connection never expires.
    pub expires_at: Option<u64>,
    /// Server-side subscriptions from `channels` and `subs`.
    pub subscriptions: Vec<ServerSubscription>,
}

/// A subscription that the token asks the server to make.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ServerSubscription {
    pub channel: String,
    pub info: Bytes,
    pub data: Bytes,
    pub overrides: Overrides,
}

/// What a subscription token says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SubscriptionIdentity {
    /// Empty for the default account.
    pub account: Arc<str>,
    pub user: Arc<str>,
    pub channel: String,
    /// Deprecated claim `client`; empty when absent.
    pub client: String,
    pub info: Bytes,
    pub expires_at: Option<u64>,
    pub overrides: Overrides,
}

/// Channel options that a token sets for one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Overrides {
    pub presence: Option<bool>,
    pub join_leave: Option<bool>,
    pub force_push_join_leave: Option<bool>,
    pub force_recovery: Option<bool>,
    pub force_positioning: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuthError {
    #[error("token expired")]
    Expired,
    /// The text names the claim or signature at fault; it is for logs, clients get a code only.
    #[error("invalid token: {0}")]
    Invalid(String),
    /// The key set could not be loaded yet.
    #[error("key set unavailable: {0}")]
    Unavailable(String),
}

impl AuthError {
    fn invalid(what: &str) -> Self {
        Self::Invalid(what.to_owned())
    }
}

/// Why keys of the configuration cannot be used. Holds nothing of the keys themselves.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AuthConfigError {
    /// Numbered from 1, as users count.
    #[error("shared secret {number}: {error}")]
    SharedSecret { number: usize, error: KeyError },
    #[error("public key {number}: {error}")]
    PublicKey { number: usize, error: KeyError },
    #[error("key set: {0}")]
    KeySet(String),
    #[error("location of the key set: {0}")]
    KeySetLocation(String),
}

/// Why bytes are not a key this gateway can use.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyError {
    #[error("not PEM: {0}")]
    NotPem(String),
    #[error("holds {0:?} where \"PUBLIC KEY\" is needed")]
    NotAPublicKey(String),
    #[error("empty")]
    Empty,
    #[error("broken {0} key")]
    Malformed(&'static str),
    #[error("RSA key of {0} bits; 2048 to 8192 are supported")]
    RsaSize(usize),
    #[error("unsupported key type {0}")]
    Unsupported(String),
}

/// Checks tokens. One per configuration; a reload makes the next one with [`Authenticator::renew`].
pub struct Authenticator {
    /// `None` when the configuration names no keys: every token is invalid then.
    jwt: Option<JwtVerifier>,
    /// Where the task that refreshes the key set runs.
    runtime: Handle,
}

struct JwtVerifier {
    configured: ConfiguredKeys,
    key_set: Option<SharedKeySet>,
    rules: Rules,
}

enum SharedKeySet {
    Document(KeySet),
    /// Shared between the authenticators before and after a reload.
    Remote(Arc<KeySource>),
}

impl Authenticator {
    pub fn new(config: &Authentication, runtime: &Handle) -> Result<Self, AuthConfigError> {
        Self::build(config, runtime, None)
    }

    /// For a new configuration. A key set whose location stays is taken over, loaded as it is.
    pub fn renew(&self, config: &Authentication) -> Result<Self, AuthConfigError> {
        let previous = match self.jwt.as_ref().and_then(|jwt| jwt.key_set.as_ref()) {
            Some(SharedKeySet::Remote(source)) => Some(source),
            Some(SharedKeySet::Document(_)) | None => None,
        };
        Self::build(config, &self.runtime, previous)
    }

    /// `now` is in unix seconds.
    pub async fn connection(&self, token: &str, now: u64) -> Result<Identity, AuthError> {
        let jwt = self.jwt()?;
        let token = Token::parse(token)?;
        jwt.verify(&token).await?;
        claims::connection(&token.claims, &jwt.rules, now)
    }

    pub async fn subscription(
        &self,
        token: &str,
        now: u64,
    ) -> Result<SubscriptionIdentity, AuthError> {
        let jwt = self.jwt()?;
        let token = Token::parse(token)?;
        jwt.verify(&token).await?;
        claims::subscription(&token.claims, &jwt.rules, now)
    }

    fn jwt(&self) -> Result<&JwtVerifier, AuthError> {
        self.jwt
            .as_ref()
            .ok_or_else(|| AuthError::invalid("no keys are configured"))
    }

    fn build(
        config: &Authentication,
        runtime: &Handle,
        previous: Option<&Arc<KeySource>>,
    ) -> Result<Self, AuthConfigError> {
        let verifier = |jwt: &Jwt| {
            Ok(JwtVerifier {
                configured: configured_keys(jwt)?,
                key_set: jwt
                    .jwks
                    .as_ref()
                    .map(|jwks| shared_key_set(jwks, runtime, previous))
                    .transpose()?,
                rules: Rules {
                    audience: jwt.audience.clone(),
                    issuer: jwt.issuer.clone(),
                    account_claim: jwt.account_claim.clone(),
                },
            })
        };
        Ok(Self {
            jwt: config.jwt.as_ref().map(verifier).transpose()?,
            runtime: runtime.clone(),
        })
    }
}

impl JwtVerifier {
    async fn verify(&self, token: &Token<'_>) -> Result<(), AuthError> {
        if self.configured.verify(token) {
            return Ok(());
        }
        let mismatch = || Err(AuthError::invalid("signature: matches no configured key"));
        // Key sets have public keys only.
        if token.algorithm.is_symmetric() {
            return mismatch();
        }
        match &self.key_set {
            None => mismatch(),
            Some(SharedKeySet::Document(keys)) => match keys.verify(token) {
                Verdict::Verified => Ok(()),
                Verdict::Refused | Verdict::UnknownKey => mismatch(),
            },
            Some(SharedKeySet::Remote(source)) => match source.verify_at_hand(token) {
                Some(verdict) => verdict,
                // Boxed, because this future is part of that of every connection and the case is rare.
                None => Box::pin(source.verify(token)).await,
            },
        }
    }
}

fn configured_keys(jwt: &Jwt) -> Result<ConfiguredKeys, AuthConfigError> {
    let mut keys = ConfiguredKeys::default();
    for (number, secret) in (1..).zip(&jwt.hmac_secrets) {
        let secret = SharedSecret::new(secret.expose());
        keys.secrets
            .push(secret.map_err(|error| AuthConfigError::SharedSecret { number, error })?);
    }
    for (number, text) in (1..).zip(&jwt.public_keys) {
        let found = pem::public_keys(text.expose());
        keys.public
            .extend(found.map_err(|error| AuthConfigError::PublicKey { number, error })?);
    }
    Ok(keys)
}

fn shared_key_set(
    jwks: &Jwks,
    runtime: &Handle,
    previous: Option<&Arc<KeySource>>,
) -> Result<SharedKeySet, AuthConfigError> {
    let url = match &jwks.source {
        JwksSource::Document(document) => {
            let keys = KeySet::parse(document.expose()).map_err(AuthConfigError::KeySet)?;
            return Ok(SharedKeySet::Document(keys));
        }
        JwksSource::Url(url) => url,
    };
    let location = Location::parse(url).map_err(AuthConfigError::KeySetLocation)?;
    let source = match previous {
        Some(previous) if previous.is(&location, jwks.refresh) => Arc::clone(previous),
        Some(_) | None => {
            let keys = previous.and_then(|previous| previous.keys_of(&location));
            Arc::new(KeySource::start(location, jwks.refresh, keys, runtime))
        }
    };
    Ok(SharedKeySet::Remote(source))
}
