//! The client protocol (Centrifugo's, version 2) as plain types.
//!
//! Field meanings follow `proto/client.proto`; JSON uses the same names. `json` and `protobuf` translate; nothing
//! else in the relay knows an encoding. Payloads (`data`, `info`) are raw JSON for JSON clients and opaque bytes
//! for Protobuf clients, and pass through untouched.

mod codec;
mod json;
mod protobuf;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

pub use codec::{Commands, DecodeError, NotJson, encode_push, encode_reply, json_string, ping};

/// The encoding a connection chose at the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    Json,
    Protobuf,
}

/// Application bytes. Empty means absent.
pub type Payload = Bytes;

/// Publication tags, in the order given.
pub type Tags = Vec<(Arc<str>, Arc<str>)>;

/// A position in a channel's stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    pub offset: u64,
    pub epoch: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Command {
    /// 0 for commands that want no reply.
    pub id: u32,
    pub request: Request,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub enum Request {
    /// An empty command: the client's pong (id 0).
    #[default]
    Empty,
    Connect(ConnectRequest),
    Subscribe(SubscribeRequest),
    Unsubscribe {
        channel: String,
    },
    Publish {
        channel: String,
        data: Payload,
    },
    Presence {
        channel: String,
    },
    PresenceStats {
        channel: String,
    },
    History(HistoryRequest),
    Ping,
    Send {
        data: Payload,
    },
    Rpc {
        method: String,
        data: Payload,
    },
    Refresh {
        token: String,
    },
    SubRefresh {
        channel: String,
        token: String,
    },
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConnectRequest {
    pub token: String,
    pub data: Payload,
    /// Positions for server-side subscriptions, by channel.
    pub subs: Vec<(String, SubscribeRequest)>,
    pub name: String,
    pub version: String,
    pub headers: Vec<(String, String)>,
    pub flag: i64,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct SubscribeRequest {
    pub channel: String,
    pub token: String,
    pub recover: bool,
    pub epoch: String,
    pub offset: u64,
    pub data: Payload,
    pub positioned: bool,
    pub recoverable: bool,
    pub join_leave: bool,
    /// Empty, or the name of a delta format.
    pub delta: String,
    pub filter: Option<FilterNode>,
    pub flag: i64,
    /// Not 0: map or shared-poll subscriptions, which the relay does not have.
    pub subscription_type: i32,
}

/// [`SubscribeRequest::flag`]: the server may answer with a numeric channel id and use it in pushes.
pub const FLAG_CHANNEL_COMPACTION: i64 = 1;
/// [`SubscribeRequest::flag`]: answer error 112 instead of `recovered: false`.
pub const FLAG_REJECT_UNRECOVERED: i64 = 2;

/// A filter over publication tags, as sent by the client (unchecked).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FilterNode {
    pub op: String,
    pub key: String,
    pub cmp: String,
    pub val: String,
    pub vals: Vec<String>,
    pub nodes: Vec<FilterNode>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct HistoryRequest {
    pub channel: String,
    /// 0: position only; negative: no limit but the server's.
    pub limit: i32,
    pub since: Option<Position>,
    pub reverse: bool,
}

/// Who is behind a connection.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ClientInfo {
    pub user: Arc<str>,
    pub client: Arc<str>,
    pub conn_info: Payload,
    pub chan_info: Payload,
}

/// A message of a channel.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Publication {
    pub data: Payload,
    /// Set when a client published, absent for the server API.
    pub info: Option<Arc<ClientInfo>>,
    /// 0 without history.
    pub offset: u64,
    pub tags: Tags,
    /// `data` is a delta against the previous publication sent on this subscription.
    pub delta: bool,
    /// Milliseconds since the Unix epoch; 0 when not known.
    pub time_ms: i64,
    /// Sent with the first publication of a stream only.
    pub epoch: Option<Arc<str>>,
}

/// A protocol error in a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorReply {
    pub code: u32,
    pub message: &'static str,
    pub temporary: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    pub id: u32,
    pub result: Result<ResultBody, ErrorReply>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum ResultBody {
    Connect(ConnectResult),
    Subscribe(SubscribeResult),
    Unsubscribe,
    Publish,
    Presence(Vec<Arc<ClientInfo>>),
    PresenceStats {
        num_clients: u32,
        num_users: u32,
    },
    History {
        publications: Vec<Publication>,
        position: Position,
    },
    Ping,
    Rpc {
        data: Payload,
    },
    Refresh(RefreshResult),
    SubRefresh {
        expires: bool,
        ttl: u32,
    },
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct ConnectResult {
    pub client: Arc<str>,
    pub version: String,
    pub expires: bool,
    /// Seconds.
    pub ttl: u32,
    pub data: Payload,
    pub subs: Vec<(String, SubscribeResult)>,
    /// Seconds between server pings; 0 for none.
    pub ping: u32,
    pub pong: bool,
    /// Milliseconds since the Unix epoch.
    pub time_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct SubscribeResult {
    pub expires: bool,
    pub ttl: u32,
    pub recoverable: bool,
    pub positioned: bool,
    pub position: Position,
    pub publications: Vec<Publication>,
    pub recovered: bool,
    pub was_recovering: bool,
    pub data: Payload,
    pub delta: bool,
    /// Channel id for compaction; 0 for none.
    pub id: i64,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct RefreshResult {
    pub client: Arc<str>,
    pub version: String,
    pub expires: bool,
    pub ttl: u32,
}

/// How a push names its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelRef<'a> {
    Name(&'a str),
    /// Negotiated by channel compaction.
    Id(i64),
}

/// A message the server sends by itself.
#[derive(Debug, Clone, PartialEq)]
pub enum Push<'a> {
    Publication {
        channel: ChannelRef<'a>,
        publication: &'a Publication,
    },
    Join {
        channel: ChannelRef<'a>,
        info: &'a ClientInfo,
    },
    Leave {
        channel: ChannelRef<'a>,
        info: &'a ClientInfo,
    },
    Unsubscribe {
        channel: ChannelRef<'a>,
        code: u32,
        reason: &'a str,
    },
    /// A server-side subscription has begun.
    Subscribe {
        channel: &'a str,
        recoverable: bool,
        positioned: bool,
        position: &'a Position,
        data: &'a Payload,
    },
    /// A message outside of channels.
    Message {
        data: &'a Payload,
    },
    Refresh {
        expires: bool,
        ttl: u32,
    },
}
