//! Times and spans as CEL writes them: RFC 3339, and Go's durations (`1h30m`).

use jiff::{SignedDuration, Timestamp, civil::Date, tz::TimeZone};

/// Reads `2024-01-02T03:04:05Z`.
pub(super) fn timestamp(text: &str) -> Result<Timestamp, String> {
    let bad = || format!("invalid timestamp: {text:?}");
    let parsed: Timestamp = text.parse().map_err(|_| bad())?;
    if text.len() < 20
        || !(text.ends_with(['Z', 'z']) || text.get(text.len() - 6..).is_some_and(|t| t.contains(['+', '-'])))
    {
        return Err(bad());
    }
    Ok(parsed)
}

/// Reads `2024-01-02` as that day's first moment in UTC.
pub(super) fn date(text: &str) -> Result<Timestamp, String> {
    let bad = || format!("invalid date: {text:?}");
    let date: Date = text.parse().map_err(|_| bad())?;
    let zoned = date.to_zoned(TimeZone::UTC).map_err(|_| bad())?;
    if text.len() == 10 { Ok(zoned.timestamp()) } else { Err(bad()) }
}

/// Reads `-1h30m5.25s`, as Go's `time.ParseDuration`.
pub(super) fn duration(text: &str) -> Result<SignedDuration, String> {
    let bad = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return Err(bad());
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let length = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let (number, after) = rest.split_at(length);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(bad());
        }
        let (unit, length) = unit(after).ok_or_else(bad)?;
        let value: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| bad())? };
        nanos = value.checked_mul(unit).and_then(|n| nanos.checked_add(n)).ok_or_else(bad)?;
        let mut scale = unit;
        for digit in fraction.chars().filter_map(|c| c.to_digit(10)) {
            scale /= 10;
            nanos += i128::from(digit) * scale;
        }
        rest = after.get(length..).unwrap_or_default();
    }
    let nanos = if negative { -nanos } else { nanos };
    i64::try_from(nanos).map(SignedDuration::from_nanos).map_err(|_| bad())
}

fn unit(text: &str) -> Option<(i128, usize)> {
    const UNITS: &[(&str, i128)] = &[
        ("ns", 1),
        ("us", 1000),
        ("µs", 1000),
        ("μs", 1000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    UNITS.iter().find(|(name, _)| text.starts_with(name)).map(|(name, nanos)| (*nanos, name.len()))
}

/// As CEL shows a span: in seconds.
pub(super) fn show_duration(d: SignedDuration) -> String {
    let sign = if d.is_negative() { "-" } else { "" };
    let (seconds, nanos) = (d.as_secs().unsigned_abs(), d.subsec_nanos().unsigned_abs());
    if nanos == 0 {
        return format!("{sign}{seconds}s");
    }
    let fraction = format!("{nanos:09}");
    format!("{sign}{seconds}.{}s", fraction.trim_end_matches('0'))
}

/// As CEL shows a point in time.
pub(super) fn show_timestamp(t: Timestamp) -> String {
    t.to_string()
}

/// A point in time as the clocks of a time zone show it: `UTC`, `Europe/Berlin` is not known here, `+02:00` is.
pub(super) fn zoned(t: Timestamp, zone: Option<&str>) -> Result<jiff::Zoned, String> {
    let zone = match zone {
        None | Some("" | "UTC" | "Z") => TimeZone::UTC,
        Some(text) => offset(text).ok_or_else(|| format!("unknown time zone {text}"))?,
    };
    Ok(t.to_zoned(zone))
}

/// `-08:00`.
fn offset(text: &str) -> Option<TimeZone> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let seconds =
        hours.parse::<i32>().ok()?.checked_mul(3600)?.checked_add(minutes.parse::<i32>().ok()?.checked_mul(60)?)?;
    jiff::tz::Offset::from_seconds(if negative { -seconds } else { seconds }).ok().map(TimeZone::fixed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, nanos) in [
            ("1h30m", Some(5_400_000_000_000)),
            ("1.5s", Some(1_500_000_000)),
            ("-2ms", Some(-2_000_000)),
            ("0", Some(0)),
            ("", None),
            ("1", None),
            ("1x", None),
            ("99999999999h", None),
        ] {
            assert_eq!(duration(text).ok(), nanos.map(SignedDuration::from_nanos), "{text}");
        }
        assert_eq!(show_duration(SignedDuration::from_millis(-1500)), "-1.5s");
    }
}
