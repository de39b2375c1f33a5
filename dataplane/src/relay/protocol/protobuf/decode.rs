//! The Protobuf form of the protocol: commands in.
//!
//! Payloads share the frame's memory. The generated decoder bounds the nesting of messages, so no input exhausts
//! the stack.

use bytes::Bytes;
use prost::Message;
use sluice_proto::client as wire;

use super::super::{
    Command, ConnectRequest, DecodeError, FilterNode, HistoryRequest, Position, Request,
    SubscribeRequest,
};

/// Decodes one message, without the length before it.
pub(in super::super) fn decode(message: Bytes) -> Result<Command, DecodeError> {
    if message.is_empty() {
        return Ok(Command::default());
    }
    let command = wire::Command::decode(message).map_err(|_| DecodeError::Malformed)?;
    Ok(Command {
        id: command.id,
        request: request(command),
    })
}

/// Of several members the first in this order counts.
fn request(command: wire::Command) -> Request {
    if let Some(wire) = command.connect {
        Request::Connect(connect(wire))
    } else if command.ping.is_some() {
        Request::Ping
    } else if let Some(wire) = command.subscribe {
        Request::Subscribe(subscribe(wire))
    } else if let Some(wire) = command.unsubscribe {
        Request::Unsubscribe {
            channel: wire.channel,
        }
    } else if let Some(wire) = command.publish {
        Request::Publish {
            channel: wire.channel,
            data: wire.data,
        }
    } else if let Some(wire) = command.presence {
        Request::Presence {
            channel: wire.channel,
        }
    } else if let Some(wire) = command.presence_stats {
        Request::PresenceStats {
            channel: wire.channel,
        }
    } else if let Some(wire) = command.history {
        Request::History(history(wire))
    } else if let Some(wire) = command.rpc {
        Request::Rpc {
            method: wire.method,
            data: wire.data,
        }
    } else if let Some(wire) = command.send {
        Request::Send { data: wire.data }
    } else if let Some(wire) = command.refresh {
        Request::Refresh { token: wire.token }
    } else if let Some(wire) = command.sub_refresh {
        Request::SubRefresh {
            channel: wire.channel,
            token: wire.token,
        }
    } else {
        Request::Empty
    }
}

fn connect(wire: wire::ConnectRequest) -> ConnectRequest {
    ConnectRequest {
        token: wire.token,
        data: wire.data,
        subs: wire
            .subs
            .into_iter()
            .map(|(name, sub)| (name, subscribe(sub)))
            .collect(),
        name: wire.name,
        version: wire.version,
        headers: wire.headers.into_iter().collect(),
        flag: wire.flag,
    }
}

fn subscribe(wire: wire::SubscribeRequest) -> SubscribeRequest {
    SubscribeRequest {
        channel: wire.channel,
        token: wire.token,
        recover: wire.recover,
        epoch: wire.epoch,
        offset: wire.offset,
        data: wire.data,
        positioned: wire.positioned,
        recoverable: wire.recoverable,
        join_leave: wire.join_leave,
        delta: wire.delta,
        filter: wire.tf.map(filter_node),
        flag: wire.flag,
        subscription_type: wire.r#type,
    }
}

fn history(wire: wire::HistoryRequest) -> HistoryRequest {
    HistoryRequest {
        channel: wire.channel,
        limit: wire.limit,
        since: wire.since.map(|since| Position {
            offset: since.offset,
            epoch: since.epoch.into(),
        }),
        reverse: wire.reverse,
    }
}

fn filter_node(wire: wire::FilterNode) -> FilterNode {
    FilterNode {
        op: wire.op,
        key: wire.key,
        cmp: wire.cmp,
        val: wire.val,
        vals: wire.vals,
        nodes: wire.nodes.into_iter().map(filter_node).collect(),
    }
}
