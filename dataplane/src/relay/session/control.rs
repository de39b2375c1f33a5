//! What others do to a connection: the server API and the hub.

use std::sync::Arc;

use super::subscribe::{Plan, SubscribeContext};
use super::{Ask, Effect, Env, Live, Session, Step, ttl_seconds};
use crate::auth::Overrides;
use crate::relay::channel::Channel;
use crate::relay::codes::{self, Disconnect};
use crate::relay::protocol::{ClientInfo, Payload};

#[derive(Debug, Clone)]
pub enum Control {
    Disconnect(Disconnect),
    /// From one channel, or from all.
    Unsubscribe {
        channel: Option<Channel>,
    },
    Subscribe(Box<ServerSubscribe>),
    Refresh {
        /// Unix seconds; `None` for never.
        expires_at: Option<u64>,
        /// New connection info; empty to keep the old.
        info: Payload,
    },
    /// The hub saw a gap in the stream of this subscription.
    InsufficientState {
        channel: Channel,
    },
    /// Presence has lost this process's entries.
    JoinAgain,
}

/// A server-side subscription made while the client is connected.
#[derive(Debug, Clone)]
pub struct ServerSubscribe {
    pub channel: Channel,
    pub info: Payload,
    pub data: Payload,
    pub expires_at: Option<u64>,
    /// Offset and epoch to recover from.
    pub recover: Option<(u64, String)>,
    pub overrides: Overrides,
}

impl Session {
    pub fn control(&mut self, control: Control, env: &Env<'_>) -> Step {
        let Some(live) = self.live_mut() else {
            return match control {
                Control::Disconnect(disconnect) => Step::close(disconnect),
                Control::Unsubscribe { .. }
                | Control::Subscribe(_)
                | Control::Refresh { .. }
                | Control::InsufficientState { .. }
                | Control::JoinAgain => Step::none(),
            };
        };
        match control {
            Control::Disconnect(disconnect) => Step::close(disconnect),
            Control::Unsubscribe { channel } => {
                let channels: Vec<Channel> = match channel {
                    Some(channel) => vec![channel],
                    None => live
                        .subscriptions
                        .iter()
                        .map(|subscription| subscription.channel.clone())
                        .collect(),
                };
                let mut step = Step::none();
                for channel in channels {
                    self.unsubscribe_by_server(&channel, codes::UNSUBSCRIBE_SERVER, &mut step);
                }
                step
            }
            Control::InsufficientState { channel } => {
                let mut step = Step::none();
                match live.subscription(&channel) {
                    Some(subscription) if subscription.server_side => {
                        Step::close(codes::DISCONNECT_INSUFFICIENT_STATE)
                    }
                    Some(_) => {
                        self.unsubscribe_by_server(
                            &channel,
                            codes::UNSUBSCRIBE_INSUFFICIENT,
                            &mut step,
                        );
                        step
                    }
                    None => step,
                }
            }
            Control::Refresh { expires_at, info } => {
                live.expires_at = expires_at;
                if !info.is_empty() {
                    live.info = Arc::new(ClientInfo {
                        conn_info: info,
                        ..(*live.info).clone()
                    });
                }
                let ttl = expires_at.map_or(0, |at| ttl_seconds(at, env.now_seconds()));
                Step::effect(Effect::PushRefresh {
                    expires: expires_at.is_some(),
                    ttl,
                })
            }
            Control::Subscribe(subscribe) => self.subscribe_by_server(*subscribe, env),
            Control::JoinAgain => live.join_again(),
        }
    }

    fn subscribe_by_server(&mut self, subscribe: ServerSubscribe, env: &Env<'_>) -> Step {
        let Some(live) = self.live_mut() else {
            return Step::none();
        };
        if subscribe.channel.account() != &*live.account {
            return Step::none();
        }
        let full = live.subscriptions.len() >= env.relay.limits.channels_per_client;
        let Some(namespace) = env.relay.namespace_of(subscribe.channel.name()) else {
            return Step::none();
        };
        if full || live.subscription(&subscribe.channel).is_some() {
            return Step::none();
        }
        let mut plan = Plan::new(subscribe.channel, namespace, &subscribe.overrides);
        plan.server_side = true;
        plan.data = subscribe.data;
        plan.expires_at = subscribe.expires_at;
        plan.recover = subscribe.recover.filter(|_| plan.recoverable);
        plan.info = if subscribe.info.is_empty() {
            live.info.clone()
        } else {
            Arc::new(ClientInfo {
                chan_info: subscribe.info,
                ..(*live.info).clone()
            })
        };
        Step::ask(Ask::Subscribe {
            plans: vec![plan],
            context: SubscribeContext::Server,
        })
    }

    fn unsubscribe_by_server(
        &mut self,
        channel: &Channel,
        (code, reason): (u32, &'static str),
        step: &mut Step,
    ) {
        let Some(subscription) = self.live_mut().and_then(|live| live.take(channel)) else {
            return;
        };
        let channel = channel.clone();
        step.effects.push(Effect::PushUnsubscribe {
            channel,
            code,
            reason,
        });
        step.effects.push(Effect::Leave(subscription));
    }
}

impl Live {
    fn join_again(&self) -> Step {
        let present = self
            .subscriptions
            .iter()
            .filter(|subscription| subscription.presence);
        let again = present.map(|subscription| Effect::JoinAgain {
            channel: subscription.channel.clone(),
            info: Arc::clone(&subscription.info),
            announce: subscription.announce,
        });
        Step {
            effects: again.collect(),
            ask: None,
        }
    }
}
