//! Deltas between publications, in the format of the Fossil SCM that the SDKs apply.
//!
//! A delta is the size of the target, a newline, then copies from the old text (`count@offset,`) and literal
//! pieces (`count:bytes`), then a checksum of the target (`sum;`); numbers are written in base 64. Holds no state.
//! Our own because the published crate for it panics on malformed deltas and casts unaligned pointers.

use thiserror::Error;

/// Old text is indexed in blocks of this size; shorter matches are not found.
const BLOCK_BYTES: usize = 16;

/// Blocks with the same hash looked at per position; bounds the work on repetitive input.
const CANDIDATES_MAX: usize = 32;

const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ApplyError {
    #[error("malformed delta")]
    Malformed,
    #[error("delta does not fit the old text")]
    OutOfRange,
    #[error("checksum of the result differs")]
    Checksum,
}

/// What turns `old` into `new`. May be longer than `new`: the caller sends the shorter one. Valid UTF-8 if `new`
/// is, because no piece begins or ends inside a character.
pub fn create(old: &[u8], new: &[u8]) -> Vec<u8> {
    let mut delta = Vec::with_capacity(new.len() / 4 + 32);
    push_number(&mut delta, new.len() as u64);
    delta.push(b'\n');
    let mut written = 0;
    if old.len() >= BLOCK_BYTES && new.len() >= BLOCK_BYTES {
        let blocks = Blocks::index(old);
        let mut rolling = Rolling::over(&new[..BLOCK_BYTES]);
        let mut at = 0;
        loop {
            if let Some(copy) = blocks.longest(new, written, at, rolling.hash()) {
                push_literal(&mut delta, &new[written..copy.to]);
                push_copy(&mut delta, copy);
                written = copy.to + copy.count;
                at = written;
                if at + BLOCK_BYTES > new.len() {
                    break;
                }
                rolling = Rolling::over(&new[at..at + BLOCK_BYTES]);
            } else {
                if at + BLOCK_BYTES >= new.len() {
                    break;
                }
                rolling.roll(new[at], new[at + BLOCK_BYTES]);
                at += 1;
            }
        }
    }
    push_literal(&mut delta, &new[written..]);
    push_number(&mut delta, u64::from(checksum(new)));
    delta.push(b';');
    delta
}

/// The new text.
pub fn apply(old: &[u8], delta: &[u8]) -> Result<Vec<u8>, ApplyError> {
    let mut rest = delta;
    let size = usize::try_from(take_number(&mut rest)?).map_err(|_| ApplyError::Malformed)?;
    take_byte(&mut rest, b'\n')?;
    let mut new = Vec::new();
    loop {
        let number = take_number(&mut rest)?;
        let count = usize::try_from(number).map_err(|_| ApplyError::Malformed)?;
        let (&operator, after) = rest.split_first().ok_or(ApplyError::Malformed)?;
        rest = after;
        if operator == b';' {
            let matches =
                u64::from(checksum(&new)) == number && new.len() == size && rest.is_empty();
            return if matches {
                Ok(new)
            } else {
                Err(ApplyError::Checksum)
            };
        }
        if count > size - new.len() {
            return Err(ApplyError::OutOfRange);
        }
        match operator {
            b'@' => {
                let from =
                    usize::try_from(take_number(&mut rest)?).map_err(|_| ApplyError::Malformed)?;
                take_byte(&mut rest, b',')?;
                let end = from.checked_add(count).ok_or(ApplyError::OutOfRange)?;
                new.extend_from_slice(old.get(from..end).ok_or(ApplyError::OutOfRange)?);
            }
            b':' => {
                let (literal, after) =
                    rest.split_at_checked(count).ok_or(ApplyError::OutOfRange)?;
                new.extend_from_slice(literal);
                rest = after;
            }
            _ => return Err(ApplyError::Malformed),
        }
    }
}

/// A piece of the old text that the new one has at `to`.
#[derive(Debug, Clone, Copy)]
struct Piece {
    from: usize,
    to: usize,
    count: usize,
}

/// The blocks of the old text by hash: `heads` has the last block of a bucket, `next` the one before each.
struct Blocks<'a> {
    old: &'a [u8],
    heads: Vec<u32>,
    next: Vec<u32>,
}

const NO_BLOCK: u32 = u32::MAX;

