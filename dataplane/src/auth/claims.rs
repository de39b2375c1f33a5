//! Claims of a verified token to an identity.
//!
//! Pure, and called only with claims whose signature was checked, so "expired" is never said of a forged token.
//! Claim names and their meaning are those of the Centrifugo client protocol. A claim of the wrong type makes
//! the token invalid; `null` counts as absent.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{self, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{AuthError, Identity, Overrides, ServerSubscription, SubscriptionIdentity};
use crate::relay::channel::account_is_valid;

#[cfg(test)]
mod tests;

/// Longest time until a client has to show a new token, whatever the token says.
const LIFETIME_MAX_S: u64 = 365 * 24 * 60 * 60;

/// What tokens have to say to be accepted, next to their signature.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    pub(super) audience: Option<String>,
    pub(super) issuer: Option<String>,
    pub(super) account_claim: Option<String>,
}

/// The claims that connection and subscription tokens have in common.
#[derive(Deserialize)]
struct CommonClaims {
    sub: Option<String>,
    exp: Option<Date>,
    nbf: Option<Date>,
    aud: Option<Audience>,
    iss: Option<String>,
    expire_at: Option<i64>,
    b64info: Option<String>,
    /// Subscription tokens only; a connection token that names a channel is a mistaken subscription token.
    channel: Option<String>,
}

#[derive(Deserialize)]
struct ConnectionClaims<'a> {
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    channels: Option<Vec<String>>,
    #[serde(borrow)]
    subs: Option<BTreeMap<String, Option<SubscriptionClaim<'a>>>>,
}

#[derive(Deserialize, Default)]
struct SubscriptionClaim<'a> {
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    b64info: Option<String>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    b64data: Option<String>,
    #[serde(rename = "override")]
    overrides: Option<OverrideClaims>,
}

#[derive(Deserialize)]
struct SubscriptionTokenClaims<'a> {
    client: Option<String>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    #[serde(rename = "override")]
    overrides: Option<OverrideClaims>,
}

#[derive(Deserialize)]
struct OverrideClaims {
    presence: Option<Switch>,
    join_leave: Option<Switch>,
    force_push_join_leave: Option<Switch>,
    force_recovery: Option<Switch>,
    force_positioning: Option<Switch>,
}

#[derive(Deserialize)]
struct Switch {
    value: Option<bool>,
}

/// Seconds since 1970, with or without a fraction, which is cut off.
struct Date(i64);

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

pub(super) fn connection(claims: &[u8], rules: &Rules, now: u64) -> Result<Identity, AuthError> {
    let common: CommonClaims = parse(claims)?;
    rules.check_origin(&common)?;
    if common
        .channel
        .as_deref()
        .is_some_and(|channel| !channel.is_empty())
    {
        return Err(AuthError::invalid(
            "channel: belongs into subscription tokens",
        ));
    }
    let expires_at = common.lifetime(now)?;
    let own: ConnectionClaims<'_> = parse(claims)?;
    Ok(Identity {
        account: rules.account(claims)?,
        info: payload("info", own.info, common.b64info.as_deref())?,
        user: common.sub.unwrap_or_default().into(),
        expires_at,
        subscriptions: subscriptions(own.subs, own.channels)?,
    })
}

pub(super) fn subscription(
    claims: &[u8],
    rules: &Rules,
    now: u64,
) -> Result<SubscriptionIdentity, AuthError> {
    let common: CommonClaims = parse(claims)?;
    rules.check_origin(&common)?;
    let expires_at = common.lifetime(now)?;
    let own: SubscriptionTokenClaims<'_> = parse(claims)?;
    let info = payload("info", own.info, common.b64info.as_deref())?;
    let channel = common.channel.unwrap_or_default();
    if channel.is_empty() {
        return Err(AuthError::invalid(
            "channel: missing in a subscription token",
        ));
    }
    Ok(SubscriptionIdentity {
        account: rules.account(claims)?,
        user: common.sub.unwrap_or_default().into(),
        channel,
        client: own.client.unwrap_or_default(),
        info,
        expires_at,
        overrides: own.overrides.map(Overrides::from).unwrap_or_default(),
    })
}

impl Rules {
    fn check_origin(&self, claims: &CommonClaims) -> Result<(), AuthError> {
        if let Some(wanted) = &self.audience {
            let is_meant = match &claims.aud {
                Some(Audience::One(one)) => one == wanted,
                Some(Audience::Several(several)) => several.contains(wanted),
                None => false,
            };
            if !is_meant {
                return Err(AuthError::invalid("aud: not the configured audience"));
            }
        }
        if self.issuer.is_some() && self.issuer != claims.iss {
            return Err(AuthError::invalid("iss: not the configured issuer"));
        }
        Ok(())
    }

    /// Empty when tokens do not name the account.
    fn account(&self, claims: &[u8]) -> Result<Arc<str>, AuthError> {
        let Some(name) = &self.account_claim else {
            return Ok(Arc::default());
        };
        let invalid = |what: &str| AuthError::Invalid(format!("{name}: {what}"));
        let mut json = serde_json::Deserializer::from_slice(claims);
        let found = json
            .deserialize_map(ClaimNamed(name))
            .map_err(|error| AuthError::Invalid(format!("claims: {error}")))?
            .filter(|value| value.get() != "null")
            .ok_or_else(|| invalid("missing, and it names the account"))?;
        let account = account_name(found.get())
            .ok_or_else(|| invalid("neither a string nor a whole number"))?;
        if !account_is_valid(&account) {
            return Err(invalid("not usable as an account name"));
        }
        Ok(account.into())
    }
}

