//! The JSON form of the protocol: messages out. `decode` has messages in.
//!
//! Written by hand into the buffer: a publication is encoded once per channel and encoding, on the hot path. Which
//! members are left out when zero follows what Centrifugo's SDKs are used to: all but the few written with
//! [`Object::key`]. Payloads are embedded as they are, after checking that they are JSON; line breaks between
//! their tokens are dropped because a newline ends a message.

mod decode;

use serde::de::IgnoredAny;

use super::{
    ChannelRef, ClientInfo, ConnectResult, ErrorReply, NotJson, Payload, Publication, Push,
    RefreshResult, Reply, ResultBody, SubscribeResult, Tags,
};

pub(super) use decode::decode;

type Encoded = Result<(), NotJson>;

pub(super) fn encode_reply(reply: &Reply, out: &mut Vec<u8>) -> Encoded {
    object(out, |o| {
        o.uint("id", u64::from(reply.id));
        match &reply.result {
            Ok(body) => result_body(o, body),
            Err(error) => o.nested("error", |o| error_reply(o, error)),
        }
    })
}

pub(super) fn encode_push(push: &Push<'_>, out: &mut Vec<u8>) -> Encoded {
    object(out, |o| o.nested("push", |o| push_body(o, push)))
}

/// Appends a string literal.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain_from = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[plain_from..at]);
        plain_from = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            control => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[
                    HEX[usize::from(control >> 4)],
                    HEX[usize::from(control & 15)],
                ]);
            }
        }
    }
    out.extend_from_slice(&bytes[plain_from..]);
    out.push(b'"');
}

fn push_uint(out: &mut Vec<u8>, mut value: u64) {
    // 20 digits hold the largest u64.
    let mut digits = [b'0'; 20];
    let mut from = digits.len();
    loop {
        from -= 1;
        digits[from] += u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[from..]);
}

fn push_payload(out: &mut Vec<u8>, payload: &[u8]) -> Encoded {
    let text = simdutf8::basic::from_utf8(payload).map_err(|_| NotJson)?;
    serde_json::from_str::<IgnoredAny>(text).map_err(|_| NotJson)?;
    // In valid JSON a newline can only stand between tokens, where nothing is needed in its place.
    for line in payload.split(|&byte| byte == b'\n') {
        out.extend_from_slice(line);
    }
    Ok(())
}

/// Writes the members of one object.
struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

fn object(out: &mut Vec<u8>, members: impl FnOnce(&mut Object<'_>) -> Encoded) -> Encoded {
    out.push(b'{');
    members(&mut Object { out, empty: true })?;
    out.push(b'}');
    Ok(())
}

impl Object<'_> {
    fn separate(&mut self) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
    }

    /// Begins a member; the caller appends its value. `name` needs no escapes.
    fn key(&mut self, name: &str) -> &mut Vec<u8> {
        self.separate();
        self.out.push(b'"');
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// Begins a member with a name that is data.
    fn any_key(&mut self, name: &str) -> &mut Vec<u8> {
        self.separate();
        push_string(self.out, name);
        self.out.push(b':');
        self.out
    }

    fn nested(&mut self, name: &str, members: impl FnOnce(&mut Object<'_>) -> Encoded) -> Encoded {
        object(self.key(name), members)
    }

    fn string(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            push_string(self.key(name), value);
        }
    }

    fn uint(&mut self, name: &str, value: u64) {
        if value != 0 {
            push_uint(self.key(name), value);
        }
    }

    fn int(&mut self, name: &str, value: i64) {
        if value != 0 {
            let out = self.key(name);
            if value < 0 {
                out.push(b'-');
            }
            push_uint(out, value.unsigned_abs());
        }
    }

    fn flag(&mut self, name: &str, value: bool) {
        if value {
            self.key(name).extend_from_slice(b"true");
        }
    }

    fn payload(&mut self, name: &str, value: &Payload) -> Encoded {
        if value.is_empty() {
            Ok(())
        } else {
            push_payload(self.key(name), value)
        }
    }
}

fn error_reply(o: &mut Object<'_>, error: &ErrorReply) -> Encoded {
    o.uint("code", u64::from(error.code));
    o.string("message", error.message);
    o.flag("temporary", error.temporary);
    Ok(())
}

fn result_body(o: &mut Object<'_>, body: &ResultBody) -> Encoded {
    match body {
        ResultBody::Connect(result) => o.nested("connect", |o| connect_result(o, result)),
        ResultBody::Subscribe(result) => o.nested("subscribe", |o| subscribe_result(o, result)),
        ResultBody::Unsubscribe => o.nested("unsubscribe", |_| Ok(())),
        ResultBody::Publish => o.nested("publish", |_| Ok(())),
        ResultBody::Presence(clients) => o.nested("presence", |o| {
            o.nested("presence", |o| {
                clients
                    .iter()
                    .try_for_each(|info| object(o.any_key(&info.client), |o| client_info(o, info)))
            })
        }),
        ResultBody::PresenceStats {
            num_clients,
            num_users,
        } => o.nested("presence_stats", |o| {
            push_uint(o.key("num_clients"), u64::from(*num_clients));
            push_uint(o.key("num_users"), u64::from(*num_users));
            Ok(())
        }),
        ResultBody::History {
            publications: items,
            position,
        } => o.nested("history", |o| {
            publications(o.key("publications"), items)?;
            push_string(o.key("epoch"), &position.epoch);
            push_uint(o.key("offset"), position.offset);
            Ok(())
        }),
        ResultBody::Ping => o.nested("ping", |_| Ok(())),
        ResultBody::Rpc { data } => o.nested("rpc", |o| o.payload("data", data)),
        ResultBody::Refresh(result) => o.nested("refresh", |o| refresh_result(o, result)),
        ResultBody::SubRefresh { expires, ttl } => {
            o.nested("sub_refresh", |o| expiry(o, *expires, *ttl))
        }
    }
}

