//! WebSocket framing (RFC 6455) without I/O: bytes in, messages out.
//!
//! A connection reads into its worker's shared buffer, so an idle [`Reader`] owns no memory: only a frame that has
//! not arrived whole is kept, in a buffer of exactly its size. Server frames are never masked and never
//! fragmented, so writing is a header and the payload.

use bytes::Bytes;

use super::codes::{self, Disconnect};
use super::protocol::Encoding;

/// Payload bytes of the largest control frame (RFC 6455 section 5.5).
const CONTROL_BYTES_MAX: usize = 125;
/// Two bytes, eight of extended length, four of mask.
const CLIENT_HEADER_BYTES_MAX: usize = 14;
/// A server's header has no mask.
pub const SERVER_HEADER_BYTES_MAX: usize = 10;

const OP_CONTINUATION: u8 = 0;
const OP_TEXT: u8 = 1;
const OP_BINARY: u8 = 2;
const OP_CLOSE: u8 = 8;
const OP_PING: u8 = 9;
const OP_PONG: u8 = 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    Message(Bytes),
    Ping(Bytes),
    Pong,
    /// The peer's code, absent when its close frame had none.
    Close(Option<u16>),
}

/// What the server writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Binary,
    Close,
    Pong,
}

/// One frame around an encoded message of the protocol.
pub fn message(encoding: Encoding, payload: &[u8]) -> Vec<u8> {
    let kind = match encoding {
        Encoding::Json => Kind::Text,
        Encoding::Protobuf => Kind::Binary,
    };
    let mut out = Vec::with_capacity(SERVER_HEADER_BYTES_MAX + payload.len());
    write(kind, payload, &mut out);
    out
}

