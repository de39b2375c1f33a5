//! Commands for connections of a user: what they mean is decided here, without I/O.

use std::sync::Arc;

use sluice_crds::config;

use super::answer::ApiError;
use super::message::{account_of, payload};
use super::request::{Disconnect, Refresh, Subscribe, Unsubscribe, Value};
use crate::auth::Overrides;
use crate::relay::codes;
use crate::relay::session::{Control, ServerSubscribe, scoped_channel};
use crate::relay::worker::Target;

/// A disconnect reason has to fit into a close frame with its code.
const REASON_BYTES_MAX: usize = 123;
/// Codes of the client protocol that SDKs act on.
const DISCONNECT_CODES: std::ops::RangeInclusive<u16> = 3_000..=4_999;

/// Whose connections, and what they have to do.
pub(super) type Directive = (Target, Control);

pub(super) fn subscribe(
    request: Subscribe,
    relay: &config::Relay,
) -> Result<Option<Directive>, ApiError> {
    let account = account_of(&request.account)?;
    // A forgotten user must not subscribe every anonymous client.
    if request.user.is_empty() && request.client.is_empty() {
        return Err(ApiError::BadRequest);
    }
    let (channel, _) = scoped_channel(account, &request.channel, relay)?;
    let set = |value: Option<Value>| value.map(|value| value.value);
    let control = Control::Subscribe(Box::new(ServerSubscribe {
        channel,
        info: payload(&request.info, &request.b64info)?,
        data: payload(&request.data, &request.b64data)?,
        expires_at: seconds(request.expire_at),
        recover: request
            .recover_since
            .map(|since| (since.offset, since.epoch)),
        overrides: Overrides {
            presence: set(request.overrides.presence),
            join_leave: set(request.overrides.join_leave),
            force_push_join_leave: set(request.overrides.force_push_join_leave),
            force_recovery: set(request.overrides.force_recovery),
            force_positioning: set(request.overrides.force_positioning),
        },
    }));
    Ok(directive(
        &request.account,
        &request.user,
        request.client,
        &request.session,
        control,
    ))
}

pub(super) fn unsubscribe(
    request: Unsubscribe,
    relay: &config::Relay,
) -> Result<Option<Directive>, ApiError> {
    let account = account_of(&request.account)?;
    let channel = match &*request.channel {
        "" => None,
        name => Some(scoped_channel(account, name, relay)?.0),
    };
    let control = Control::Unsubscribe { channel };
    Ok(directive(
        &request.account,
        &request.user,
        request.client,
        &request.session,
        control,
    ))
}

pub(super) fn disconnect(request: Disconnect) -> Result<Option<Directive>, ApiError> {
    account_of(&request.account)?;
    let disconnect = match request.disconnect {
        None => codes::DISCONNECT_FORCE,
        Some(given) => {
            let code = u16::try_from(given.code)
                .ok()
                .filter(|code| DISCONNECT_CODES.contains(code));
            let code = code
                .filter(|_| given.reason.len() <= REASON_BYTES_MAX)
                .ok_or(ApiError::BadRequest)?;
            codes::Disconnect {
                code,
                reason: given.reason.into(),
            }
        }
    };
    let control = Control::Disconnect(disconnect);
    let directive = directive(
        &request.account,
        &request.user,
        request.client,
        &request.session,
        control,
    );
    Ok(directive.map(|(target, control)| {
        (
            Target {
                except: request.whitelist,
                ..target
            },
            control,
        )
    }))
}

pub(super) fn refresh(request: Refresh, now_seconds: u64) -> Result<Option<Directive>, ApiError> {
    account_of(&request.account)?;
    let expires_at = seconds(request.expire_at);
    let over = request.expired || expires_at.is_some_and(|at| at <= now_seconds);
    let control = if over {
        Control::Disconnect(codes::DISCONNECT_EXPIRED)
    } else {
        Control::Refresh {
            expires_at,
            info: payload(&request.info, "")?,
        }
    };
    Ok(directive(
        &request.account,
        &request.user,
        request.client,
        &request.session,
        control,
    ))
}

/// `None` when the request can mean no connection.
fn directive(
    account: &str,
    user: &str,
    client: String,
    session: &str,
    control: Control,
) -> Option<Directive> {
    // Sessions are secrets of transports that the relay does not have, so none of its connections has one.
    if !session.is_empty() {
        return None;
    }
    let target = Target {
        account: Arc::from(account),
        user: Arc::from(user),
        client,
        except: Vec::new(),
    };
    Some((target, control))
}

/// Unix seconds; 0 and below mean never.
fn seconds(at: i64) -> Option<u64> {
    u64::try_from(at).ok().filter(|at| *at != 0)
}