fn expiry(o: &mut Object<'_>, expires: bool, ttl: u32) -> Encoded {
    o.flag("expires", expires);
    o.uint("ttl", u64::from(ttl));
    Ok(())
}

fn connect_result(o: &mut Object<'_>, result: &ConnectResult) -> Encoded {
    o.string("client", &result.client);
    o.string("version", &result.version);
    expiry(o, result.expires, result.ttl)?;
    o.payload("data", &result.data)?;
    if !result.subs.is_empty() {
        o.nested("subs", |o| {
            result
                .subs
                .iter()
                .try_for_each(|(name, sub)| object(o.any_key(name), |o| subscribe_result(o, sub)))
        })?;
    }
    o.uint("ping", u64::from(result.ping));
    o.flag("pong", result.pong);
    o.int("time", result.time_ms);
    Ok(())
}

fn subscribe_result(o: &mut Object<'_>, result: &SubscribeResult) -> Encoded {
    expiry(o, result.expires, result.ttl)?;
    o.flag("recoverable", result.recoverable);
    o.string("epoch", &result.position.epoch);
    if !result.publications.is_empty() {
        publications(o.key("publications"), &result.publications)?;
    }
    o.flag("recovered", result.recovered);
    o.uint("offset", result.position.offset);
    o.flag("positioned", result.positioned);
    o.payload("data", &result.data)?;
    o.flag("was_recovering", result.was_recovering);
    o.flag("delta", result.delta);
    o.int("id", result.id);
    Ok(())
}

fn refresh_result(o: &mut Object<'_>, result: &RefreshResult) -> Encoded {
    o.string("client", &result.client);
    o.string("version", &result.version);
    expiry(o, result.expires, result.ttl)
}

fn publications(out: &mut Vec<u8>, items: &[Publication]) -> Encoded {
    out.push(b'[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        object(out, |o| publication(o, item))?;
    }
    out.push(b']');
    Ok(())
}

fn publication(o: &mut Object<'_>, publication: &Publication) -> Encoded {
    o.payload("data", &publication.data)?;
    if let Some(info) = &publication.info {
        o.nested("info", |o| client_info(o, info))?;
    }
    o.uint("offset", publication.offset);
    if !publication.tags.is_empty() {
        o.nested("tags", |o| tags(o, &publication.tags))?;
    }
    o.flag("delta", publication.delta);
    o.int("time", publication.time_ms);
    o.string("epoch", publication.epoch.as_deref().unwrap_or_default());
    Ok(())
}

fn tags(o: &mut Object<'_>, tags: &Tags) -> Encoded {
    for (name, value) in tags {
        push_string(o.any_key(name), value);
    }
    Ok(())
}

fn client_info(o: &mut Object<'_>, info: &ClientInfo) -> Encoded {
    push_string(o.key("user"), &info.user);
    push_string(o.key("client"), &info.client);
    o.payload("conn_info", &info.conn_info)?;
    o.payload("chan_info", &info.chan_info)
}

fn channel_ref(o: &mut Object<'_>, channel: ChannelRef<'_>) {
    match channel {
        ChannelRef::Name(name) => o.string("channel", name),
        ChannelRef::Id(id) => o.int("id", id),
    }
}

fn push_body(o: &mut Object<'_>, push: &Push<'_>) -> Encoded {
    match push {
        Push::Publication {
            channel,
            publication: item,
        } => {
            channel_ref(o, *channel);
            o.nested("pub", |o| publication(o, item))
        }
        Push::Join { channel, info } => {
            channel_ref(o, *channel);
            o.nested("join", |o| o.nested("info", |o| client_info(o, info)))
        }
        Push::Leave { channel, info } => {
            channel_ref(o, *channel);
            o.nested("leave", |o| o.nested("info", |o| client_info(o, info)))
        }
        Push::Unsubscribe {
            channel,
            code,
            reason,
        } => {
            channel_ref(o, *channel);
            o.nested("unsubscribe", |o| {
                o.uint("code", u64::from(*code));
                o.string("reason", reason);
                Ok(())
            })
        }
        Push::Subscribe {
            channel,
            recoverable,
            positioned,
            position,
            data,
        } => {
            o.string("channel", channel);
            o.nested("subscribe", |o| {
                o.flag("recoverable", *recoverable);
                o.string("epoch", &position.epoch);
                o.uint("offset", position.offset);
                o.flag("positioned", *positioned);
                o.payload("data", data)
            })
        }
        Push::Message { data } => o.nested("message", |o| o.payload("data", data)),
        Push::Refresh { expires, ttl } => o.nested("refresh", |o| expiry(o, *expires, *ttl)),
    }
}
