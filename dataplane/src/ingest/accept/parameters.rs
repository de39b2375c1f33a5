//! Parameters of a query string or a form: `name=value&name=value`, percent-encoded, `+` for a space. Pure.
//!
//! Nothing is collected: whoever asks sees each pair once and decodes only what it needs.

use std::borrow::Cow;
use std::iter;

use memchr::{memchr, memchr2};

/// The pairs in order, as they were sent. A name without `=` has an empty value; empty pairs are skipped.
pub fn pairs(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut rest = text;
    iter::from_fn(move || {
        while rest.first() == Some(&b'&') {
            rest = &rest[1..];
        }
        if rest.is_empty() {
            return None;
        }
        // Bodies are mostly long values: whole words are looked at, not bytes.
        let end = memchr(b'&', rest).unwrap_or(rest.len());
        let (pair, after) = rest.split_at(end);
        rest = after;
        Some(match memchr(b'=', pair) {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        })
    })
}

/// What an encoded name or value says. An incomplete escape stands for itself.
pub fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr2(b'%', b'+', text) else {
        return Cow::Borrowed(text);
    };
    let mut out = Vec::with_capacity(text.len());
    out.extend_from_slice(&text[..first]);
    let mut rest = &text[first..];
    while let [byte, after @ ..] = rest {
        let (decoded, next) = match (byte, after) {
            (b'+', _) => (b' ', after),
            (b'%', [high, low, beyond @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, beyond),
                _ => (b'%', after),
            },
            (byte, _) => (*byte, after),
        };
        out.push(decoded);
        rest = next;
    }
    Cow::Owned(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

/// The last value of a name, decoded.
pub fn find<'a>(text: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    pairs(text)
        .filter(|(found, _)| *decode(found) == *name)
        .last()
        .map(|(_, value)| decode(value))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_as_forms_have_them() {
        let found: Vec<_> = pairs(b"a=1&&b&=c&d=e=f&").collect();
        let expected: [(&[u8], &[u8]); 4] =
            [(b"a", b"1"), (b"b", b""), (b"", b"c"), (b"d", b"e=f")];
        assert_eq!(found, expected);
    }

    #[test]
    fn escapes() {
        for (encoded, decoded) in [
            ("plain", "plain"),
            ("a+b%20c", "a b c"),
            ("%41%6a%6A", "Ajj"),
            ("100%", "100%"),
            ("%4", "%4"),
            ("%zz%41", "%zzA"),
            ("%%41", "%A"),
        ] {
            assert_eq!(
                *decode(encoded.as_bytes()),
                *decoded.as_bytes(),
                "{encoded}"
            );
        }
    }

    #[test]
    fn the_last_of_a_name_counts() {
        assert_eq!(find(b"a=1&b=2&%61=3", b"a").as_deref(), Some(&b"3"[..]));
        assert_eq!(find(b"a=1", b"b"), None);
    }

    proptest! {
        #[test]
        fn decodes_what_others_decode(text in "[a-z%+0-9=]{0,40}") {
            let theirs: Vec<_> = form_urlencoded::parse(text.as_bytes())
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect();
            let ours: Vec<_> = pairs(text.as_bytes())
                .map(|(name, value)| {
                    let text = |bytes| String::from_utf8_lossy(&decode(bytes)).into_owned();
                    (text(name), text(value))
                })
                .collect();
            prop_assert_eq!(ours, theirs);
        }

        #[test]
        fn never_longer_never_a_panic(text in vec(any::<u8>(), 0..200)) {
            prop_assert!(decode(&text).len() <= text.len());
        }
    }
}
