//! The JSON form of the protocol: commands in.
//!
//! Unknown members are skipped and `null` counts as absent. Payloads stay raw and share the frame's memory. The
//! parser skips raw values without recursion and bounds the nesting of typed ones, so no input exhausts the stack.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::super::{
    Command, ConnectRequest, DecodeError, FilterNode, HistoryRequest, Payload, Position, Request,
    SubscribeRequest,
};

/// Decodes one message.
pub(in super::super) fn decode(message: &Bytes) -> Result<Command, DecodeError> {
    let text = simdutf8::basic::from_utf8(message).map_err(|_| DecodeError::NotUtf8)?;
    let wire: WireCommand<'_> = serde_json::from_str(text).map_err(|_| DecodeError::Malformed)?;
    let id = wire.id.unwrap_or_default();
    Ok(Command {
        id,
        request: wire.into_request(message),
    })
}

type Raw<'a> = Option<&'a RawValue>;

fn payload(frame: &Bytes, raw: Raw<'_>) -> Payload {
    raw.map_or_else(Bytes::new, |raw| frame.slice_ref(raw.get().as_bytes()))
}

#[derive(Deserialize)]
struct WireCommand<'a> {
    id: Option<u32>,
    #[serde(borrow)]
    connect: Option<WireConnect<'a>>,
    #[serde(borrow)]
    subscribe: Option<WireSubscribe<'a>>,
    unsubscribe: Option<WireChannel>,
    #[serde(borrow)]
    publish: Option<WirePublish<'a>>,
    presence: Option<WireChannel>,
    presence_stats: Option<WireChannel>,
    history: Option<WireHistory>,
    ping: Option<WireNothing>,
    #[serde(borrow)]
    send: Option<WireSend<'a>>,
    #[serde(borrow)]
    rpc: Option<WireRpc<'a>>,
    refresh: Option<WireRefresh>,
    sub_refresh: Option<WireSubRefresh>,
}

#[derive(Deserialize)]
struct WireNothing {}

#[derive(Deserialize)]
struct WireChannel {
    channel: Option<String>,
}

#[derive(Deserialize)]
struct WirePublish<'a> {
    channel: Option<String>,
    #[serde(borrow)]
    data: Raw<'a>,
}

#[derive(Deserialize)]
struct WireSend<'a> {
    #[serde(borrow)]
    data: Raw<'a>,
}

#[derive(Deserialize)]
struct WireRpc<'a> {
    method: Option<String>,
    #[serde(borrow)]
    data: Raw<'a>,
}

#[derive(Deserialize)]
struct WireRefresh {
    token: Option<String>,
}

#[derive(Deserialize)]
struct WireSubRefresh {
    channel: Option<String>,
    token: Option<String>,
}

#[derive(Deserialize)]
struct WirePosition {
    offset: Option<u64>,
    epoch: Option<String>,
}

#[derive(Deserialize)]
struct WireHistory {
    channel: Option<String>,
    limit: Option<i32>,
    since: Option<WirePosition>,
    reverse: Option<bool>,
}

#[derive(Deserialize)]
struct WireConnect<'a> {
    token: Option<String>,
    #[serde(borrow)]
    data: Raw<'a>,
    #[serde(borrow)]
    subs: Option<BTreeMap<String, Option<WireSubscribe<'a>>>>,
    name: Option<String>,
    version: Option<String>,
    headers: Option<BTreeMap<String, Option<String>>>,
    flag: Option<i64>,
}

#[derive(Deserialize)]
struct WireSubscribe<'a> {
    channel: Option<String>,
    token: Option<String>,
    recover: Option<bool>,
    epoch: Option<String>,
    offset: Option<u64>,
    #[serde(borrow)]
    data: Raw<'a>,
    positioned: Option<bool>,
    recoverable: Option<bool>,
    join_leave: Option<bool>,
    delta: Option<String>,
    tf: Option<WireFilter>,
    flag: Option<i64>,
    #[serde(rename = "type")]
    subscription_type: Option<i32>,
}

#[derive(Deserialize)]
struct WireFilter {
    op: Option<String>,
    key: Option<String>,
    cmp: Option<String>,
    val: Option<String>,
    vals: Option<Vec<String>>,
    nodes: Option<Vec<WireFilter>>,
}