impl CommonClaims {
    /// When the identity ends; `None` for never.
    fn lifetime(&self, now: u64) -> Result<Option<u64>, AuthError> {
        let now_signed = i64::try_from(now).unwrap_or(i64::MAX);
        if self.exp.as_ref().is_some_and(|exp| exp.0 <= now_signed) {
            return Err(AuthError::Expired);
        }
        // Not valid yet is told like expired: the client then asks for another token, which is what helps when
        // the issuer's clock is ahead.
        if self.nbf.as_ref().is_some_and(|nbf| nbf.0 > now_signed) {
            return Err(AuthError::Expired);
        }
        let ends = match self.expire_at {
            Some(expire_at) => Some(expire_at).filter(|at| *at > 0),
            None => self.exp.as_ref().map(|exp| exp.0),
        };
        let Some(ends) = ends else { return Ok(None) };
        if ends <= now_signed {
            return Err(AuthError::Expired);
        }
        Ok(Some(
            ends.unsigned_abs().min(now.saturating_add(LIFETIME_MAX_S)),
        ))
    }
}

impl From<OverrideClaims> for Overrides {
    fn from(claims: OverrideClaims) -> Self {
        let set = |switch: Option<Switch>| switch.map(|switch| switch.value.unwrap_or_default());
        Self {
            presence: set(claims.presence),
            join_leave: set(claims.join_leave),
            force_push_join_leave: set(claims.force_push_join_leave),
            force_recovery: set(claims.force_recovery),
            force_positioning: set(claims.force_positioning),
        }
    }
}

/// `subs` says all that `channels` can say; where a token has both, `channels` is not looked at.
fn subscriptions(
    subs: Option<BTreeMap<String, Option<SubscriptionClaim<'_>>>>,
    channels: Option<Vec<String>>,
) -> Result<Vec<ServerSubscription>, AuthError> {
    let subs = subs.unwrap_or_default();
    if subs.is_empty() {
        let mut seen = HashSet::new();
        let channels = channels
            .unwrap_or_default()
            .into_iter()
            .filter(|channel| seen.insert(channel.clone()));
        return Ok(channels
            .map(|channel| ServerSubscription {
                channel,
                ..Default::default()
            })
            .collect());
    }
    let subscription = |(channel, claim): (String, Option<SubscriptionClaim<'_>>)| {
        let claim = claim.unwrap_or_default();
        Ok(ServerSubscription {
            channel,
            info: payload("info", claim.info, claim.b64info.as_deref())?,
            data: payload("data", claim.data, claim.b64data.as_deref())?,
            overrides: claim.overrides.map(Overrides::from).unwrap_or_default(),
        })
    };
    subs.into_iter().map(subscription).collect()
}

/// The bytes of a value that is given as JSON or, taking precedence, as base64.
fn payload(name: &str, json: Option<&RawValue>, base64: Option<&str>) -> Result<Bytes, AuthError> {
    match (base64, json) {
        (Some(base64), _) if !base64.is_empty() => STANDARD
            .decode(base64)
            .map(Bytes::from)
            .map_err(|error| AuthError::Invalid(format!("b64{name}: {error}"))),
        (_, Some(json)) => Ok(one_line(json.get())),
        (_, None) => Ok(Bytes::new()),
    }
}

/// JSON as written, but for line breaks, which only occur between tokens (in strings they are escaped): the
/// client protocol separates its frames by them.
fn one_line(json: &str) -> Bytes {
    let mut bytes = json.as_bytes().to_vec();
    for byte in &mut bytes {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    bytes.into()
}

/// Whole numbers only: `1e3` and `1000` must not be two accounts.
fn account_name(json: &str) -> Option<String> {
    if json.starts_with('"') {
        return serde_json::from_str(json).ok();
    }
    let whole = json.parse::<i64>().map(|number| number.to_string());
    whole
        .or_else(|_| json.parse::<u64>().map(|number| number.to_string()))
        .ok()
}

fn parse<'a, T: Deserialize<'a>>(claims: &'a [u8]) -> Result<T, AuthError> {
    serde_json::from_slice(claims).map_err(|error| AuthError::Invalid(format!("claims: {error}")))
}

/// Finds the claim of one name that is known only from the configuration.
struct ClaimNamed<'n>(&'n str);

impl<'de> Visitor<'de> for ClaimNamed<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != self.0 {
                map.next_value::<IgnoredAny>()?;
            } else if found.replace(map.next_value::<&RawValue>()?).is_some() {
                // Readers differ in which of two they take, and this one separates accounts.
                return Err(de::Error::custom("the account claim occurs twice"));
            }
        }
        Ok(found)
    }
}

impl<'de> Deserialize<'de> for Date {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DateVisitor)
    }
}

struct DateVisitor;

impl Visitor<'_> for DateVisitor {
    type Value = Date;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seconds since 1970")
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Date, E> {
        Ok(Date(seconds))
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Date, E> {
        Ok(Date(i64::try_from(seconds).unwrap_or(i64::MAX)))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the cast saturates, which is what far dates need"
    )]
    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Date, E> {
        Ok(Date(seconds.floor() as i64))
    }

    /// Some libraries write dates as strings.
    fn visit_str<E: de::Error>(self, seconds: &str) -> Result<Date, E> {
        match seconds.parse::<f64>() {
            Ok(number) if number.is_finite() => self.visit_f64(number),
            Ok(_) | Err(_) => Err(E::invalid_value(de::Unexpected::Str(seconds), &self)),
        }
    }
}
