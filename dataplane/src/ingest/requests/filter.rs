//! Which requests are meant, from a query string.
//!
//! `application=NAME` (`(unknown)` for unknown keys), `key=BYTES` (percent-encoded), `from=TIME` and `until=TIME` (see
//! `time`), `state=waiting|delivered|parked|discarded|replayed`, `after=ID`, `limit=N`. What is not understood is an
//! error: a filter that is left out by mistake means more requests than one wanted.

use std::sync::Arc;

use bytes::Bytes;

use super::time::parse_ms;
use crate::clock::unix_ms;
use crate::ingest::metrics::UNKNOWN_APPLICATION;
use crate::store::queue::{EntryId, Filter, Outcome, State};

pub(super) const LIMIT_DEFAULT: usize = 100;
/// Of one answer; `next` leads on.
pub(super) const LIMIT_MAX: usize = 1000;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    pub(super) filter: Filter,
    pub(super) after: Option<EntryId>,
    pub(super) limit: usize,
}

impl Query {
    pub(super) fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self {
            filter: Filter::default(),
            after: None,
            limit: LIMIT_DEFAULT,
        };
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let bytes = decode(value);
            parsed.set(name, bytes)?;
        }
        Ok(parsed)
    }

    fn set(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), String> {
        if name == "key" {
            self.filter.key = Some(Bytes::from(bytes));
            return Ok(());
        }
        let value = String::from_utf8(bytes).map_err(|_| format!("{name}: not UTF-8"))?;
        match name {
            "application" if value == UNKNOWN_APPLICATION => {
                self.filter.application = Some(Arc::default());
            }
            "application" => self.filter.application = Some(value.into()),
            "from" => self.filter.from_ms = Some(time(name, &value)?),
            "until" => self.filter.until_ms = Some(time(name, &value)?),
            "state" => self.filter.state = Some(state(&value)?),
            "after" => {
                let id = value.parse();
                self.after = Some(id.map_err(|_| format!("after: {value:?} is no id"))?);
            }
            "limit" => {
                let limit = value.parse().ok();
                let limit = limit.filter(|limit| (1..=LIMIT_MAX).contains(limit));
                self.limit = limit.ok_or_else(|| format!("limit: expected 1 to {LIMIT_MAX}"))?;
            }
            _ => return Err(format!("unknown parameter {name:?}")),
        }
        Ok(())
    }
}

fn time(name: &str, value: &str) -> Result<u64, String> {
    parse_ms(value, unix_ms()).ok_or_else(|| {
        format!("{name}: expected a time such as 2026-01-31T12:00:00Z, unix seconds, or 15m for fifteen minutes ago")
    })
}

fn state(value: &str) -> Result<State, String> {
    match value {
        "waiting" => Ok(State::Waiting),
        "delivered" => Ok(State::Settled(Outcome::Delivered)),
        "parked" => Ok(State::Settled(Outcome::Parked)),
        "discarded" => Ok(State::Settled(Outcome::Discarded)),
        "replayed" => Ok(State::Settled(Outcome::Replayed)),
        _ => Err("state: expected waiting, delivered, parked, discarded or replayed".to_owned()),
    }
}

/// Percent-decoding as in forms; what is no escape stays as it is.
fn decode(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        index += 1;
        let escaped = (digit(bytes.get(index)), digit(bytes.get(index + 1)));
        decoded.push(match (byte, escaped) {
            (b'+', _) => b' ',
            (b'%', (Some(high), Some(low))) => {
                index += 2;
                // Two hexadecimal digits are a byte.
                (high * 16 + low) as u8
            }
            (byte, _) => *byte,
        });
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_read() {
        let id = EntryId(7 << 80);
        let text = format!(
            "application=a%20b&key=%ff+x%zz&from=1700000000&state=parked&after={id}&limit=7"
        );
        let query = Query::parse(&text).unwrap();
        let expected = Query {
            filter: Filter {
                application: Some("a b".into()),
                key: Some(Bytes::from_static(b"\xff x%zz")),
                from_ms: Some(1_700_000_000_000),
                until_ms: None,
                state: Some(State::Settled(Outcome::Parked)),
            },
            after: Some(id),
            limit: 7,
        };
        assert_eq!(query, expected);
    }

    #[test]
    fn the_lane_of_unknown_keys_has_a_name() {
        let query = Query::parse("application=(unknown)").unwrap();
        assert_eq!(query.filter.application.as_deref(), Some(""));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for text in [
            "x=1",
            "state=gone",
            "limit=0",
            "limit=1001",
            "after=7",
            "from=yesterday",
            "application=%ff",
        ] {
            assert!(Query::parse(text).is_err(), "{text}");
        }
    }
}
