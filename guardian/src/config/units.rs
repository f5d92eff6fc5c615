//! Durations and sizes as people write them: a number with its unit.

use std::{fmt::Write as _, time::Duration};

/// The units of time, the longest first, in nanoseconds.
const TIME: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// The units of size in bytes, those first that `format_size` may use.
const SIZE: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
];

/// Why a text is not a duration or a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// Not a duration.
    #[error("`{0}` is not a duration: write a number with its unit, such as 500ms, 2s, 15m or 1h30m")]
    Duration(String),
    /// A number alone.
    #[error("`{0}` has no unit: write {0}s for seconds, or ms, m, h")]
    NoTimeUnit(String),
    /// Not a size.
    #[error("`{0}` is not a size: write a number with its unit, such as 512KiB, 64MiB or 1GiB")]
    Size(String),
    /// A number alone.
    #[error("`{0}` has no unit: write {0}B for bytes, or KiB, MiB, GiB")]
    NoSizeUnit(String),
}

/// Reads a duration such as `2s`, `1.5s`, `15m` or `1h30m`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = || UnitError::Duration(text.to_owned());
    if is_number(text) && text != "0" {
        return Err(UnitError::NoTimeUnit(text.to_owned()));
    }
    let mut rest = text.trim();
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (nanos, tail) = quantity(rest, &TIME).ok_or_else(wrong)?;
        total = total.checked_add(nanos).ok_or_else(wrong)?;
        rest = tail.trim_start();
    }
    Ok(Duration::from_nanos(total))
}

/// Writes a duration so that [`parse_duration`] reads the same back: `90s` as `1m30s`.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".into();
    }
    let mut out = String::new();
    for (unit, nanos) in TIME {
        if rest >= nanos {
            let _ = write!(out, "{}{unit}", rest / nanos);
            rest %= nanos;
        }
    }
    out
}

/// Reads a size in bytes such as `64MiB`.
pub fn parse_size(text: &str) -> Result<u64, UnitError> {
    if is_number(text) {
        return Err(UnitError::NoSizeUnit(text.to_owned()));
    }
    match quantity(text.trim(), &SIZE) {
        Some((bytes, "")) => Ok(bytes),
        _ => Err(UnitError::Size(text.to_owned())),
    }
}

/// Writes a size so that [`parse_size`] reads the same back.
pub fn format_size(bytes: u64) -> String {
    let (unit, scale) = SIZE
        .into_iter()
        .take(4)
        .find(|(_, scale)| bytes >= *scale && bytes.is_multiple_of(*scale))
        .unwrap_or(("B", 1));
    format!("{}{unit}", bytes / scale)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// One number with its unit at the head of `text`: its value in the smallest unit, and the rest.
fn quantity<'a>(text: &'a str, units: &[(&str, u64)]) -> Option<(u64, &'a str)> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, rest) = text.split_at(end);
    let rest = rest.trim_start();
    let unit_end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(unit_end);
    let scale = units.iter().find(|(name, _)| *name == unit)?.1;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut value = whole.parse::<u64>().ok()?.checked_mul(scale)?;
    if number.contains('.') {
        let digits = u32::try_from(fraction.len()).ok()?;
        let part = fraction.parse::<u64>().ok()?.checked_mul(scale)? / 10u64.checked_pow(digits)?;
        value = value.checked_add(part)?;
    }
    Some((value, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write_back() {
        for (text, millis, back) in [
            ("2s", 2_000, "2s"),
            ("15m", 900_000, "15m"),
            ("1h30m", 5_400_000, "1h30m"),
            ("1.5s", 1_500, "1s500ms"),
            ("90 s", 90_000, "1m30s"),
            ("0", 0, "0s"),
            ("2d", 172_800_000, "2d"),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(format_duration(duration), back);
            assert_eq!(parse_duration(back), Ok(duration));
        }
    }

    #[test]
    fn wrong_durations_say_what_would_be_right() {
        for text in ["", "s", "2", "2 parsecs", "-1s", "1.s", "1..5s", "99999999999999999999s", "never", "é"]
        {
            let error = parse_duration(text).unwrap_err().to_string();
            assert!(error.contains(text) && (error.contains("2s") || error.contains("15m")), "{error}");
        }
    }

    #[test]
    fn sizes_read_and_write_back() {
        for (text, bytes, back) in
            [("64MiB", 64 << 20, "64MiB"), ("1GB", 1_000_000_000, "1000000000B"), ("1.5KiB", 1536, "1536B")]
        {
            assert_eq!(parse_size(text), Ok(bytes));
            assert_eq!(format_size(bytes), back);
            assert_eq!(parse_size(back), Ok(bytes));
        }
        assert!(parse_size("64").unwrap_err().to_string().contains("64B"));
        assert!(parse_size("64M").is_err() && parse_size("64MiB x").is_err());
    }
}
