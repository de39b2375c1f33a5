//! The Protobuf form of the protocol: messages out. `decode` has commands in.
//!
//! Written by hand into the buffer: a publication is encoded once per channel and encoding, on the hot path.
//! Field numbers follow `proto/client.proto`; zero values are left out.

mod decode;

use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use super::{
    ChannelRef, ClientInfo, ConnectResult, ErrorReply, Publication, Push, RefreshResult, Reply,
    ResultBody, SubscribeResult,
};

pub(super) use decode::decode;

/// What a publication usually needs beside its data; only a guess for the width of a length.
const OVERHEAD_BYTES_GUESS: usize = 40;

pub(super) fn encode_reply(reply: &Reply, out: &mut Vec<u8>) {
    delimited(out, OVERHEAD_BYTES_GUESS, |out| {
        uint(out, 1, u64::from(reply.id));
        match &reply.result {
            Ok(body) => result_body(out, body),
            Err(error) => nested(out, 2, OVERHEAD_BYTES_GUESS, |out| error_reply(out, error)),
        }
    });
}

pub(super) fn encode_push(push: &Push<'_>, out: &mut Vec<u8>) {
    let guess = match push {
        Push::Publication { publication, .. } => publication.data.len() + OVERHEAD_BYTES_GUESS,
        Push::Message { data } | Push::Subscribe { data, .. } => data.len() + OVERHEAD_BYTES_GUESS,
        Push::Join { .. }
        | Push::Leave { .. }
        | Push::Unsubscribe { .. }
        | Push::Refresh { .. } => OVERHEAD_BYTES_GUESS,
    };
    delimited(out, guess, |out| {
        nested(out, 4, guess, |out| push_body(out, push, guess))
    });
}

/// Appends a message with its length before it. The length is not known before the message is written: room for
/// a length like `guess` is kept free, and the message moved if that was wrong.
fn delimited(out: &mut Vec<u8>, guess: usize, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    let kept = encoded_len_varint(guess as u64);
    out.resize(start + kept, 0);
    body(out);
    let len = out.len() - start - kept;
    let needed = encoded_len_varint(len as u64);
    if needed != kept {
        out.resize(start + needed.max(kept) + len, 0);
        out.copy_within(start + kept..start + kept + len, start + needed);
        out.truncate(start + needed + len);
    }
    encode_varint(len as u64, &mut &mut out[start..start + needed]);
}

fn nested(out: &mut Vec<u8>, tag: u32, guess: usize, body: impl FnOnce(&mut Vec<u8>)) {
    encode_key(tag, WireType::LengthDelimited, out);
    delimited(out, guess, body);
}

fn uint(out: &mut Vec<u8>, tag: u32, value: u64) {
    if value != 0 {
        encode_key(tag, WireType::Varint, out);
        encode_varint(value, out);
    }
}

fn int(out: &mut Vec<u8>, tag: u32, value: i64) {
    uint(out, tag, value.cast_unsigned());
}

fn flag(out: &mut Vec<u8>, tag: u32, value: bool) {
    uint(out, tag, u64::from(value));
}

fn bytes(out: &mut Vec<u8>, tag: u32, value: &[u8]) {
    if !value.is_empty() {
        encode_key(tag, WireType::LengthDelimited, out);
        encode_varint(value.len() as u64, out);
        out.extend_from_slice(value);
    }
}

fn string(out: &mut Vec<u8>, tag: u32, value: &str) {
    bytes(out, tag, value.as_bytes());
}

fn error_reply(out: &mut Vec<u8>, error: &ErrorReply) {
    uint(out, 1, u64::from(error.code));
    string(out, 2, error.message);
    flag(out, 3, error.temporary);
}

fn result_body(out: &mut Vec<u8>, body: &ResultBody) {
    let guess = OVERHEAD_BYTES_GUESS;
    match body {
        ResultBody::Connect(result) => nested(out, 5, guess, |out| connect_result(out, result)),
        ResultBody::Subscribe(result) => nested(out, 6, guess, |out| subscribe_result(out, result)),
        ResultBody::Unsubscribe => nested(out, 7, 0, |_| ()),
        ResultBody::Publish => nested(out, 8, 0, |_| ()),
        ResultBody::Presence(clients) => nested(out, 9, guess, |out| {
            for info in clients {
                nested(out, 1, guess, |out| {
                    string(out, 1, &info.client);
                    nested(out, 2, guess, |out| client_info(out, info));
                });
            }
        }),
        ResultBody::PresenceStats {
            num_clients,
            num_users,
        } => nested(out, 10, guess, |out| {
            uint(out, 1, u64::from(*num_clients));
            uint(out, 2, u64::from(*num_users));
        }),
        ResultBody::History {
            publications,
            position,
        } => nested(out, 11, guess, |out| {
            repeated_publication(out, 1, publications);
            string(out, 2, &position.epoch);
            uint(out, 3, position.offset);
        }),
        ResultBody::Ping => nested(out, 12, 0, |_| ()),
        ResultBody::Rpc { data } => nested(out, 13, data.len(), |out| bytes(out, 1, data)),
        ResultBody::Refresh(result) => nested(out, 14, guess, |out| refresh_result(out, result)),
        ResultBody::SubRefresh { expires, ttl } => nested(out, 15, guess, |out| {
            flag(out, 1, *expires);
            uint(out, 2, u64::from(*ttl));
        }),
    }
}

