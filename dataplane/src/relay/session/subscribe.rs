//! Subscribe and unsubscribe: permission, the plan for the hub and the stores, the result.

use std::rc::Rc;
use std::sync::Arc;

use sluice_crds::config::{Allowed, Feature, Namespace};

use super::{
    Ask, Effect, Env, Live, MemberKey, Session, Step, Subscription, compile_filter, ttl_seconds,
};
use crate::auth::{AuthError, Overrides, SubscriptionIdentity};
use crate::relay::channel::Channel;
use crate::relay::codes::{self, Disconnect};
use crate::relay::filter::Filter;
use crate::relay::protocol::{
    ClientInfo, ErrorReply, FLAG_CHANNEL_COMPACTION, FLAG_REJECT_UNRECOVERED, Payload, Position,
    Publication, Reply, ResultBody, SubscribeRequest, SubscribeResult,
};
use crate::store::Retention;

/// The only delta format.
const DELTA_FOSSIL: &str = "fossil";

/// How to join one channel.
#[derive(Debug)]
pub struct Plan {
    pub channel: Channel,
    /// As others see the client here.
    pub info: Arc<ClientInfo>,
    pub server_side: bool,
    pub presence: bool,
    /// Announce this client to others.
    pub announce: bool,
    /// Get the announcements of others.
    pub receive_join_leave: bool,
    /// History of the channel, when the subscription follows a stream position.
    pub stream: Option<Retention>,
    pub recoverable: bool,
    pub positioned: bool,
    /// Offset and epoch the client knows; an empty epoch means any.
    pub recover: Option<(u64, String)>,
    pub reject_unrecovered: bool,
    pub delta: bool,
    pub compaction: bool,
    pub filter: Option<Rc<Filter>>,
    /// Sent in the result.
    pub data: Payload,
    pub expires_at: Option<u64>,
}

/// A channel joined: what the hub and the broker know.
#[derive(Debug)]
pub struct Subscribed {
    pub member: MemberKey,
    /// For compaction; 0 without it.
    pub id: i64,
    /// For the result: where the client counts on from. Zero without a stream.
    pub position: Position,
    pub recovered: bool,
    /// When recovered: what the client missed, ready to send.
    pub publications: Vec<Publication>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubscribeError {
    /// A store did not answer.
    Unavailable,
    /// The client asked for an error instead of `recovered: false`.
    Unrecoverable,
    /// The client's payloads cannot be sent in its encoding.
    Inappropriate,
}

impl SubscribeError {
    pub(super) fn reply(self) -> Result<ErrorReply, Disconnect> {
        match self {
            Self::Unavailable => Ok(codes::ERROR_INTERNAL),
            Self::Unrecoverable => Ok(codes::ERROR_UNRECOVERABLE_POSITION),
            Self::Inappropriate => Err(codes::DISCONNECT_INAPPROPRIATE_PROTOCOL),
        }
    }
}

#[derive(Debug)]
pub enum SubscribeContext {
    Connect {
        id: u32,
    },
    Client {
        id: u32,
    },
    /// Begun by the server API.
    Server,
}

#[derive(Debug)]
pub enum VerifiedSubscribe {
    Subscribe {
        id: u32,
        request: Box<SubscribeRequest>,
    },
    SubRefresh {
        id: u32,
        channel: Channel,
    },
}

impl Plan {
    /// What the namespace and the token's overrides give to every subscriber; requests add to it.
    pub fn new(channel: Channel, namespace: &Namespace, overrides: &Overrides) -> Self {
        let recoverable = overrides
            .force_recovery
            .unwrap_or(namespace.recovery == Feature::Always);
        let positioned = overrides
            .force_positioning
            .unwrap_or(namespace.positioning == Feature::Always);
        let retention = namespace.history.map(|history| Retention {
            size: history.size,
            ttl: history.ttl,
        });
        let follows = recoverable || positioned;
        Self {
            channel,
            info: Arc::default(),
            server_side: false,
            presence: overrides.presence.unwrap_or(namespace.presence),
            announce: overrides
                .join_leave
                .unwrap_or(namespace.join_leave != Feature::Disabled),
            receive_join_leave: overrides
                .force_push_join_leave
                .unwrap_or(namespace.join_leave == Feature::Always),
            stream: retention.filter(|_| follows),
            // Without history there is no stream to follow, whatever a token says.
            recoverable: recoverable && retention.is_some(),
            positioned: follows && retention.is_some(),
            recover: None,
            reject_unrecovered: false,
            delta: false,
            compaction: false,
            filter: None,
            data: Payload::new(),
            expires_at: None,
        }
    }

