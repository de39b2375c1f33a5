//! The patterns of the CRD, as code and in words.
//!
//! The schema has few of them, so each is a function; a test makes sure that none is missing here.

use crate::gateway::{
    CHANNEL_NAMESPACE, DATA_KEY, DURATION, HEADER, IMAGE, LABEL, OBJECT_NAME, PARAMETER,
    PROBE_PATH, QUANTITY, URL_PATH, quantity,
};

use super::duration;

/// Whether the text matches. An unknown pattern matches everything.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let all = |allowed: fn(u8) -> bool| !text.is_empty() && text.bytes().all(allowed);
    match pattern {
        DURATION => duration::parse(text).is_some(),
        OBJECT_NAME => all(|b| is_label(b) || b == b'.') && ends_are_alphanumeric(text),
        LABEL => all(is_label) && ends_are_alphanumeric(text),
        DATA_KEY => all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
        CHANNEL_NAMESPACE => {
            text.len() >= 2 && all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        }
        HEADER => all(|b| b.is_ascii_alphanumeric() || b"-!#$%&'*+.^_`|~".contains(&b)),
        PARAMETER => all(|b| b.is_ascii_alphanumeric() || b"-_.~:$@!*[]".contains(&b)),
        URL_PATH => text.starts_with('/') && all(is_in_path),
        PROBE_PATH => text.starts_with('/') && all(|b| is_in_path(b) || b"%?".contains(&b)),
        IMAGE => {
            text.bytes()
                .next()
                .is_some_and(|b| b.is_ascii_alphanumeric())
                && all(|b| b.is_ascii_alphanumeric() || b"-._/:@".contains(&b))
        }
        QUANTITY => quantity::milli(text).is_some(),
        _ => true,
    }
}

/// What a text that does not match is not.
pub(crate) fn noun(pattern: &str) -> &'static str {
    match pattern {
        DURATION => "a duration",
        URL_PATH | PROBE_PATH => "a path",
        QUANTITY => "a quantity",
        IMAGE => "a reference to an image",
        _ => "a valid name",
    }
}

/// What to write, in words.
pub(crate) fn description(pattern: &str) -> &'static str {
    match pattern {
        DURATION => "a duration such as 30s, 5m, 1h30m or 250ms",
        OBJECT_NAME => "lower-case letters, digits, - and ., with a letter or digit first and last",
        LABEL => "lower-case letters, digits and -, with a letter or digit first and last",
        DATA_KEY => "letters, digits, -, _ and .",
        CHANNEL_NAMESPACE => "two or more letters, digits, - and _",
        HEADER => "the name of a header, such as X-App-Key",
        PARAMETER => "letters, digits and -_.~:$@!*[]",
        URL_PATH => "a path such as /collect, of letters, digits and -._~!$&'()*+,;=:@/",
        PROBE_PATH => "a path such as /ping, with or without a query",
        QUANTITY => "a quantity such as 500m, 2 or 512Mi",
        IMAGE => "a reference to an image, such as example.com/sluice:1.0",
        _ => "a value of the form the reference gives",
    }
}

fn is_in_path(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte)
}

fn is_label(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-'
}

fn ends_are_alphanumeric(text: &str) -> bool {
    let first = text.bytes().next();
    let last = text.bytes().next_back();
    [first, last]
        .iter()
        .flatten()
        .all(u8::is_ascii_alphanumeric)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    proptest! {
        #[test]
        fn code_and_patterns_agree(text in prop_oneof![
            "[-a-zA-Z0-9._/%?]{0,8}", "(/[ -~]{0,6}){0,2}", "([0-9]{1,6}(h|m|s|ms|x)){0,5}", "\\PC{0,4}", "[a-z][ -~]?\n?", "[0-9]{0,16}(\\.[0-9]{0,10})?[mkKMGTPi]{0,2}",
        ]) {
            for pattern in [
                CHANNEL_NAMESPACE, DATA_KEY, DURATION, HEADER, IMAGE, LABEL, OBJECT_NAME, PARAMETER, PROBE_PATH, QUANTITY,
                URL_PATH,
            ] {
                let matches = Regex::new(pattern).unwrap().is_match(&text);
                prop_assert_eq!(super::matches(pattern, &text), matches, "{:?} {}", text, pattern);
            }
        }
    }
}
