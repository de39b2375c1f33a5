//! Expiring connections and subscriptions: refresh commands and what happens without them.

use super::{Ask, Effect, Env, Live, Session, Step, VerifiedSubscribe, ttl_seconds};
use crate::auth::{AuthError, Identity};
use crate::relay::channel::Channel;
use crate::relay::codes;
use crate::relay::protocol::{RefreshResult, ResultBody};

#[derive(Debug)]
pub struct RefreshContext {
    id: u32,
}

impl Session {
    pub(super) fn refresh(&mut self, id: u32, token: String) -> Step {
        if token.is_empty() {
            return Step::close(codes::DISCONNECT_BAD_REQUEST);
        }
        Step::ask(Ask::Refresh {
            token,
            context: RefreshContext { id },
        })
    }

    pub fn refreshed(
        &mut self,
        context: RefreshContext,
        identity: Result<Identity, AuthError>,
        env: &Env<'_>,
    ) -> Step {
        let client = self.client.clone();
        let Some(live) = self.live_mut() else {
            return Step::none();
        };
        let identity = match identity {
            Ok(identity) => identity,
            // Reconnectable: the SDK comes back with a fresh token, which an error reply would not make it do.
            Err(AuthError::Expired) => return Step::close(codes::DISCONNECT_EXPIRED),
            Err(AuthError::Invalid(_)) => return Step::close(codes::DISCONNECT_INVALID_TOKEN),
            Err(AuthError::Unavailable(_)) => {
                return Step::error(context.id, codes::ERROR_INTERNAL);
            }
        };
        // A connection never changes hands, and never changes accounts.
        if identity.user != live.info.user || identity.account != live.account {
            return Step::close(codes::DISCONNECT_INVALID_TOKEN);
        }
        live.expires_at = identity.expires_at;
        Step::reply(
            context.id,
            ResultBody::Refresh(RefreshResult {
                client,
                version: String::new(),
                expires: live.expires_at.is_some(),
                ttl: live
                    .expires_at
                    .map_or(0, |at| ttl_seconds(at, env.now_seconds())),
            }),
        )
    }

    /// When `expire` has something to do: unix milliseconds.
    pub fn expiry_due_ms(&self, env: &Env<'_>) -> Option<u64> {
        let live = self.live()?;
        let earliest = live
            .subscriptions
            .iter()
            .filter_map(|subscription| subscription.expires_at);
        let earliest = earliest.chain(live.expires_at).min()?;
        Some(over_at_ms(earliest, env))
    }

    /// Ends what has been expired for longer than the grace time.
    pub fn expire(&mut self, env: &Env<'_>) -> Step {
        let Some(live) = self.live_mut() else {
            return Step::none();
        };
        let over = |at: Option<u64>| at.is_some_and(|at| over_at_ms(at, env) <= env.now_ms);
        if over(live.expires_at) {
            return Step::close(codes::DISCONNECT_EXPIRED);
        }
        let mut step = Step::none();
        while let Some(index) = live
            .subscriptions
            .iter()
            .position(|subscription| over(subscription.expires_at))
        {
            let subscription = live.subscriptions.swap_remove(index);
            if subscription.server_side {
                live.subscriptions.push(subscription);
                return Step::close(codes::DISCONNECT_SUB_EXPIRED);
            }
            let (code, reason) = codes::UNSUBSCRIBE_EXPIRED;
            let channel = subscription.channel.clone();
            step.effects.push(Effect::PushUnsubscribe {
                channel,
                code,
                reason,
            });
            step.effects.push(Effect::Leave(subscription));
        }
        step
    }
}

/// When the grace time of what expires at `at` (unix seconds) is over. Tokens may name any time.
fn over_at_ms(at: u64, env: &Env<'_>) -> u64 {
    let grace = env.relay.authentication.expiry_grace.as_millis();
    at.saturating_mul(1_000)
        .saturating_add(u64::try_from(grace).unwrap_or(u64::MAX))
}

impl Live {
    pub(super) fn sub_refresh(&self, id: u32, channel: &str, token: String, env: &Env<'_>) -> Step {
        if channel.is_empty() {
            return Step::close(codes::DISCONNECT_BAD_REQUEST);
        }
        let channel = match self.channel(channel, env) {
            Ok((channel, _)) => channel,
            Err(error) => return Step::error(id, error),
        };
        let Some(subscription) = self.subscription(&channel) else {
            return Step::error(id, codes::ERROR_PERMISSION_DENIED);
        };
        if token.is_empty() || subscription.server_side {
            return Step::error(id, codes::ERROR_BAD_REQUEST);
        }
        Step::ask(Ask::VerifySubscription {
            token,
            context: VerifiedSubscribe::SubRefresh { id, channel },
        })
    }

    pub(super) fn sub_refreshed(
        &mut self,
        id: u32,
        channel: &Channel,
        expires_at: Option<u64>,
        env: &Env<'_>,
    ) -> Step {
        let Some(subscription) = self
            .subscriptions
            .iter_mut()
            .find(|subscription| subscription.channel == *channel)
        else {
            return Step::error(id, codes::ERROR_PERMISSION_DENIED);
        };
        subscription.expires_at = expires_at;
        Step::reply(
            id,
            ResultBody::SubRefresh {
                expires: expires_at.is_some(),
                ttl: expires_at.map_or(0, |at| ttl_seconds(at, env.now_seconds())),
            },
        )
    }
}