    /// Adds what the client asks for and may have.
    fn request(
        &mut self,
        request: &SubscribeRequest,
        namespace: &Namespace,
        may_ask_history: bool,
        may_ask_presence: bool,
    ) {
        if let Some(history) = namespace.history {
            let may = |feature: Feature| feature != Feature::Disabled || may_ask_history;
            self.recoverable |= request.recoverable && may(namespace.recovery);
            self.positioned |=
                self.recoverable || (request.positioned && may(namespace.positioning));
            if self.positioned {
                self.stream = Some(Retention {
                    size: history.size,
                    ttl: history.ttl,
                });
            }
        }
        let join_leave = namespace.join_leave != Feature::Disabled;
        self.receive_join_leave |= request.join_leave && join_leave && may_ask_presence;
        if self.recoverable && request.recover {
            self.recover = Some((request.offset, request.epoch.clone()));
        }
        self.reject_unrecovered = request.flag & FLAG_REJECT_UNRECOVERED != 0;
        self.delta = namespace.delta && request.delta == DELTA_FOSSIL;
    }
}

impl Live {
    pub(super) fn subscribe(&mut self, id: u32, request: SubscribeRequest, env: &Env<'_>) -> Step {
        if request.channel.is_empty() {
            return Step::close(codes::DISCONNECT_BAD_REQUEST);
        }
        if !request.delta.is_empty() && request.delta != DELTA_FOSSIL {
            return Step::close(codes::DISCONNECT_BAD_REQUEST);
        }
        let (channel, namespace) = match self.channel(&request.channel, env) {
            Ok(known) => known,
            Err(error) => return Step::error(id, error),
        };
        if self.subscription(&channel).is_some() {
            return Step::error(id, codes::ERROR_ALREADY_SUBSCRIBED);
        }
        if self.subscriptions.len() >= env.relay.limits.channels_per_client {
            return Step::error(id, codes::ERROR_LIMIT_EXCEEDED);
        }
        if request.subscription_type != 0 {
            return Step::error(id, codes::ERROR_PERMISSION_DENIED);
        }
        if !request.token.is_empty() {
            if namespace.subscribe == Allowed::Nobody {
                return Step::error(id, codes::ERROR_PERMISSION_DENIED);
            }
            let token = request.token.clone();
            let context = VerifiedSubscribe::Subscribe {
                id,
                request: Box::new(request),
            };
            return Step::ask(Ask::VerifySubscription { token, context });
        }
        if !self.may_subscribe(&request.channel, namespace) {
            return Step::error(id, codes::ERROR_PERMISSION_DENIED);
        }
        let plan = Plan::new(channel, namespace, &Overrides::default());
        self.subscribe_with(id, &request, plan, namespace)
    }

    /// Without a token: `$` channels never, user-limited ones by the list in their name, others by the namespace.
    fn may_subscribe(&self, name: &str, namespace: &Namespace) -> bool {
        let user = &*self.info.user;
        if name.starts_with('$') {
            return false;
        }
        if let Some((_, users)) = name.split_once('#') {
            return !user.is_empty() && users.split(',').any(|allowed| allowed == user);
        }
        match namespace.subscribe {
            Allowed::Nobody | Allowed::Subscriber => false,
            Allowed::Authenticated => !user.is_empty(),
            Allowed::Anyone => true,
        }
    }

    fn subscribe_with(
        &self,
        id: u32,
        request: &SubscribeRequest,
        mut plan: Plan,
        namespace: &Namespace,
    ) -> Step {
        // The subscription is about to exist, so what subscribers may ask, this client may.
        let may = |allowed: Allowed| {
            allowed == Allowed::Subscriber || self.allows(allowed, &plan.channel)
        };
        let (history, presence) = (may(namespace.ask_history), may(namespace.ask_presence));
        plan.request(request, namespace, history, presence);
        plan.compaction = self.compaction && request.flag & FLAG_CHANNEL_COMPACTION != 0;
        plan.filter = match compile_filter(request.filter.as_ref()) {
            Ok(filter) => filter,
            Err(error) => return Step::error(id, error),
        };
        if plan.info.client.is_empty() {
            plan.info = Arc::clone(&self.info);
        }
        Step::ask(Ask::Subscribe {
            plans: vec![plan],
            context: SubscribeContext::Client { id },
        })
    }

    /// Registers the subscription; `after` gets what must follow its reply.
    pub(super) fn begin(
        &mut self,
        plan: Plan,
        done: Subscribed,
        after: &mut Vec<Effect>,
        env: &Env<'_>,
    ) -> SubscribeResult {
        let Plan { channel, info, .. } = plan;
        after.push(Effect::Release {
            channel: channel.clone(),
            member: done.member,
        });
        if plan.announce {
            after.push(Effect::Join {
                channel: channel.clone(),
                info: Arc::clone(&info),
            });
        }
        self.subscriptions.push(Subscription {
            channel,
            member: done.member,
            info,
            presence: plan.presence,
            announce: plan.announce,
            server_side: plan.server_side,
            expires_at: plan.expires_at,
        });
        SubscribeResult {
            expires: plan.expires_at.is_some(),
            ttl: plan
                .expires_at
                .map_or(0, |at| ttl_seconds(at, env.now_seconds())),
            recoverable: plan.recoverable,
            positioned: plan.positioned,
            position: done.position,
            publications: done.publications,
            recovered: done.recovered,
            was_recovering: plan.recover.is_some(),
            data: plan.data,
            delta: plan.delta,
            id: done.id,
        }
    }

