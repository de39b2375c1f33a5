//! What the clients say, and how they recognise what a server says, in the protocols of the servers compared.
//!
//! `Centrifugo` is the client protocol in JSON (Sluice and Centrifugo); `Nchan` publishes and receives bare messages.
//! A payload is `{"t":<monotonic ns>,"p":"xxx"}`. Lines are recognised by their first bytes, not parsed.

use clap::ValueEnum;
use memchr::memmem;
use serde_json::json;

/// Which protocol a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// The client protocol, version 2, in JSON.
    Centrifugo,
    /// Nchan's: the channels are in the address, messages are bare.
    Nchan,
}

/// What one line from the server is.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// The server wants to know whether the client lives: answer with `{}`.
    Ping,
    /// A publication, with the stamp its publisher put in.
    Delivery(u64),
    /// The reply to the command with this id, and its error code (0: none).
    Reply(u32, u32),
    /// Anything else: joins, leaves, pushes of another kind.
    Other,
}

/// How far into a line a stamp is looked for: beyond any envelope of the servers compared.
const STAMP_WITHIN: usize = 384;
/// The payload around its filling: `{"t":`, 19 digits at most, `,"p":"` and `"}`.
const PAYLOAD_FRAME: usize = 5 + 19 + 6 + 2;
/// A stamp has 19 digits, the first of which was made a 1 so that it is no leading zero: taken off again by readers.
pub const LEADING_ONE: u64 = 1_000_000_000_000_000_000;

impl Dialect {
    /// The path of the WebSocket for a client that receives `receives` and publishes to `publishes`.
    #[must_use]
    pub fn path(self, receives: &str, publishes: &str) -> String {
        match self {
            Self::Centrifugo => "/connection/websocket".to_owned(),
            Self::Nchan => format!("/pubsub/{receives}/{publishes}"),
        }
    }

    /// What a client says first: connect as command 1, then subscribe to `channel` as command 2. Empty: say nothing.
    #[must_use]
    pub fn hello(self, token: Option<&str>, channel: Option<&str>) -> String {
        if self == Self::Nchan {
            return String::new();
        }
        let connect = token.map_or_else(|| json!({}), |token| json!({ "token": token }));
        let mut hello = json!({"id": 1, "connect": connect}).to_string();
        if let Some(channel) = channel {
            hello.push('\n');
            hello.push_str(&json!({"id": 2, "subscribe": {"channel": channel}}).to_string());
        }
        hello
    }

    /// One message of `size` bytes to `channel`, stamped with `now_ns`.
    #[must_use]
    pub fn publish(self, id: u32, channel: &str, size: usize, now_ns: u64) -> String {
        let filling = "x".repeat(size.saturating_sub(PAYLOAD_FRAME));
        let payload =
            format!("{{\"t\":{now_ns:019},\"p\":\"{filling}\"}}").replacen("\"t\":0", "\"t\":1", 1);
        match self {
            Self::Centrifugo => {
                format!(
                    "{{\"id\":{id},\"publish\":{{\"channel\":\"{channel}\",\"data\":{payload}}}}}"
                )
            }
            Self::Nchan => payload,
        }
    }

    /// Recognises one line of a text frame.
    #[must_use]
    pub fn recognise(self, line: &[u8]) -> Line {
        if self == Self::Nchan {
            return stamp(line).map_or(Line::Other, Line::Delivery);
        }
        if line == b"{}" {
            return Line::Ping;
        }
        if let Some(rest) = line.strip_prefix(b"{\"id\":") {
            let id = digits(rest) as u32;
            let error = memmem::find(&line[..line.len().min(64)], b"\"error\":{\"code\":")
                .map_or(0, |at| digits(&line[at + 16..]) as u32);
            return Line::Reply(id, error);
        }
        stamp(line).map_or(Line::Other, Line::Delivery)
    }
}

fn stamp(line: &[u8]) -> Option<u64> {
    let at = memmem::find(&line[..line.len().min(STAMP_WITHIN)], b"{\"t\":")?;
    digits(&line[at + 5..]).checked_sub(LEADING_ONE)
}

fn digits(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .take(19)
        .fold(0, |n, byte| n * 10 + u64::from(byte - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_keeps_its_size_and_its_stamp_through_both_dialects() {
        for dialect in [Dialect::Centrifugo, Dialect::Nchan] {
            let said = dialect.publish(7, "f0", 128, 123_456_789);
            let at = said.find("{\"t\"").expect("a payload is in it");
            let payload = &said[at..at + 128];
            serde_json::from_str::<serde_json::Value>(payload)
                .expect("the payload is JSON of the size asked for");
            let pushed =
                format!("{{\"push\":{{\"channel\":\"f0\",\"pub\":{{\"data\":{payload}}}}}}}");
            assert_eq!(
                dialect.recognise(pushed.as_bytes()),
                Line::Delivery(123_456_789)
            );
        }
    }

    #[test]
    fn replies_and_pings_are_told_apart() {
        let centrifugo = Dialect::Centrifugo;
        assert_eq!(centrifugo.recognise(b"{}"), Line::Ping);
        assert_eq!(
            centrifugo.recognise(b"{\"id\":3,\"publish\":{}}"),
            Line::Reply(3, 0)
        );
        let refused =
            b"{\"id\":12,\"error\":{\"code\":100,\"message\":\"internal\",\"temporary\":true}}";
        assert_eq!(centrifugo.recognise(refused), Line::Reply(12, 100));
        assert_eq!(
            centrifugo.recognise(b"{\"push\":{\"channel\":\"a\",\"join\":{}}}"),
            Line::Other
        );
    }
}
