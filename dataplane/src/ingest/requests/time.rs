//! Times as operators read and write them.
//!
//! Written as `2026-01-31T12:00:00.123Z`. Read as that (with any offset, fraction optional), as unix seconds or
//! milliseconds, or as an age: `90s`, `15m`, `2h`, `1d` ago.

const DAY_S: i64 = 86_400;
/// Unix times from here on are milliseconds: as seconds they would be in the year 5138.
const MILLISECONDS_FROM: u64 = 100_000_000_000;

pub fn format_ms(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1000).unwrap_or(i64::MAX);
    let (year, month, day) = civil(seconds.div_euclid(DAY_S));
    let second = seconds.rem_euclid(DAY_S);
    let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
    let millis = ms % 1000;
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}

/// `now_ms`: what an age counts from.
pub fn parse_ms(text: &str, now_ms: u64) -> Option<u64> {
    if let Ok(number) = text.parse::<u64>() {
        return if number >= MILLISECONDS_FROM {
            Some(number)
        } else {
            number.checked_mul(1000)
        };
    }
    parse_age(text)
        .map(|age_ms| now_ms.saturating_sub(age_ms))
        .or_else(|| parse_rfc3339(text))
}

fn parse_age(text: &str) -> Option<u64> {
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let number = text.strip_suffix(unit)?.parse::<u64>().ok()?;
    number.checked_mul(seconds * 1000)
}

fn parse_rfc3339(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        let all_digits = digits.bytes().all(|byte| byte.is_ascii_digit());
        all_digits.then(|| digits.parse().ok()).flatten()
    };
    let is = |index: usize, allowed: &[u8]| {
        text.as_bytes()
            .get(index)
            .is_some_and(|byte| allowed.contains(byte))
    };
    let marks = is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":");
    if !marks {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let in_range = (1..=12).contains(&month) && hour < 24 && minute < 60 && second <= 60;
    if !in_range || day < 1 || civil(days(year, month, day)) != (year, month, day) {
        return None;
    }
    let (millis, zone) = fraction(text.get(19..)?)?;
    let seconds = days(year, month, day) * DAY_S + hour * 3600 + minute * 60 + second - zone;
    u64::try_from(seconds * 1000 + millis).ok()
}

/// Milliseconds, and seconds east of UTC.
fn fraction(rest: &str) -> Option<(i64, i64)> {
    let (fraction, zone) = match rest.strip_prefix('.') {
        None => ("", rest),
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
    };
    let millis = fraction
        .bytes()
        .chain(*b"000")
        .take(3)
        .fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    if zone.eq_ignore_ascii_case("z") {
        return Some((millis, 0));
    }
    let (sign, offset) = match zone.split_at_checked(1)? {
        ("+", offset) => (1, offset),
        ("-", offset) => (-1, offset),
        _ => return None,
    };
    let (hours, minutes) = offset.split_once(':')?;
    let (hours, minutes) = (hours.parse::<u8>().ok()?, minutes.parse::<u8>().ok()?);
    let valid = offset.len() == 5 && hours < 24 && minutes < 60;
    valid.then(|| {
        (
            millis,
            sign * (i64::from(hours) * 3600 + i64::from(minutes) * 60),
        )
    })
}

/// Days since 1970-01-01 of a date in the Gregorian calendar; years begin in March, so that leap days end them.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_times() {
        assert_eq!(format_ms(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(format_ms(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(format_ms(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
        for (text, expected) in [
            ("1700000000", Some(1_700_000_000_000)),
            ("1700000000123", Some(1_700_000_000_123)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000_000)),
            ("2023-11-14T22:13:20.12345Z", Some(1_700_000_000_123)),
            ("2023-11-14 23:13:20+01:00", Some(1_700_000_000_000)),
            ("15m", Some(100_000)),
            ("1d", Some(0)),
            ("2023-02-29T00:00:00Z", None),
            ("2023-13-01T00:00:00Z", None),
            ("2023-11-14T22:13:20", None),
            ("2023-11-14T22:13:20+1:00", None),
            ("tomorrow", None),
            ("m", None),
            ("", None),
        ] {
            assert_eq!(parse_ms(text, 1_000_000), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(ms in 0u64..253_402_300_800_000) {
            prop_assert_eq!(parse_rfc3339(&format_ms(ms)), Some(ms));
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,40}") {
            parse_ms(&text, 0);
        }
    }
}
