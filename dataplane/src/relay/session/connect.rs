//! The connect command: token, account admission, server-side subscriptions, result.

use std::sync::Arc;

use sluice_crds::config::Feature;

use super::subscribe::{Plan, SubscribeContext, SubscribeError, Subscribed};
use super::{
    Ask, Effect, Env, Live, Phase, Session, Step, recovery_request, scoped_channel, ttl_seconds,
};
use crate::auth::{AuthError, Identity, ServerSubscription};
use crate::relay::codes;
use crate::relay::protocol::{
    ClientInfo, ConnectRequest, ConnectResult, Encoding, ErrorReply, Payload, Reply, ResultBody,
};
use crate::relay::rate::Bucket;

/// Named in the connect result. SDKs show it to users.
const SERVER_VERSION: &str = concat!("sluice ", env!("CARGO_PKG_VERSION"));

/// Protobuf clients, by the name they connect with, that get numeric channel ids when they ask for them. Everyone else
/// gets names: the JavaScript SDK asks too, but compares 64-bit ids by object identity and would drop every push.
const COMPACTING_CLIENTS: [&str; 3] = ["", "go", "python"];

#[derive(Debug)]
pub struct ConnectContext {
    id: u32,
    request: ConnectRequest,
}

/// A verified client that its account has yet to admit.
#[derive(Debug)]
pub struct Admission {
    id: u32,
    request: ConnectRequest,
    identity: Identity,
}

impl Session {
    pub(super) fn connect(&mut self, id: u32, request: ConnectRequest, env: &Env<'_>) -> Step {
        if !matches!(self.phase, Phase::Fresh) || id == 0 {
            return Step::close(codes::DISCONNECT_BAD_REQUEST);
        }
        if request.token.is_empty() {
            if !env.relay.authentication.anonymous {
                return Step::close(codes::DISCONNECT_BAD_REQUEST);
            }
            self.phase = Phase::Connecting;
            return self.admit(Admission {
                id,
                request,
                identity: Identity::default(),
            });
        }
        self.phase = Phase::Connecting;
        let token = request.token.clone();
        Step::ask(Ask::Identify {
            token,
            context: ConnectContext { id, request },
        })
    }

    pub fn identified(
        &mut self,
        context: ConnectContext,
        identity: Result<Identity, AuthError>,
    ) -> Step {
        let ConnectContext { id, request } = context;
        match identity {
            Ok(identity) => self.admit(Admission {
                id,
                request,
                identity,
            }),
            Err(AuthError::Expired) => self.refuse(id, codes::ERROR_TOKEN_EXPIRED),
            Err(AuthError::Invalid(_)) => Step::close(codes::DISCONNECT_INVALID_TOKEN),
            Err(AuthError::Unavailable(_)) => self.refuse(id, codes::ERROR_INTERNAL),
        }
    }

    fn admit(&mut self, admission: Admission) -> Step {
        let account = Arc::clone(&admission.identity.account);
        Step::ask(Ask::Admit {
            account,
            context: Box::new(admission),
        })
    }

    /// After it, a refused client may try again on the same connection until the connect deadline.
    fn refuse(&mut self, id: u32, error: ErrorReply) -> Step {
        self.phase = Phase::Fresh;
        Step::error(id, error)
    }

    pub fn admitted(&mut self, admission: Admission, admitted: bool, env: &Env<'_>) -> Step {
        let Admission {
            id,
            request,
            identity,
        } = admission;
        if !admitted {
            // Closed as well, before the connect deadline would do it with a terminal code.
            let mut step = self.refuse(id, codes::ERROR_TOO_MANY_REQUESTS);
            step.effects
                .push(Effect::Close(codes::DISCONNECT_TOO_MANY_REQUESTS));
            return step;
        }
        let info = Arc::new(ClientInfo {
            user: Arc::clone(&identity.user),
            client: Arc::clone(&self.client),
            conn_info: identity.info.clone(),
            chan_info: Payload::new(),
        });
        let plans = match server_side_plans(&identity, &request, &info, env) {
            Ok(plans) => plans,
            Err(error) => return self.refuse(id, error),
        };
        let compaction =
            self.encoding == Encoding::Json || COMPACTING_CLIENTS.contains(&&*request.name);
        self.phase = Phase::Connected(Box::new(Live {
            account: identity.account,
            info,
            expires_at: identity.expires_at,
            subscriptions: Vec::new(),
            messages: Bucket::default(),
            compaction,
        }));
        if plans.is_empty() {
            return self.connected(id, Vec::new(), Vec::new(), env);
        }
        Step::ask(Ask::Subscribe {
            plans,
            context: SubscribeContext::Connect { id },
        })
    }