impl<'a> Blocks<'a> {
    fn index(old: &'a [u8]) -> Self {
        let count = old.len() / BLOCK_BYTES;
        let mut blocks = Self {
            old,
            heads: vec![NO_BLOCK; count.next_power_of_two()],
            next: Vec::with_capacity(count),
        };
        for (block, number) in old.chunks_exact(BLOCK_BYTES).zip(0..NO_BLOCK) {
            let bucket = blocks.bucket(Rolling::over(block).hash());
            blocks.next.push(blocks.heads[bucket]);
            blocks.heads[bucket] = number;
        }
        blocks
    }

    fn bucket(&self, hash: u32) -> usize {
        // The high bits of the product mix all bits of the hash; `heads` has a power of two entries.
        let mixed = (u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        mixed & (self.heads.len() - 1)
    }

    /// The longest copy worth its price over `new[at..]`, which may reach back to `written`.
    fn longest(&self, new: &[u8], written: usize, at: usize, hash: u32) -> Option<Piece> {
        let mut best: Option<Piece> = None;
        let mut block = self.heads[self.bucket(hash)];
        for _ in 0..CANDIDATES_MAX {
            if block == NO_BLOCK {
                break;
            }
            let from = block as usize * BLOCK_BYTES;
            block = self.next[block as usize];
            let forward = common(self.old[from..].iter(), new[at..].iter());
            if forward < BLOCK_BYTES {
                continue;
            }
            let back = common(self.old[..from].iter().rev(), new[written..at].iter().rev());
            let copy = whole_characters(
                new,
                Piece {
                    from: from - back,
                    to: at - back,
                    count: back + forward,
                },
            );
            let price = digits(copy.count) + digits(copy.from) + digits(copy.to - written) + 3;
            if copy.count > price && best.is_none_or(|best| copy.count > best.count) {
                best = Some(copy);
            }
        }
        best
    }
}

fn common<'a>(left: impl Iterator<Item = &'a u8>, right: impl Iterator<Item = &'a u8>) -> usize {
    left.zip(right)
        .take_while(|(left, right)| left == right)
        .count()
}

/// Narrows a copy so that neither end cuts a UTF-8 sequence, which has at most 3 continuation bytes.
fn whole_characters(new: &[u8], mut copy: Piece) -> Piece {
    let continues = |at: usize| new.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    for _ in 0..3 {
        if copy.count > 0 && continues(copy.to) {
            copy = Piece {
                from: copy.from + 1,
                to: copy.to + 1,
                count: copy.count - 1,
            };
        }
    }
    for _ in 0..3 {
        if copy.count > 0 && continues(copy.to + copy.count) {
            copy.count -= 1;
        }
    }
    copy
}

/// A hash of a window of [`BLOCK_BYTES`] that can be moved by a byte.
struct Rolling {
    sum: u16,
    weighted: u16,
}

impl Rolling {
    fn over(window: &[u8]) -> Self {
        let mut rolling = Self {
            sum: 0,
            weighted: 0,
        };
        for &byte in window {
            rolling.sum = rolling.sum.wrapping_add(u16::from(byte));
            rolling.weighted = rolling.weighted.wrapping_add(rolling.sum);
        }
        rolling
    }

    fn roll(&mut self, leaves: u8, enters: u8) {
        let leaves = u16::from(leaves);
        self.sum = self
            .sum
            .wrapping_sub(leaves)
            .wrapping_add(u16::from(enters));
        self.weighted = self
            .weighted
            .wrapping_sub(leaves.wrapping_mul(BLOCK_BYTES as u16))
            .wrapping_add(self.sum);
    }

    fn hash(&self) -> u32 {
        u32::from(self.sum) | u32::from(self.weighted) << 16
    }
}

/// The sum of the big-endian words, the last one filled with zeros.
fn checksum(text: &[u8]) -> u32 {
    let (words, tail) = text.as_chunks::<4>();
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    words.iter().fold(u32::from_be_bytes(last), |sum, word| {
        sum.wrapping_add(u32::from_be_bytes(*word))
    })
}

fn push_literal(delta: &mut Vec<u8>, literal: &[u8]) {
    if !literal.is_empty() {
        push_number(delta, literal.len() as u64);
        delta.push(b':');
        delta.extend_from_slice(literal);
    }
}

fn push_copy(delta: &mut Vec<u8>, copy: Piece) {
    push_number(delta, copy.count as u64);
    delta.push(b'@');
    push_number(delta, copy.from as u64);
    delta.push(b',');
}

fn digits(value: usize) -> usize {
    (value.max(1).ilog2() / 6 + 1) as usize
}

fn push_number(delta: &mut Vec<u8>, value: u64) {
    for place in (0..=value.max(1).ilog2() / 6).rev() {
        delta.push(DIGITS[(value >> (place * 6) & 63) as usize]);
    }
}