/// Appends one whole server frame.
pub fn write(kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    let opcode = match kind {
        Kind::Text => OP_TEXT,
        Kind::Binary => OP_BINARY,
        Kind::Close => OP_CLOSE,
        Kind::Pong => OP_PONG,
    };
    out.reserve(SERVER_HEADER_BYTES_MAX + payload.len());
    out.push(0x80 | opcode);
    match payload.len() {
        len @ 0..=125 => out.push(len as u8),
        len @ 126..=0xffff => {
            out.push(126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// Appends a close frame; the reason is cut to what a control frame can hold.
pub fn write_close(disconnect: &Disconnect, out: &mut Vec<u8>) {
    let reason = &disconnect.reason;
    let mut end = reason.len().min(CONTROL_BYTES_MAX - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = Vec::with_capacity(2 + end);
    payload.extend_from_slice(&disconnect.code.to_be_bytes());
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    write(Kind::Close, &payload, out);
}

#[derive(Debug, Clone, Copy)]
struct Header {
    fin: bool,
    opcode: u8,
    mask: [u8; 4],
    header_len: usize,
    payload_len: usize,
}

impl Header {
    /// `None`: more bytes are needed.
    fn parse(input: &[u8], message_bytes_max: usize) -> Result<Option<Self>, Disconnect> {
        let [first, second, ..] = *input else {
            return Ok(None);
        };
        let (fin, opcode) = (first & 0x80 != 0, first & 0x0f);
        let masked = second & 0x80 != 0;
        // No extension is ever negotiated, so the reserved bits must be zero.
        if first & 0x70 != 0 || !masked || (3..=7).contains(&opcode) || opcode > OP_PONG {
            return Err(codes::CLOSE_PROTOCOL_ERROR);
        }
        let (length, length_bytes) = match second & 0x7f {
            126 => {
                let Some(raw) = input.get(2..4) else {
                    return Ok(None);
                };
                (u64::from(u16::from_be_bytes([raw[0], raw[1]])), 2)
            }
            127 => {
                let Some(raw) = input.get(2..10) else {
                    return Ok(None);
                };
                (
                    u64::from_be_bytes(raw.try_into().map_err(|_| codes::CLOSE_PROTOCOL_ERROR)?),
                    8,
                )
            }
            short => (u64::from(short), 0),
        };
        if opcode >= OP_CLOSE && (!fin || length > CONTROL_BYTES_MAX as u64) {
            return Err(codes::CLOSE_PROTOCOL_ERROR);
        }
        // Also keeps the conversion below from wrapping.
        if length > message_bytes_max as u64 && opcode < OP_CLOSE {
            return Err(codes::CLOSE_TOO_BIG);
        }
        let mask_at = 2 + length_bytes;
        let Some(mask) = input.get(mask_at..mask_at + 4) else {
            return Ok(None);
        };
        Ok(Some(Self {
            fin,
            opcode,
            mask: [mask[0], mask[1], mask[2], mask[3]],
            header_len: mask_at + 4,
            payload_len: length as usize,
        }))
    }

    fn frame_len(&self) -> usize {
        self.header_len + self.payload_len
    }
}

/// Fragments of a message whose last frame has not come.
#[derive(Debug)]
struct Fragments {
    text: bool,
    data: Vec<u8>,
}

#[derive(Debug, Default)]
pub struct Reader {
    /// The first bytes of a frame that has not arrived whole.
    partial: Vec<u8>,
    /// Boxed: rare, and a reader is kept per connection.
    fragments: Option<Box<Fragments>>,
}

impl Reader {
    /// Bytes this reader holds or is going to hold until the current message is whole.
    pub fn reserved_bytes(&self) -> usize {
        self.partial.capacity()
            + self
                .fragments
                .as_ref()
                .map_or(0, |fragments| fragments.data.capacity())
    }

    /// Takes bytes from the peer; calls `emit` for each thing that is whole. After an error the reader must not be
    /// used again.
    pub fn read(
        &mut self,
        mut input: &[u8],
        message_bytes_max: usize,
        emit: &mut dyn FnMut(Inbound),
    ) -> Result<(), Disconnect> {
        while !self.partial.is_empty() && !input.is_empty() {
            self.fill_partial(&mut input, message_bytes_max)?;
            let Some(header) = Header::parse(&self.partial, message_bytes_max)? else {
                continue;
            };
            if self.partial.len() == header.frame_len() {
                let frame = std::mem::take(&mut self.partial);
                self.frame(header, &frame[header.header_len..], message_bytes_max, emit)?;
            }
        }
        while !input.is_empty() {
            match Header::parse(input, message_bytes_max)? {
                Some(header) if input.len() >= header.frame_len() => {
                    let (frame, rest) = input.split_at(header.frame_len());
                    self.frame(header, &frame[header.header_len..], message_bytes_max, emit)?;
                    input = rest;
                }
                Some(header) => {
                    self.partial.reserve_exact(header.frame_len());
                    self.partial.extend_from_slice(input);
                    break;
                }
                None => {
                    self.partial.extend_from_slice(input);
                    break;
                }
            }
        }
        Ok(())
    }

    /// Moves as many bytes into `partial` as its header, or then its frame, still lacks.
    fn fill_partial(
        &mut self,
        input: &mut &[u8],
        message_bytes_max: usize,
    ) -> Result<(), Disconnect> {
        let missing = match Header::parse(&self.partial, message_bytes_max)? {
            // Byte by byte is fine: at most 14 of them, and only when a header was torn.
            None => {
                debug_assert!(self.partial.len() < CLIENT_HEADER_BYTES_MAX);
                1
            }
            Some(header) => {
                let missing = header.frame_len() - self.partial.len();
                self.partial.reserve_exact(missing);
                missing
            }
        };
        let (now, rest) = input.split_at(missing.min(input.len()));
        self.partial.extend_from_slice(now);
        *input = rest;
        Ok(())
    }

    fn frame(
        &mut self,
        header: Header,
        masked: &[u8],
        message_bytes_max: usize,
        emit: &mut dyn FnMut(Inbound),
    ) -> Result<(), Disconnect> {
        let control = header.opcode >= OP_CLOSE;
        let mut payload = match (&mut self.fragments, header.opcode) {
            // Continue in the message's own buffer.
            (Some(fragments), OP_CONTINUATION) => std::mem::take(&mut fragments.data),
            (None, OP_CONTINUATION) => return Err(codes::CLOSE_PROTOCOL_ERROR),
            (Some(_), _) if !control => return Err(codes::CLOSE_PROTOCOL_ERROR),
            _ => Vec::with_capacity(masked.len()),
        };
        if payload.len() + masked.len() > message_bytes_max.max(CONTROL_BYTES_MAX) {
            return Err(codes::CLOSE_TOO_BIG);
        }
        append_unmasked(&mut payload, masked, header.mask);
        match header.opcode {
            OP_CLOSE => emit(Inbound::Close(close_code(&payload)?)),
            OP_PING => emit(Inbound::Ping(payload.into())),
            OP_PONG => emit(Inbound::Pong),
            opcode => {
                let text = match &self.fragments {
                    Some(fragments) => fragments.text,
                    None => opcode == OP_TEXT,
                };
                if !header.fin {
                    self.fragments = Some(Box::new(Fragments {
                        text,
                        data: payload,
                    }));
                    return Ok(());
                }
                self.fragments = None;
                if text && simdutf8::basic::from_utf8(&payload).is_err() {
                    return Err(codes::CLOSE_INVALID_PAYLOAD);
                }
                emit(Inbound::Message(payload.into()));
            }
        }
        Ok(())
    }
}

/// Appends `masked ^ mask`; eight bytes at a time.
fn append_unmasked(out: &mut Vec<u8>, masked: &[u8], mask: [u8; 4]) {
    let wide = u64::from_ne_bytes([
        mask[0], mask[1], mask[2], mask[3], mask[0], mask[1], mask[2], mask[3],
    ]);
    let start = out.len();
    out.extend_from_slice(masked);
    let mut chunks = out[start..].chunks_exact_mut(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes([
            chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
        ]);
        chunk.copy_from_slice(&(word ^ wide).to_ne_bytes());
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, Disconnect> {
    match payload {
        [] => Ok(None),
        [_] => Err(codes::CLOSE_PROTOCOL_ERROR),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            let sendable = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            if !sendable {
                return Err(codes::CLOSE_PROTOCOL_ERROR);
            }
            if simdutf8::basic::from_utf8(reason).is_err() {
                return Err(codes::CLOSE_INVALID_PAYLOAD);
            }
            Ok(Some(code))
        }
    }
}

#[cfg(test)]
mod tests;