    /// Server-side subscriptions of a connect are made (or one failed, which fails the connect).
    pub(super) fn connected(
        &mut self,
        id: u32,
        plans: Vec<Plan>,
        subscribed: Vec<Result<Subscribed, SubscribeError>>,
        env: &Env<'_>,
    ) -> Step {
        let client = Arc::clone(&self.client);
        let Some(live) = self.live_mut() else {
            return Step::none();
        };
        let mut subs = Vec::with_capacity(plans.len());
        let mut after = Vec::new();
        let mut failure = None;
        for (plan, outcome) in plans.into_iter().zip(subscribed) {
            match outcome {
                Ok(done) => {
                    let name = plan.channel.name().to_owned();
                    subs.push((name, live.begin(plan, done, &mut after, env)));
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(error) = failure {
            // The others were made and end here; nobody was told that they had begun.
            for subscription in &mut live.subscriptions {
                subscription.announce = false;
            }
            return match error.reply() {
                Ok(error) => {
                    let mut step = Step::error(id, error);
                    step.effects
                        .extend(self.end().into_iter().map(Effect::Leave));
                    self.phase = Phase::Fresh;
                    step
                }
                Err(disconnect) => Step::close(disconnect),
            };
        }
        let heartbeat = env.relay.heartbeat;
        let result = ConnectResult {
            client,
            version: SERVER_VERSION.to_owned(),
            expires: live.expires_at.is_some(),
            ttl: live
                .expires_at
                .map_or(0, |at| ttl_seconds(at, env.now_seconds())),
            data: Payload::new(),
            subs,
            ping: u32::try_from(heartbeat.interval.as_secs()).unwrap_or(u32::MAX),
            pong: true,
            time_ms: 0,
        };
        let mut step = Step::effect(Effect::Reply(Reply {
            id,
            result: Ok(ResultBody::Connect(result)),
        }));
        step.effects.extend(after);
        step
    }
}

/// The token's channels and the personal channel, each once.
fn server_side_plans(
    identity: &Identity,
    request: &ConnectRequest,
    info: &Arc<ClientInfo>,
    env: &Env<'_>,
) -> Result<Vec<Plan>, ErrorReply> {
    let personal =
        (env.relay.personal_channel && !identity.user.is_empty()).then(|| ServerSubscription {
            channel: format!("#{}", identity.user),
            ..ServerSubscription::default()
        });
    let mut plans: Vec<Plan> = Vec::new();
    for subscription in identity.subscriptions.iter().chain(&personal) {
        let (channel, namespace) =
            scoped_channel(&identity.account, &subscription.channel, env.relay)?;
        if plans.iter().any(|plan| plan.channel == channel) {
            continue;
        }
        let mut plan = Plan::new(channel, namespace, &subscription.overrides);
        plan.server_side = true;
        plan.data = subscription.data.clone();
        plan.info = if subscription.info.is_empty() {
            Arc::clone(info)
        } else {
            Arc::new(ClientInfo {
                chan_info: subscription.info.clone(),
                ..(**info).clone()
            })
        };
        if let Some(known) = recovery_request(request, &subscription.channel)
            && plan.recoverable
            && known.recover
        {
            plan.recover = Some((known.offset, known.epoch.clone()));
        }
        plan.receive_join_leave &= namespace.join_leave != Feature::Disabled;
        plans.push(plan);
    }
    if plans.len() > env.relay.limits.channels_per_client {
        return Err(codes::ERROR_LIMIT_EXCEEDED);
    }
    Ok(plans)
}
