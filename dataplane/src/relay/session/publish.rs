//! Publish and rpc: permission and message rates.

use std::sync::Arc;

use sluice_crds::config::Namespace;

use super::{Ask, Env, Live, Session, Step};
use crate::relay::channel::Channel;
use crate::relay::codes;
use crate::relay::protocol::{Payload, ResultBody};
use crate::store::{NewPublication, PublishOptions, Published, Retention, StoreError};

#[derive(Debug)]
pub struct PublishAsk {
    pub id: u32,
    pub channel: Channel,
    pub publication: NewPublication,
    pub options: PublishOptions,
}

/// The options every publication to a channel of this namespace has.
pub fn publish_options(namespace: &Namespace) -> PublishOptions {
    PublishOptions {
        history: namespace.history.map(|history| Retention {
            size: history.size,
            ttl: history.ttl,
        }),
        delta: namespace.delta,
        ..PublishOptions::default()
    }
}

impl Live {
    pub(super) fn publish(&mut self, id: u32, channel: &str, data: Payload, env: &Env<'_>) -> Step {
        if channel.is_empty() || data.is_empty() {
            return Step::close(codes::DISCONNECT_BAD_REQUEST);
        }
        if !self.may_send(env) {
            return Step::error(id, codes::ERROR_TOO_MANY_REQUESTS);
        }
        let (channel, namespace) = match self.channel(channel, env) {
            Ok(known) => known,
            Err(error) => return Step::error(id, error),
        };
        if !self.allows(namespace.publish, &channel) {
            return Step::error(id, codes::ERROR_PERMISSION_DENIED);
        }
        let info = self
            .subscription(&channel)
            .map_or(&self.info, |subscription| &subscription.info);
        let publication = NewPublication {
            data,
            info: Some(Arc::clone(info)),
            tags: Vec::new(),
            time_ms: env.now_ms as i64,
        };
        let options = publish_options(namespace);
        Step::ask(Ask::Publish(PublishAsk {
            id,
            channel,
            publication,
            options,
        }))
    }

    /// No handler exists for remote calls.
    pub(super) fn rpc(&mut self, id: u32, env: &Env<'_>) -> Step {
        let error = if self.may_send(env) {
            codes::ERROR_NOT_AVAILABLE
        } else {
            codes::ERROR_TOO_MANY_REQUESTS
        };
        Step::error(id, error)
    }

    fn may_send(&mut self, env: &Env<'_>) -> bool {
        let limits = &env.relay.limits;
        let client = limits
            .messages_per_second_per_client
            .is_none_or(|rate| self.messages.take(rate, env.now_ms));
        client
            && limits.messages_per_second_per_account.is_none_or(|rate| {
                env.account
                    .is_none_or(|account| account.take_message(rate, env.now_ms))
            })
    }
}

impl Session {
    pub fn published(&mut self, id: u32, outcome: &Result<Published, StoreError>) -> Step {
        match outcome {
            Ok(_) => Step::reply(id, ResultBody::Publish),
            Err(_) => Step::error(id, codes::ERROR_INTERNAL),
        }
    }

    /// The channel's readers cannot take more now.
    pub fn publish_refused(&mut self, id: u32) -> Step {
        Step::error(id, codes::ERROR_TOO_MANY_REQUESTS)
    }
}
