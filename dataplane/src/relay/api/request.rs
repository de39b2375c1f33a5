//! Requests of the server API: JSON to typed commands, nothing decided yet.
//!
//! Field names and defaults are Centrifugo's: an absent field, and `null`, mean the zero value; unknown fields are
//! ignored. Ours is `account`, absent or empty for the default account. Payloads are taken as they are written. What other
//! data planes must carry out as well is told to them in the same form.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use thiserror::Error;

use super::answer::ApiError;
use crate::relay::protocol::Payload;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Publish,
    Broadcast,
    Subscribe,
    Unsubscribe,
    Disconnect,
    Refresh,
    Presence,
    PresenceStats,
    History,
    HistoryRemove,
    Channels,
    Info,
    Rpc,
}

impl Method {
    const ALL: [Self; 13] = [
        Self::Publish,
        Self::Broadcast,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Disconnect,
        Self::Refresh,
        Self::Presence,
        Self::PresenceStats,
        Self::History,
        Self::HistoryRemove,
        Self::Channels,
        Self::Info,
        Self::Rpc,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Broadcast => "broadcast",
            Self::Subscribe => "subscribe",
            Self::Unsubscribe => "unsubscribe",
            Self::Disconnect => "disconnect",
            Self::Refresh => "refresh",
            Self::Presence => "presence",
            Self::PresenceStats => "presence_stats",
            Self::History => "history",
            Self::HistoryRemove => "history_remove",
            Self::Channels => "channels",
            Self::Info => "info",
            Self::Rpc => "rpc",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// The body is not JSON of the method's shape. The text is for the caller, who sent the body.
#[derive(Debug, Error)]
#[error("malformed request: {0}")]
pub(super) struct Malformed(#[from] serde_json::Error);

#[derive(Debug)]
pub(super) enum Command {
    Publish(Publish),
    Broadcast(Publish),
    Subscribe(Subscribe),
    Unsubscribe(Unsubscribe),
    Disconnect(Disconnect),
    Refresh(Refresh),
    Presence(ChannelRequest),
    PresenceStats(ChannelRequest),
    History(History),
    HistoryRemove(ChannelRequest),
    Channels(Channels),
    Info,
    Rpc(Rpc),
}

impl Command {
    pub(super) fn parse(method: Method, body: &[u8]) -> Result<Self, Malformed> {
        Ok(match method {
            Method::Publish => Self::Publish(object(body)?),
            Method::Broadcast => Self::Broadcast(object(body)?),
            Method::Subscribe => Self::Subscribe(object(body)?),
            Method::Unsubscribe => Self::Unsubscribe(object(body)?),
            Method::Disconnect => Self::Disconnect(object(body)?),
            Method::Refresh => Self::Refresh(object(body)?),
            Method::Presence => Self::Presence(object(body)?),
            Method::PresenceStats => Self::PresenceStats(object(body)?),
            Method::History => Self::History(object(body)?),
            Method::HistoryRemove => Self::HistoryRemove(object(body)?),
            Method::Channels => Self::Channels(object(body)?),
            Method::Info => {
                object::<Info>(body)?;
                Self::Info
            }
            Method::Rpc => Self::Rpc(object(body)?),
        })
    }
}

/// Publish, and broadcast: the same but for where to.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Publish {
    #[serde(deserialize_with = "or_default")]
    pub(super) account: String,
    /// Publish only.
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    /// Broadcast only.
    #[serde(deserialize_with = "or_default")]
    pub(super) channels: Vec<String>,
    /// A `null` here is data.
    pub(super) data: Json,
    #[serde(deserialize_with = "or_default")]
    pub(super) b64data: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) skip_history: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) tags: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) idempotency_key: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) version: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) version_epoch: String,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Subscribe {
    #[serde(deserialize_with = "or_default")]
    pub(super) account: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) session: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) expire_at: i64,
    #[serde(deserialize_with = "or_default")]
    pub(super) info: Json,
    #[serde(deserialize_with = "or_default")]
    pub(super) b64info: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) data: Json,
    #[serde(deserialize_with = "or_default")]
    pub(super) b64data: String,
    pub(super) recover_since: Option<Since>,
    #[serde(rename = "override", deserialize_with = "or_default")]
    pub(super) overrides: Override,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Override {
    pub(super) presence: Option<Value>,
    pub(super) join_leave: Option<Value>,
    pub(super) force_recovery: Option<Value>,
    pub(super) force_positioning: Option<Value>,
    pub(super) force_push_join_leave: Option<Value>,
}

