//! Checksums of requests whose application has a salt. Pure.
//!
//! The rule is that of Countly's servers: of the query string, and for POST of the body too, the checksum parameter is
//! cut out as text, the salt appended, and the result hashed. One that fits is enough. A failed check is answered with
//! success, or clients would repeat the request for ever.

use std::borrow::Cow;

use memchr::memmem;
use ring::digest::{self, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

#[cfg(test)]
mod tests;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mismatch {
    /// Neither `checksum` nor `checksum256` was given.
    Absent,
    Wrong,
}

/// What the request carries, decoded.
#[derive(Debug, Clone, Copy)]
pub struct Claimed<'a> {
    pub checksum: Option<&'a [u8]>,
    pub checksum256: Option<&'a [u8]>,
}

/// `candidates`: the texts of which one has to fit.
pub fn check(claimed: Claimed<'_>, salt: &[u8], candidates: &[&[u8]]) -> Result<(), Mismatch> {
    let (algorithm, parameter, value) = match (claimed.checksum, claimed.checksum256) {
        (Some(value), _) => (&SHA1_FOR_LEGACY_USE_ONLY, &b"checksum="[..], value),
        (None, Some(value)) => (&SHA256, &b"checksum256="[..], value),
        (None, None) => return Err(Mismatch::Absent),
    };
    let pair = [parameter, value].concat();
    let fits = candidates
        .iter()
        .any(|candidate| is_hex_of(value, &hash(algorithm, candidate, &pair, salt)));
    if fits { Ok(()) } else { Err(Mismatch::Wrong) }
}

fn hash(
    algorithm: &'static digest::Algorithm,
    candidate: &[u8],
    pair: &[u8],
    salt: &[u8],
) -> digest::Digest {
    let with_ampersand = [b"&", pair].concat();
    let text = without_first(Cow::Borrowed(candidate), &with_ampersand);
    let text = without_first(text, pair);
    let mut context = Context::new(algorithm);
    context.update(&text);
    context.update(salt);
    context.finish()
}

fn without_first<'a>(text: Cow<'a, [u8]>, part: &[u8]) -> Cow<'a, [u8]> {
    match memmem::find(&text, part) {
        None => text,
        Some(at) => Cow::Owned([&text[..at], &text[at + part.len()..]].concat()),
    }
}

/// Whether the text is the digest in hexadecimal, in either case.
fn is_hex_of(text: &[u8], digest: &digest::Digest) -> bool {
    let bytes = digest.as_ref();
    text.len() == 2 * bytes.len()
        && text.chunks_exact(2).zip(bytes).all(|(pair, byte)| {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            digit(0) == Some(u32::from(byte >> 4)) && digit(1) == Some(u32::from(byte & 15))
        })
}
