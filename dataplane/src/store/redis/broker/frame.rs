//! What a publication, join or leave looks like in Redis, on the channel and in the stream.
//!
//! By hand, not Protobuf: a script takes the id out of a frame by its place, and a subscriber looks at the id of the
//! second copy of every message without decoding the rest. A frame is: version, kind, publisher and serial (the *id*,
//! which names the message over all processes), then lengths and texts. On a channel a frame follows `:`, or
//! `<offset>:<epoch>:` when it has a position. A reader takes what it knows and refuses other versions. Pure.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};

use crate::relay::protocol::{ClientInfo, Publication};
use crate::store::codec::{Reader, put_bytes, put_varint};
use crate::store::redis::client_info;
use crate::store::{NewPublication, PresenceEvent};

const VERSION: u8 = 1;
const PUBLICATION: u8 = 1;
const JOIN: u8 = 2;
const LEAVE: u8 = 3;
const KIND: u8 = 0x0f;
const DELTA: u8 = 0x10;
const HAS_INFO: u8 = 0x20;
const HEAD_BYTES: usize = 18;

/// Names a message: which process gave it out, and which of that process's messages it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub(super) publisher: u64,
    pub(super) serial: u64,
}

/// What is to be sent; its id comes when its turn comes.
#[derive(Debug, Clone)]
pub(super) enum Body {
    Publication {
        publication: NewPublication,
        delta: bool,
    },
    Presence(PresenceEvent),
}

/// A frame that was read.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Content {
    Publication {
        publication: Publication,
        delta: bool,
    },
    Join(ClientInfo),
    Leave(ClientInfo),
}

/// What comes before the frame on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct At<'a> {
    pub(super) offset: u64,
    pub(super) epoch: &'a str,
}

impl Id {
    pub(super) fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        (bytes.len() == 16).then(|| Self {
            publisher: bytes.get_u64(),
            serial: bytes.get_u64(),
        })
    }
}

impl Body {
    /// About how long the frame will be.
    pub(super) fn bytes(&self) -> usize {
        let info = |info: &ClientInfo| {
            let fields = client_info::fields(info);
            fields.iter().map(|field| field.len() + 4).sum::<usize>()
        };
        let body = match self {
            Self::Publication { publication, .. } => {
                let tags = publication.tags.iter();
                let tags: usize = tags.map(|(key, value)| key.len() + value.len() + 8).sum();
                publication.data.len() + tags + publication.info.as_deref().map_or(0, info)
            }
            Self::Presence(PresenceEvent::Join(who) | PresenceEvent::Leave(who)) => info(who),
        };
        HEAD_BYTES + 16 + body
    }

    /// The frame behind `prefix`, which says where it is.
    pub(super) fn encode(&self, id: Id, prefix: &[u8]) -> Bytes {
        let mut out: Vec<u8> = Vec::with_capacity(prefix.len() + self.bytes());
        out.put_slice(prefix);
        out.put_u8(VERSION);
        let kind = match self {
            Self::Publication { publication, delta } => {
                let delta = if *delta { DELTA } else { 0 };
                let info = if publication.info.is_some() {
                    HAS_INFO
                } else {
                    0
                };
                PUBLICATION | delta | info
            }
            Self::Presence(PresenceEvent::Join(_)) => JOIN,
            Self::Presence(PresenceEvent::Leave(_)) => LEAVE,
        };
        out.put_u8(kind);
        out.put_u64(id.publisher);
        out.put_u64(id.serial);
        match self {
            Self::Publication { publication, .. } => {
                out.put_i64(publication.time_ms);
                if let Some(info) = &publication.info {
                    put_info(&mut out, info);
                }
                put_varint(&mut out, publication.tags.len() as u64);
                for (key, value) in &publication.tags {
                    put_bytes(&mut out, key.as_bytes());
                    put_bytes(&mut out, value.as_bytes());
                }
                out.put_slice(&publication.data);
            }
            Self::Presence(PresenceEvent::Join(info) | PresenceEvent::Leave(info)) => {
                put_info(&mut out, info);
            }
        }
        out.into()
    }
}

/// Splits a channel's message into position and frame.
pub(super) fn split(message: &[u8]) -> Option<(Option<At<'_>>, &[u8])> {
    let (offset, rest) = until_colon(message)?;
    if offset.is_empty() {
        return Some((None, rest));
    }
    let (epoch, frame) = until_colon(rest)?;
    let at = At {
        offset: offset.parse().ok()?,
        epoch,
    };
    Some((Some(at), frame))
}

fn until_colon(text: &[u8]) -> Option<(&str, &[u8])> {
    let end = memchr::memchr(b':', text)?;
    Some((std::str::from_utf8(&text[..end]).ok()?, &text[end + 1..]))
}

/// The id of a frame of a version that is known.
pub(super) fn id(frame: &[u8]) -> Option<Id> {
    (frame.first() == Some(&VERSION))
        .then(|| frame.get(2..HEAD_BYTES).and_then(Id::from_bytes))
        .flatten()
}

/// Decodes a frame. What it returns keeps `frame` alive: give it a buffer that holds nothing else.
pub(super) fn decode(frame: Bytes) -> Option<Content> {
    id(&frame)?;
    let kind = frame[1];
    let mut reader = Reader::new(frame.slice(HEAD_BYTES..));
    match kind & KIND {
        PUBLICATION => {
            let time_ms = i64::from_be_bytes(reader.array()?);
            let info = match kind & HAS_INFO {
                0 => None,
                _ => Some(Arc::new(take_info(&mut reader)?)),
            };
            let count = reader.varint32()? as usize;
            // Each tag takes two bytes at least.
            let mut tags = Vec::with_capacity(count.min(reader.left() / 2));
            for _ in 0..count {
                tags.push((reader.text()?, reader.text()?));
            }
            let publication = Publication {
                data: reader.rest(),
                info,
                tags,
                time_ms,
                ..Publication::default()
            };
            let delta = kind & DELTA != 0;
            Some(Content::Publication { publication, delta })
        }
        JOIN => take_info(&mut reader).map(Content::Join),
        LEAVE => take_info(&mut reader).map(Content::Leave),
        _ => None,
    }
}

fn put_info(out: &mut Vec<u8>, info: &ClientInfo) {
    for field in client_info::fields(info) {
        put_bytes(out, field);
    }
}

fn take_info(reader: &mut Reader) -> Option<ClientInfo> {
    client_info::from_fields(|| reader.bytes())
}

#[cfg(test)]
mod tests;
