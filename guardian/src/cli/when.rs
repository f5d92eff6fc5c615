//! Times as people give them to `--since` and `--until`.

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

use crate::config::units::parse_duration;

/// Why a text is not a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{option}: `{text}` is not a time: write 1h (ago), 03:02, 2026-11-22, \"2026-11-22 03:02\" or 2026-11-22T03:02:11Z"
)]
pub struct TimeError {
    option: &'static str,
    text: String,
}

/// Reads a time; one without a zone is in `zone`, one without a date is the last of its kind before `now`.
pub fn parse(
    option: &'static str,
    text: &str,
    now: Timestamp,
    zone: &TimeZone,
) -> Result<Timestamp, TimeError> {
    let wrong = || TimeError { option, text: text.to_owned() };
    if let Ok(ago) = parse_duration(text) {
        let ago = SignedDuration::try_from(ago).map_err(|_| wrong())?;
        return now.checked_sub(ago).map_err(|_| wrong());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    let local = if let Ok(moment) = text.parse::<civil::DateTime>() {
        moment
    } else if let Ok(time) = text.parse::<civil::Time>() {
        let today = now.to_zoned(zone.clone()).date();
        let moment = today.to_datetime(time);
        let ahead = moment.to_zoned(zone.clone()).is_ok_and(|moment| moment.timestamp() > now);
        if ahead { today.yesterday().map_err(|_| wrong())?.to_datetime(time) } else { moment }
    } else {
        text.parse::<civil::Date>().map_err(|_| wrong())?.to_datetime(civil::Time::midnight())
    };
    local.to_zoned(zone.clone()).map(|moment| moment.timestamp()).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_many_forms() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        for (text, expected) in [
            ("1h30m", "2026-11-22T10:30:00Z"),
            ("2026-11-22T03:02:11Z", "2026-11-22T03:02:11Z"),
            ("2026-11-22T03:02:11+02:00", "2026-11-22T01:02:11Z"),
            ("2026-11-22 03:02", "2026-11-22T02:02:00Z"),
            ("2026-11-22", "2026-11-21T23:00:00Z"),
            ("03:02", "2026-11-22T02:02:00Z"),
            ("23:30", "2026-11-21T22:30:00Z"),
        ] {
            assert_eq!(parse("--since", text, now, &zone).unwrap().to_string(), expected, "{text}");
        }
        for text in ["", "yesterday", "5", "25:00", "2026-13-01"] {
            let error = parse("--since", text, now, &zone).unwrap_err().to_string();
            assert!(error.starts_with(&format!("--since: `{text}` is not a time")), "{error}");
        }
    }
}
