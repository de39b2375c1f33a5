//! What stores write down of an entry's fate. Whose fate it is, and how texts are kept, is up to the store. Pure.

use std::sync::Arc;

use super::{Outcome, Verdict};
use crate::store::codec::{Reader, put_varint};

/// Reasons and names of upstreams; longer ones are cut.
const TEXT_BYTES_MAX: usize = 256;
/// Stands where an outcome's code would.
const ATTEMPTS_CODE: u8 = 0;

#[derive(Debug, Clone, PartialEq)]
pub(in crate::store) enum What {
    Settled(Verdict),
    Attempts(u32),
}

impl What {
    pub(in crate::store) fn code(&self) -> u8 {
        match self {
            Self::Attempts(_) => ATTEMPTS_CODE,
            Self::Settled(verdict) => outcome_code(verdict.outcome),
        }
    }

    /// `put_text`: the store's way to keep reasons and names of upstreams.
    pub(in crate::store) fn put<'a>(
        &'a self,
        out: &mut Vec<u8>,
        mut put_text: impl FnMut(&mut Vec<u8>, &'a str),
    ) {
        out.push(self.code());
        match self {
            Self::Attempts(attempts) => put_varint(out, u64::from(*attempts)),
            Self::Settled(verdict) => {
                put_varint(out, u64::from(verdict.attempts));
                put_varint(out, u64::from(verdict.http_status));
                put_varint(out, verdict.at_ms);
                put_text(out, cut(&verdict.reason));
                put_text(out, cut(&verdict.upstream));
            }
        }
    }

    pub(in crate::store) fn take(
        reader: &mut Reader,
        mut take_text: impl FnMut(&mut Reader) -> Option<Arc<str>>,
    ) -> Option<Self> {
        Some(match reader.u8()? {
            ATTEMPTS_CODE => Self::Attempts(reader.varint32()?),
            code => Self::Settled(Verdict {
                outcome: outcome_of(code)?,
                attempts: reader.varint32()?,
                http_status: reader.varint()?.try_into().ok()?,
                at_ms: reader.varint()?,
                reason: take_text(reader)?,
                upstream: take_text(reader)?,
            }),
        })
    }
}

/// The verdict of an entry whose record was lost; of its fate, only the outcome is known.
pub(in crate::store) fn lost(outcome: Outcome) -> Verdict {
    Verdict {
        outcome,
        reason: Arc::default(),
        http_status: 0,
        attempts: 0,
        upstream: Arc::default(),
        at_ms: 0,
    }
}

fn outcome_code(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Delivered => 1,
        Outcome::Parked => 2,
        Outcome::Discarded => 3,
        Outcome::Replayed => 4,
    }
}

pub(in crate::store) fn outcome_of(code: u8) -> Option<Outcome> {
    Some(match code {
        1 => Outcome::Delivered,
        2 => Outcome::Parked,
        3 => Outcome::Discarded,
        4 => Outcome::Replayed,
        _ => return None,
    })
}

/// As much of a text as is kept.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_come_back_from_their_codes() {
        let known = (1..=4).map(|code| outcome_of(code).map(outcome_code));
        assert!(known.eq((1..=4).map(Some)));
        assert!(outcome_of(ATTEMPTS_CODE).is_none() && outcome_of(5).is_none());
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(&"x".repeat(300)).len(), 256);
        assert_eq!(cut(&format!("{}\u{e4}", "x".repeat(255))).len(), 255);
    }
}
