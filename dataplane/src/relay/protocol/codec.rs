//! The seam between connections and encodings: frames in, messages out.
//!
//! Owns framing: a JSON frame holds messages separated by newlines, a Protobuf frame holds messages with their
//! length as a varint before each. Encoding makes one complete message per call, so that messages can be laid end
//! to end (with a newline between them for JSON). Never looks into payloads beyond checking that they are JSON.

use bytes::{Buf, Bytes};
use thiserror::Error;

use super::{Command, Encoding, Push, Reply, json, protobuf};

/// Why a frame cannot be served. Carries no content of the frame, so that it can be logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("empty frame")]
    Empty,
    #[error("text is not UTF-8")]
    NotUtf8,
    #[error("malformed command")]
    Malformed,
    #[error("frame ends inside a command")]
    Truncated,
}

/// A payload cannot be sent to a JSON client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("payload is not valid JSON")]
pub struct NotJson;

/// The commands of one frame. Payloads share the frame's memory. Ends after the first error.
#[derive(Debug)]
pub struct Commands {
    encoding: Encoding,
    rest: Bytes,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Begun,
    Failed,
}

impl Commands {
    pub fn new(encoding: Encoding, frame: Bytes) -> Self {
        Self {
            encoding,
            rest: frame,
            state: State::Fresh,
        }
    }

    fn decode_next(&mut self) -> Result<Command, DecodeError> {
        match self.encoding {
            Encoding::Json => {
                let end = memchr::memchr(b'\n', &self.rest).unwrap_or(self.rest.len());
                let message = self.rest.split_to(end);
                if !self.rest.is_empty() {
                    self.rest.advance(1);
                }
                json::decode(&message)
            }
            Encoding::Protobuf => {
                let mut after_length: &[u8] = &self.rest;
                let len = prost::encoding::decode_varint(&mut after_length)
                    .map_err(|_| DecodeError::Truncated)?;
                let len = usize::try_from(len).map_err(|_| DecodeError::Truncated)?;
                if len > after_length.len() {
                    return Err(DecodeError::Truncated);
                }
                self.rest.advance(self.rest.len() - after_length.len());
                protobuf::decode(self.rest.split_to(len))
            }
        }
    }
}

impl Iterator for Commands {
    type Item = Result<Command, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = match (self.state, self.rest.is_empty()) {
            (State::Failed, _) | (State::Begun, true) => return None,
            (State::Fresh, true) => Err(DecodeError::Empty),
            (State::Fresh | State::Begun, false) => self.decode_next(),
        };
        self.state = if result.is_ok() {
            State::Begun
        } else {
            State::Failed
        };
        Some(result)
    }
}

/// Appends one complete reply. On an error `out` is as before.
pub fn encode_reply(encoding: Encoding, reply: &Reply, out: &mut Vec<u8>) -> Result<(), NotJson> {
    match encoding {
        Encoding::Json => {
            let start = out.len();
            json::encode_reply(reply, out).inspect_err(|_| out.truncate(start))
        }
        Encoding::Protobuf => {
            protobuf::encode_reply(reply, out);
            Ok(())
        }
    }
}

/// Appends one complete push. On an error `out` is as before.
pub fn encode_push(encoding: Encoding, push: &Push<'_>, out: &mut Vec<u8>) -> Result<(), NotJson> {
    match encoding {
        Encoding::Json => {
            let start = out.len();
            json::encode_push(push, out).inspect_err(|_| out.truncate(start))
        }
        Encoding::Protobuf => {
            protobuf::encode_push(push, out);
            Ok(())
        }
    }
}

/// The server's ping: an empty reply.
pub fn ping(encoding: Encoding) -> &'static [u8] {
    match encoding {
        Encoding::Json => b"{}",
        Encoding::Protobuf => &[0],
    }
}

/// Text as a JSON string literal: the form of publications in subscriptions with deltas. None when not UTF-8.
pub fn json_string(text: &[u8]) -> Option<Bytes> {
    let text = simdutf8::basic::from_utf8(text).ok()?;
    let mut out = Vec::with_capacity(text.len() + text.len() / 8 + 2);
    json::push_string(&mut out, text);
    Some(out.into())
}
