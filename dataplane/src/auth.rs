//! Tokens to identities.

use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

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
