//! States of a block's entries: one character each, and records that say more. Pure.
//!
//! The script that writes them adds a record only when it changes a state, so the last record of an entry is the one that
//! counts.

use bytes::Bytes;

use super::block::Mark;
use crate::store::codec::{Reader, put_bytes, put_varint};
pub(super) use crate::store::queue::record::What;
use crate::store::queue::record::{lost, outcome_of};
use crate::store::queue::{Outcome, Verdict};

/// What is known of a block's entries.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct States {
    /// By index; `None`: it waits.
    pub(super) outcomes: Vec<Option<Outcome>>,
    records: Vec<(u16, What)>,
}

impl What {
    /// The state that a script writes down, or `a`.
    pub(super) fn state(&self) -> &'static [u8] {
        const STATES: &[u8] = b"a1234";
        &STATES[usize::from(self.code())..][..1]
    }

    pub(super) fn record(&self, index: u16) -> Bytes {
        let mut body = Vec::with_capacity(32);
        put_varint(&mut body, u64::from(index));
        self.put(&mut body, |body, text| put_bytes(body, text.as_bytes()));
        let mut out = Vec::with_capacity(body.len() + 2);
        put_bytes(&mut out, &body);
        out.into()
    }
}

impl States {
    pub(super) fn waiting(count: usize) -> Self {
        Self {
            outcomes: vec![None; count],
            records: Vec::new(),
        }
    }

    /// As the store has them. What is not there, damaged, or of another block: all wait.
    pub(super) fn parse(stored: &Bytes, mark: Mark, count: u16) -> Self {
        let count = usize::from(count);
        if stored.len() < 4 + count || stored[..4] != mark {
            return Self::waiting(count);
        }
        let codes = stored[4..4 + count].iter();
        let outcomes = codes
            .map(|code| outcome_of(code.wrapping_sub(b'0')))
            .collect();
        let mut reader = Reader::new(stored.slice(4 + count..));
        let mut records = Vec::new();
        while let Some(record) = reader.bytes().and_then(parse_record) {
            records.push(record);
        }
        Self { outcomes, records }
    }

    pub(super) fn all_settled(&self) -> bool {
        self.outcomes.iter().all(Option::is_some)
    }

    /// `None`: it waits.
    pub(super) fn verdict(&self, index: usize) -> Option<Verdict> {
        let outcome = (*self.outcomes.get(index)?)?;
        let last = self.records.iter().rev().find_map(|(of, what)| match what {
            What::Settled(verdict) if usize::from(*of) == index => Some(verdict.clone()),
            What::Settled(_) | What::Attempts(_) => None,
        });
        Some(last.unwrap_or_else(|| lost(outcome)))
    }

    pub(super) fn attempts(&self, index: usize) -> u32 {
        let of = |(of, what): &(u16, What)| match what {
            What::Attempts(attempts) if usize::from(*of) == index => Some(*attempts),
            What::Settled(_) | What::Attempts(_) => None,
        };
        self.records.iter().rev().find_map(of).unwrap_or(0)
    }
}

fn parse_record(record: Bytes) -> Option<(u16, What)> {
    let mut reader = Reader::new(record);
    let index = reader.varint()?.try_into().ok()?;
    let what = What::take(&mut reader, Reader::text)?;
    Some((index, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_record_counts() {
        let verdict = |outcome, reason: &str| Verdict {
            outcome,
            reason: reason.into(),
            http_status: 503,
            attempts: 4,
            upstream: "main".into(),
            at_ms: 1_800_000_000_000,
        };
        let parked = verdict(Outcome::Parked, "AttemptsExhausted");
        let replayed = verdict(Outcome::Replayed, &"x".repeat(300));
        let mut stored = b"mark041".to_vec();
        for (index, what) in [
            (0, What::Attempts(2)),
            (0, What::Attempts(3)),
            (1, What::Settled(parked)),
            (1, What::Settled(replayed.clone())),
        ] {
            stored.extend_from_slice(&what.record(index));
        }
        let states = States::parse(&stored.clone().into(), *b"mark", 3);
        assert_eq!(states.outcomes[0], None);
        assert_eq!((states.attempts(0), states.attempts(1)), (3, 0));
        let found = states.verdict(1).unwrap();
        assert_eq!(
            (found.outcome, found.reason.len()),
            (Outcome::Replayed, 256)
        );
        assert_eq!(found.at_ms, replayed.at_ms);
        assert_eq!(states.verdict(0), None);
        assert_eq!(states.verdict(2).unwrap().outcome, Outcome::Delivered);
        assert!(!states.all_settled());
        let other = States::parse(&stored.clone().into(), *b"else", 3);
        assert_eq!(other.outcomes, [None; 3]);
        for cut in 0..stored.len() {
            let _ = States::parse(&Bytes::copy_from_slice(&stored[..cut]), *b"mark", 3);
        }
    }

    /// Processes of other versions read them.
    #[test]
    fn the_bytes_of_a_record_stay_as_they_are() {
        let settled = |outcome| {
            What::Settled(Verdict {
                outcome,
                reason: "AttemptsExhausted".into(),
                http_status: 503,
                attempts: 300,
                upstream: format!("{}\u{e4}", "u".repeat(255)).into(),
                at_ms: 1_800_000_000_123,
            })
        };
        assert_eq!(What::Attempts(200).state(), b"a");
        assert_eq!(
            What::Attempts(200).record(130),
            b"\x05\x82\x01\0\xc8\x01".as_slice()
        );
        for (outcome, state) in [
            (Outcome::Delivered, 1),
            (Outcome::Parked, 2),
            (Outcome::Discarded, 3),
            (Outcome::Replayed, 4),
        ] {
            let what = settled(outcome);
            assert_eq!(what.state(), [b'0' + state]);
            let head = b"\xa0\x02\x82\x01".as_slice();
            let rest =
                b"\xac\x02\xf7\x03\xfb\xa0\xf1\xc2\xb14\x11AttemptsExhausted\xff\x01".as_slice();
            let bytes = [head, &[state], rest, &[b'u'; 255]].concat();
            assert_eq!(what.record(130), bytes);
        }
    }
}