/// Present means set; an empty object sets `false`.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Value {
    #[serde(deserialize_with = "or_default")]
    pub(super) value: bool,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Since {
    #[serde(deserialize_with = "or_default")]
    pub(super) offset: u64,
    #[serde(deserialize_with = "or_default")]
    pub(super) epoch: String,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Unsubscribe {
    #[serde(deserialize_with = "or_default")]
    pub(super) account: String,
    /// Empty for all channels.
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) session: String,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Disconnect {
    #[serde(deserialize_with = "or_default")]
    pub(super) account: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) session: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) whitelist: Vec<String>,
    pub(super) disconnect: Option<Reason>,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Reason {
    #[serde(deserialize_with = "or_default")]
    pub(super) code: u32,
    #[serde(deserialize_with = "or_default")]
    pub(super) reason: String,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Refresh {
    #[serde(deserialize_with = "or_default")]
    pub(super) account: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) user: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) client: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) session: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) expired: bool,
    #[serde(deserialize_with = "or_default")]
    pub(super) expire_at: i64,
    #[serde(deserialize_with = "or_default")]
    pub(super) info: Json,
}

/// Presence, presence stats and history remove.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ChannelRequest {
    #[serde(deserialize_with = "or_default")]
    pub(super) account: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct History {
    #[serde(deserialize_with = "or_default")]
    pub(super) account: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) channel: String,
    /// 0: position only; negative: all.
    #[serde(deserialize_with = "or_default")]
    pub(super) limit: i32,
    pub(super) since: Option<Since>,
    #[serde(deserialize_with = "or_default")]
    pub(super) reverse: bool,
}

#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Channels {
    #[serde(deserialize_with = "or_default")]
    pub(super) account: String,
    /// Empty for all.
    #[serde(deserialize_with = "or_default")]
    pub(super) pattern: String,
}

#[derive(Deserialize)]
struct Info {}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Rpc {
    #[serde(deserialize_with = "or_default")]
    pub(super) method: String,
}

/// Several commands in one request.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) commands: Vec<BatchCommand>,
    pub(super) parallel: bool,
}

/// The error is the command's own: the others of the batch are carried out.
pub(super) type BatchCommand = Result<(Method, Command), ApiError>;

impl Batch {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Raw<'a> {
            #[serde(borrow, deserialize_with = "or_default")]
            commands: Vec<Option<BTreeMap<String, &'a RawValue>>>,
            #[serde(deserialize_with = "or_default")]
            parallel: bool,
        }
        let raw: Raw<'_> = object(body)?;
        let commands = raw.commands.into_iter().map(|command| {
            let Some(command) = command else {
                return Ok(Err(ApiError::BadRequest));
            };
            let present = |method: &Method| {
                command
                    .get(method.name())
                    .filter(|raw| raw.get() != "null")
                    .is_some()
            };
            let Some(method) = Method::ALL.into_iter().find(present) else {
                return Ok(Err(ApiError::NotFound));
            };
            let command = Command::parse(method, command[method.name()].get().as_bytes())?;
            Ok(Ok((method, command)))
        });
        Ok(Self {
            commands: commands.collect::<Result<_, Malformed>>()?,
            parallel: raw.parallel,
        })
    }
}

/// One command of the old form of the API: any number of them in a body, the method named inside.
#[derive(Debug)]
pub(super) struct OldCommand {
    pub(super) id: u32,
    pub(super) command: Result<Command, ApiError>,
}

impl OldCommand {
    pub(super) fn parse_all(body: &[u8]) -> Result<Vec<Self>, Malformed> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Raw<'a> {
            #[serde(deserialize_with = "or_default")]
            id: u32,
            #[serde(deserialize_with = "or_default")]
            method: String,
            #[serde(borrow)]
            params: Option<&'a RawValue>,
        }
        let commands = serde_json::Deserializer::from_slice(body).into_iter::<Raw<'_>>();
        let commands = commands.map(|raw| {
            let Raw { id, method, params } = raw?;
            let params = params.map_or("{}", RawValue::get).as_bytes();
            let command = match Method::named(&method) {
                Some(method) => Command::parse(method, params).map_err(|_| ApiError::BadRequest),
                None => Err(ApiError::NotFound),
            };
            Ok(Self { id, command })
        });
        commands.collect()
    }
}

/// A JSON value as it was written; empty when absent.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Json(pub(super) Payload);

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: &RawValue = Deserialize::deserialize(deserializer)?;
        let text = raw.get().as_bytes();
        if !text.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            return Ok(Self(Payload::copy_from_slice(text)));
        }
        // A line break ends a message of the JSON client protocol. In valid JSON it stands between tokens only,
        // where a blank means the same.
        let blank = |byte: &u8| {
            if matches!(byte, b'\n' | b'\r') {
                b' '
            } else {
                *byte
            }
        };
        Ok(Self(text.iter().map(blank).collect()))
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: Option<&RawValue> = match &*self.0 {
            b"" => None,
            text => Some(serde_json::from_slice(text).map_err(serde::ser::Error::custom)?),
        };
        raw.serialize(serializer)
    }
}

/// Serde would take an array for a struct, field by field.
fn object<'de, T: Deserialize<'de>>(body: &'de [u8]) -> Result<T, serde_json::Error> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(serde::de::Error::custom("not an object"));
    }
    serde_json::from_slice(body)
}

fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