fn connect_result(out: &mut Vec<u8>, result: &ConnectResult) {
    string(out, 1, &result.client);
    string(out, 2, &result.version);
    flag(out, 3, result.expires);
    uint(out, 4, u64::from(result.ttl));
    bytes(out, 5, &result.data);
    for (name, sub) in &result.subs {
        nested(out, 6, OVERHEAD_BYTES_GUESS, |out| {
            string(out, 1, name);
            nested(out, 2, OVERHEAD_BYTES_GUESS, |out| {
                subscribe_result(out, sub)
            });
        });
    }
    uint(out, 7, u64::from(result.ping));
    flag(out, 8, result.pong);
    int(out, 11, result.time_ms);
}

fn subscribe_result(out: &mut Vec<u8>, result: &SubscribeResult) {
    flag(out, 1, result.expires);
    uint(out, 2, u64::from(result.ttl));
    flag(out, 3, result.recoverable);
    string(out, 6, &result.position.epoch);
    repeated_publication(out, 7, &result.publications);
    flag(out, 8, result.recovered);
    uint(out, 9, result.position.offset);
    flag(out, 10, result.positioned);
    bytes(out, 11, &result.data);
    flag(out, 12, result.was_recovering);
    flag(out, 13, result.delta);
    int(out, 14, result.id);
}

fn refresh_result(out: &mut Vec<u8>, result: &RefreshResult) {
    string(out, 1, &result.client);
    string(out, 2, &result.version);
    flag(out, 3, result.expires);
    uint(out, 4, u64::from(result.ttl));
}

fn repeated_publication(out: &mut Vec<u8>, tag: u32, items: &[Publication]) {
    for item in items {
        nested(out, tag, item.data.len() + OVERHEAD_BYTES_GUESS, |out| {
            publication(out, item)
        });
    }
}

fn publication(out: &mut Vec<u8>, publication: &Publication) {
    bytes(out, 4, &publication.data);
    if let Some(info) = &publication.info {
        nested(out, 5, OVERHEAD_BYTES_GUESS, |out| client_info(out, info));
    }
    uint(out, 6, publication.offset);
    for (name, value) in &publication.tags {
        nested(out, 7, name.len() + value.len(), |out| {
            string(out, 1, name);
            string(out, 2, value);
        });
    }
    flag(out, 8, publication.delta);
    int(out, 9, publication.time_ms);
    string(out, 14, publication.epoch.as_deref().unwrap_or_default());
}

fn client_info(out: &mut Vec<u8>, info: &ClientInfo) {
    string(out, 1, &info.user);
    string(out, 2, &info.client);
    bytes(out, 3, &info.conn_info);
    bytes(out, 4, &info.chan_info);
}

fn channel_ref(out: &mut Vec<u8>, channel: ChannelRef<'_>) {
    match channel {
        ChannelRef::Name(name) => string(out, 2, name),
        ChannelRef::Id(id) => int(out, 1, id),
    }
}

fn push_body(out: &mut Vec<u8>, push: &Push<'_>, guess: usize) {
    match push {
        Push::Publication {
            channel,
            publication: item,
        } => {
            channel_ref(out, *channel);
            nested(out, 4, guess, |out| publication(out, item));
        }
        Push::Join { channel, info } => {
            channel_ref(out, *channel);
            nested(out, 5, guess, |out| {
                nested(out, 1, guess, |out| client_info(out, info))
            });
        }
        Push::Leave { channel, info } => {
            channel_ref(out, *channel);
            nested(out, 6, guess, |out| {
                nested(out, 1, guess, |out| client_info(out, info))
            });
        }
        Push::Unsubscribe {
            channel,
            code,
            reason,
        } => {
            channel_ref(out, *channel);
            nested(out, 7, guess, |out| {
                uint(out, 2, u64::from(*code));
                string(out, 3, reason);
            });
        }
        Push::Subscribe {
            channel,
            recoverable,
            positioned,
            position,
            data,
        } => {
            string(out, 2, channel);
            nested(out, 9, guess, |out| {
                flag(out, 1, *recoverable);
                string(out, 4, &position.epoch);
                uint(out, 5, position.offset);
                flag(out, 6, *positioned);
                bytes(out, 7, data);
            });
        }
        Push::Message { data } => nested(out, 8, guess, |out| bytes(out, 1, data)),
        Push::Refresh { expires, ttl } => nested(out, 12, guess, |out| {
            flag(out, 1, *expires);
            uint(out, 2, u64::from(*ttl));
        }),
    }
}