impl WireCommand<'_> {
    /// Of several members the first in this order counts.
    fn into_request(self, frame: &Bytes) -> Request {
        if let Some(wire) = self.connect {
            Request::Connect(wire.into_request(frame))
        } else if self.ping.is_some() {
            Request::Ping
        } else if let Some(wire) = self.subscribe {
            Request::Subscribe(wire.into_request(frame))
        } else if let Some(wire) = self.unsubscribe {
            Request::Unsubscribe {
                channel: wire.channel.unwrap_or_default(),
            }
        } else if let Some(wire) = self.publish {
            Request::Publish {
                channel: wire.channel.unwrap_or_default(),
                data: payload(frame, wire.data),
            }
        } else if let Some(wire) = self.presence {
            Request::Presence {
                channel: wire.channel.unwrap_or_default(),
            }
        } else if let Some(wire) = self.presence_stats {
            Request::PresenceStats {
                channel: wire.channel.unwrap_or_default(),
            }
        } else if let Some(wire) = self.history {
            Request::History(wire.into_request())
        } else if let Some(wire) = self.rpc {
            Request::Rpc {
                method: wire.method.unwrap_or_default(),
                data: payload(frame, wire.data),
            }
        } else if let Some(wire) = self.send {
            Request::Send {
                data: payload(frame, wire.data),
            }
        } else if let Some(wire) = self.refresh {
            Request::Refresh {
                token: wire.token.unwrap_or_default(),
            }
        } else if let Some(wire) = self.sub_refresh {
            Request::SubRefresh {
                channel: wire.channel.unwrap_or_default(),
                token: wire.token.unwrap_or_default(),
            }
        } else {
            Request::Empty
        }
    }
}

impl WireConnect<'_> {
    fn into_request(self, frame: &Bytes) -> ConnectRequest {
        let subs = self.subs.unwrap_or_default().into_iter();
        let headers = self.headers.unwrap_or_default().into_iter();
        ConnectRequest {
            token: self.token.unwrap_or_default(),
            data: payload(frame, self.data),
            subs: subs
                .filter_map(|(name, sub)| Some((name, sub?.into_request(frame))))
                .collect(),
            name: self.name.unwrap_or_default(),
            version: self.version.unwrap_or_default(),
            headers: headers
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
            flag: self.flag.unwrap_or_default(),
        }
    }
}

impl WireSubscribe<'_> {
    fn into_request(self, frame: &Bytes) -> SubscribeRequest {
        SubscribeRequest {
            channel: self.channel.unwrap_or_default(),
            token: self.token.unwrap_or_default(),
            recover: self.recover.unwrap_or_default(),
            epoch: self.epoch.unwrap_or_default(),
            offset: self.offset.unwrap_or_default(),
            data: payload(frame, self.data),
            positioned: self.positioned.unwrap_or_default(),
            recoverable: self.recoverable.unwrap_or_default(),
            join_leave: self.join_leave.unwrap_or_default(),
            delta: self.delta.unwrap_or_default(),
            filter: self.tf.map(WireFilter::into_node),
            flag: self.flag.unwrap_or_default(),
            subscription_type: self.subscription_type.unwrap_or_default(),
        }
    }
}

impl WireHistory {
    fn into_request(self) -> HistoryRequest {
        HistoryRequest {
            channel: self.channel.unwrap_or_default(),
            limit: self.limit.unwrap_or_default(),
            since: self.since.map(|since| Position {
                offset: since.offset.unwrap_or_default(),
                epoch: since.epoch.unwrap_or_default().into(),
            }),
            reverse: self.reverse.unwrap_or_default(),
        }
    }
}

impl WireFilter {
    fn into_node(self) -> FilterNode {
        FilterNode {
            op: self.op.unwrap_or_default(),
            key: self.key.unwrap_or_default(),
            cmp: self.cmp.unwrap_or_default(),
            val: self.val.unwrap_or_default(),
            vals: self.vals.unwrap_or_default(),
            nodes: self
                .nodes
                .unwrap_or_default()
                .into_iter()
                .map(Self::into_node)
                .collect(),
        }
    }
}