    pub(super) fn unsubscribe(&mut self, id: u32, channel: &str, env: &Env<'_>) -> Step {
        if channel.is_empty() {
            return Step::close(codes::DISCONNECT_BAD_REQUEST);
        }
        let mut step = Step::reply(id, ResultBody::Unsubscribe);
        // Unsubscribing from what one is not in, even an impossible name, is no error.
        if let Ok((channel, _)) = self.channel(channel, env)
            && let Some(subscription) = self.take(&channel)
        {
            step.effects.insert(0, Effect::Leave(subscription));
        }
        step
    }

    pub(super) fn take(&mut self, channel: &Channel) -> Option<Subscription> {
        let index = self
            .subscriptions
            .iter()
            .position(|subscription| subscription.channel == *channel)?;
        let subscription = self.subscriptions.swap_remove(index);
        if self.subscriptions.is_empty() {
            self.subscriptions.shrink_to_fit();
        }
        Some(subscription)
    }
}

impl Session {
    pub fn subscription_verified(
        &mut self,
        context: VerifiedSubscribe,
        verified: Result<SubscriptionIdentity, AuthError>,
        env: &Env<'_>,
    ) -> Step {
        let client = Arc::clone(&self.client);
        let Some(live) = self.live_mut() else {
            return Step::none();
        };
        let refresh = matches!(context, VerifiedSubscribe::SubRefresh { .. });
        let (id, name) = match &context {
            VerifiedSubscribe::Subscribe { id, request } => (*id, request.channel.as_str()),
            VerifiedSubscribe::SubRefresh { id, channel } => (*id, channel.name()),
        };
        let token = match verified {
            Ok(token) => token,
            Err(error) if refresh => return refused_refresh(id, &error),
            Err(AuthError::Expired) => return Step::error(id, codes::ERROR_TOKEN_EXPIRED),
            Err(AuthError::Invalid(_)) => return Step::error(id, codes::ERROR_PERMISSION_DENIED),
            Err(AuthError::Unavailable(_)) => return Step::error(id, codes::ERROR_INTERNAL),
        };
        let matches = token.channel == name
            && token.user == live.info.user
            && token.account == live.account
            && (token.client.is_empty() || *token.client == *client);
        if !matches {
            return Step::close(codes::DISCONNECT_INVALID_TOKEN);
        }
        match context {
            VerifiedSubscribe::Subscribe { id, request } => {
                let (channel, namespace) = match live.channel(&request.channel, env) {
                    Ok(known) => known,
                    Err(error) => return Step::error(id, error),
                };
                let mut plan = Plan::new(channel, namespace, &token.overrides);
                plan.expires_at = token.expires_at;
                if !token.info.is_empty() {
                    plan.info = Arc::new(ClientInfo {
                        chan_info: token.info,
                        ..(*live.info).clone()
                    });
                }
                live.subscribe_with(id, &request, plan, namespace)
            }
            VerifiedSubscribe::SubRefresh { id, channel } => {
                live.sub_refreshed(id, &channel, token.expires_at, env)
            }
        }
    }

    pub fn subscribed(
        &mut self,
        context: SubscribeContext,
        mut plans: Vec<Plan>,
        mut outcome: Vec<Result<Subscribed, SubscribeError>>,
        env: &Env<'_>,
    ) -> Step {
        let id = match context {
            SubscribeContext::Connect { id } => return self.connected(id, plans, outcome, env),
            SubscribeContext::Client { id } => Some(id),
            SubscribeContext::Server => None,
        };
        let Some(live) = self.live_mut() else {
            return Step::none();
        };
        let (Some(plan), Some(outcome)) = (plans.pop(), outcome.pop()) else {
            return Step::none();
        };
        let done = match (outcome, id) {
            (Ok(done), _) => done,
            (Err(error), Some(id)) => {
                return error
                    .reply()
                    .map_or_else(Step::close, |error| Step::error(id, error));
            }
            // The API call that began it gets no answer from here; the client sees nothing.
            (Err(_), None) => return Step::none(),
        };
        let channel = plan.channel.clone();
        let mut after = Vec::new();
        let result = live.begin(plan, done, &mut after, env);
        let first = match id {
            Some(id) => Effect::Reply(Reply {
                id,
                result: Ok(ResultBody::Subscribe(result)),
            }),
            None => Effect::PushSubscribe {
                channel,
                recoverable: result.recoverable,
                positioned: result.positioned,
                position: result.position,
                data: result.data,
            },
        };
        let mut step = Step::effect(first);
        step.effects.extend(after);
        step
    }
}

/// An expired token changes nothing: the subscription ends after its grace time with a code that makes SDKs subscribe
/// again, with a fresh token.
fn refused_refresh(id: u32, error: &AuthError) -> Step {
    match error {
        AuthError::Expired => Step::reply(
            id,
            ResultBody::SubRefresh {
                expires: false,
                ttl: 0,
            },
        ),
        AuthError::Invalid(_) => Step::close(codes::DISCONNECT_INVALID_TOKEN),
        AuthError::Unavailable(_) => Step::error(id, codes::ERROR_INTERNAL),
    }
}
