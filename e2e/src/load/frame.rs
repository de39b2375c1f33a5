//! WebSocket frames as a client sees them: just enough to talk to a server at the lowest cost.
//!
//! Client frames are masked with the key zero: valid on the wire, the server does its usual work, and the payload can
//! be shared between connections unchanged. Fragmented messages are not put together: no server measured here sends any.

/// Text message.
pub const TEXT: u8 = 1;
/// The peer closes; the payload starts with the code.
pub const CLOSE: u8 = 8;
/// The peer asks whether we are alive.
pub const PING: u8 = 9;
/// The answer to a ping.
pub const PONG: u8 = 10;

/// Appends one final, masked frame.
pub fn encode(opcode: u8, payload: &[u8], out: &mut Vec<u8>) {
    const MASKED: u8 = 0x80;
    out.push(0x80 | opcode);
    match payload.len() {
        // Both casts are exact: the arm's bound says so.
        short @ 0..=125 => out.push(MASKED | short as u8),
        medium @ 126..=0xffff => {
            out.push(MASKED | 126);
            out.extend_from_slice(&(medium as u16).to_be_bytes());
        }
        long => {
            out.push(MASKED | 127);
            out.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
}

/// The first complete frame of `bytes`: its opcode, its payload and the bytes it takes. None when more are needed.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let opcode = bytes.first()? & 0x0f;
    let (head, length): (usize, usize) = match *bytes.get(1)? & 0x7f {
        126 => (
            4,
            usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        ),
        127 => {
            let length = u64::from_be_bytes(*bytes.get(2..10)?.first_chunk()?);
            (10, usize::try_from(length).ok()?)
        }
        short => (2, usize::from(short)),
    };
    let end = head.checked_add(length)?;
    Some((opcode, bytes.get(head..end)?, end))
}

/// The code of a close frame's payload; 1005 ("none given") when it is empty.
#[must_use]
pub fn close_code(payload: &[u8]) -> u16 {
    payload
        .first_chunk()
        .map_or(1005, |code| u16::from_be_bytes(*code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_class_comes_back_and_no_prefix_is_taken_for_a_frame() {
        for length in [0, 1, 125, 126, 127, 0xffff, 0x1_0000] {
            let payload = vec![b'x'; length];
            let mut masked = Vec::new();
            encode(TEXT, &payload, &mut masked);
            // What a server would send: the same without mask bit and key.
            let head = masked.len() - length - 4;
            let mut plain = masked[..head].to_vec();
            plain[1] &= 0x7f;
            plain.extend_from_slice(&payload);
            assert_eq!(decode(&plain), Some((TEXT, &payload[..], plain.len())));
            for cut in [0, 1, head.saturating_sub(1), plain.len() - 1] {
                assert_eq!(decode(&plain[..cut]), None, "{length} cut at {cut}");
            }
        }
    }

    #[test]
    fn close_codes_are_read() {
        assert_eq!(close_code(&[0x0b, 0xb9, b'x']), 3001);
        assert_eq!(close_code(&[]), 1005);
    }
}