/// An empty number is 0, as the SDKs read it.
fn take_number(rest: &mut &[u8]) -> Result<u64, ApplyError> {
    let mut value: u64 = 0;
    while let Some((&byte, after)) = rest.split_first() {
        let Some(digit) = DIGITS.iter().position(|&digit| digit == byte) else {
            break;
        };
        value = value << 6 | digit as u64;
        if value > u64::from(u32::MAX) {
            return Err(ApplyError::Malformed);
        }
        *rest = after;
    }
    Ok(value)
}

fn take_byte(rest: &mut &[u8], expected: u8) -> Result<(), ApplyError> {
    match rest.split_first() {
        Some((&byte, after)) if byte == expected => {
            *rest = after;
            Ok(())
        }
        _ => Err(ApplyError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_change_makes_small_delta() {
        let old =
            br#"{"asks":[["609590","3792.6"],["609600","11507.8"]],"lastTradePrice":"609520"}"#;
        let new =
            br#"{"asks":[["609590","3792.6"],["609600","11507.9"]],"lastTradePrice":"609520"}"#;
        let delta = create(old, new);
        assert!(delta.len() < 30, "{}", String::from_utf8_lossy(&delta));
        assert_eq!(apply(old, &delta).unwrap(), new);
    }

    #[test]
    fn known_deltas() {
        assert_eq!(create(b"", b"").as_slice(), b"0\n0;");
        assert_eq!(
            create(b"abc", b"abcd").as_slice(),
            b"4\n4:abcd1XObD_;".as_slice()
        );
        assert_eq!(apply(b"", b"0\n0;").unwrap(), b"");
        // A copy of the whole, as other implementations write it.
        assert_eq!(
            apply(b"abcd", b"4\n4@0,1XObD_;"),
            apply(b"", b"4\n4:abcd1XObD_;")
        );
    }

    #[test]
    fn refuses_broken_deltas() {
        for delta in [
            "",
            "4",
            "4\n",
            "4\n4:abc",
            "4\n4@1,0;",
            "4\n5:abcde0;",
            "4\n4:abcd0;",
            "4\n4!",
            "~~~~~~~\n",
        ] {
            assert!(apply(b"abcd", delta.as_bytes()).is_err(), "{delta:?}");
        }
        assert_eq!(
            apply(b"abcd", b"4\n4@zzzzz,0;"),
            Err(ApplyError::OutOfRange)
        );
    }

    #[test]
    fn delta_of_text_is_text() {
        let old = "ééééééééééééééééééééé è ççççççççççççççççççç";
        let new = "ééééééééééééééééééééé é ççççççççççççççççççç";
        let delta = create(old.as_bytes(), new.as_bytes());
        assert!(std::str::from_utf8(&delta).is_ok() && delta.len() < new.len());
        assert_eq!(apply(old.as_bytes(), &delta).unwrap(), new.as_bytes());
    }

    fn edited() -> impl Strategy<Value = (String, String)> {
        (
            "[a-cé€😀]{0,200}",
            any::<prop::sample::Index>(),
            any::<prop::sample::Index>(),
            "[a-cè😁]{0,20}",
        )
            .prop_map(|(old, from, to, insert)| {
                let chars: Vec<char> = old.chars().collect();
                let (from, to) = (from.index(chars.len() + 1), to.index(chars.len() + 1));
                let (from, to) = (from.min(to), from.max(to));
                let new = chars[..from]
                    .iter()
                    .copied()
                    .chain(insert.chars())
                    .chain(chars[to..].iter().copied());
                let new = new.collect();
                (old, new)
            })
    }

    proptest! {
        #[test]
        fn apply_undoes_create(old in prop::collection::vec(0u8..4, 0..300), new in prop::collection::vec(0u8..4, 0..300)) {
            prop_assert_eq!(apply(&old, &create(&old, &new)).unwrap(), new);
        }

        #[test]
        fn text_stays_text((old, new) in edited()) {
            let delta = create(old.as_bytes(), new.as_bytes());
            prop_assert!(std::str::from_utf8(&delta).is_ok());
            prop_assert_eq!(apply(old.as_bytes(), &delta).unwrap(), new.as_bytes());
        }

        #[test]
        fn any_bytes_apply_without_panic(old in any::<Vec<u8>>(), delta in "[0-9A-Z_a-z~@:;,\n]{0,40}") {
            let _ = apply(&old, delta.as_bytes());
        }
    }
}
