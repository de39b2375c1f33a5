//! What a publish or broadcast request wants published; decided once, whatever the number of channels.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sluice_crds::config::Namespace;

use super::answer::ApiError;
use super::request::{Json, Publish};
use crate::relay::channel;
use crate::relay::protocol::Payload;
use crate::relay::session::publish_options;
use crate::store::{NewPublication, PublishOptions};

/// Idempotency keys and version epochs are kept by the store for minutes and more.
const KEY_BYTES_MAX: usize = 128;

#[derive(Debug)]
pub(super) struct Message {
    publication: NewPublication,
    skip_history: bool,
    idempotency_key: Option<Arc<str>>,
    version: u64,
    version_epoch: Arc<str>,
}

impl Message {
    pub(super) fn new(request: &Publish, now_ms: u64) -> Result<Self, ApiError> {
        if request.idempotency_key.len() > KEY_BYTES_MAX
            || request.version_epoch.len() > KEY_BYTES_MAX
        {
            return Err(ApiError::BadRequest);
        }
        let tags = request
            .tags
            .iter()
            .map(|(key, value)| (Arc::from(&**key), Arc::from(&**value)));
        Ok(Self {
            publication: NewPublication {
                data: payload(&request.data, &request.b64data)?,
                info: None,
                tags: tags.collect(),
                time_ms: i64::try_from(now_ms).unwrap_or(i64::MAX),
            },
            skip_history: request.skip_history,
            idempotency_key: Some(&*request.idempotency_key)
                .filter(|key| !key.is_empty())
                .map(Arc::from),
            version: request.version,
            version_epoch: Arc::from(&*request.version_epoch),
        })
    }

    /// The publication for one channel. A message without data is refused channel by channel.
    pub(super) fn publication(&self) -> Result<NewPublication, ApiError> {
        if self.publication.data.is_empty() {
            Err(ApiError::BadRequest)
        } else {
            Ok(self.publication.clone())
        }
    }

    pub(super) fn options(&self, namespace: &Namespace) -> PublishOptions {
        let options = publish_options(namespace);
        PublishOptions {
            history: options.history.filter(|_| !self.skip_history),
            idempotency_key: self.idempotency_key.clone(),
            version: self.version,
            version_epoch: Arc::clone(&self.version_epoch),
            ..options
        }
    }
}

/// A payload given as JSON or in base64, which wins.
pub(super) fn payload(json: &Json, base64: &str) -> Result<Payload, ApiError> {
    if base64.is_empty() {
        return Ok(json.0.clone());
    }
    STANDARD
        .decode(base64)
        .map(Payload::from)
        .map_err(|_| ApiError::BadRequest)
}

/// The account a request names; empty for the default account.
pub(super) fn account_of(account: &str) -> Result<&str, ApiError> {
    if account.is_empty() || channel::account_is_valid(account) {
        Ok(account)
    } else {
        Err(ApiError::BadRequest)
    }
}
