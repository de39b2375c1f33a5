//! GEP-2257 durations: `1h30m`, `250ms`.

use std::time::Duration;

/// Groups of a number and a unit that a duration may have.
const GROUPS_MAX: usize = 4;
const DIGITS_MAX: usize = 5;
/// Units and their milliseconds; `ms` before `m`, as both start with the same letter.
const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Parses what `^([0-9]{1,5}(h|m|s|ms)){1,4}$` allows.
pub(crate) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total_ms: u64 = 0;
    for _ in 0..GROUPS_MAX {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > DIGITS_MAX {
            return None;
        }
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_ms;
        (unit_ms, rest) = unit(rest)?;
        total_ms += number * unit_ms;
        if rest.is_empty() {
            return Some(Duration::from_millis(total_ms));
        }
    }
    None
}

/// For texts that the schema has accepted; zero stands for one that was reported.
pub(super) fn parse_or_zero(text: &str) -> Duration {
    parse(text).unwrap_or_default()
}

/// As users write it.
pub(crate) fn text(time: Duration) -> String {
    let mut rest = time.as_millis();
    let mut text = String::new();
    for (unit, ms) in UNITS.into_iter().rev() {
        let number = rest / u128::from(ms);
        rest %= u128::from(ms);
        if number > 0 {
            text += &format!("{number}{unit}");
        }
    }
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text
    }
}

/// Length of the unit in milliseconds, and what follows it.
fn unit(text: &str) -> Option<(u64, &str)> {
    UNITS
        .into_iter()
        .find_map(|(unit, ms)| text.strip_prefix(unit).map(|rest| (ms, rest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let good = [
            ("0s", 0),
            ("25s", 25_000),
            ("1h30m", 5_400_000),
            ("1m500ms", 60_500),
            ("99999h", 359_996_400_000),
        ];
        for (text, ms) in good {
            assert_eq!(parse(text), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in ["0s", "250ms", "1m500ms", "1h30m", "24h"] {
            assert_eq!(super::text(parse(text).unwrap()), text);
        }
        for bad in [
            "",
            "5",
            "s",
            "1.5h",
            "-1s",
            "1d",
            "1 s",
            "100000s",
            "1s1s1s1s1s",
            "1sx",
            "١s",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
