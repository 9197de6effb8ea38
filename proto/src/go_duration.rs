//! Durations as Go reads and writes them: `1h30m`, `1.5s`, `300ms`. `metav1.Duration` is one in JSON.

use jiff::SignedDuration;

/// Reads a duration.
///
/// # Errors
/// What is wrong with it, in Go's words.
pub fn parse(text: &str) -> Result<SignedDuration, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (is_negative, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (true, text.get(1..).unwrap_or_default()),
        Some(b'+') => (false, text.get(1..).unwrap_or_default()),
        _ => (false, text),
    };
    if rest == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut nanos: i128 = 0;
    while !rest.is_empty() {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let whole_length = digits(rest);
        let (whole, after) = rest.split_at(whole_length);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits(after)),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(invalid());
        }
        let unit_length = after.bytes().take_while(|byte| *byte != b'.' && !byte.is_ascii_digit()).count();
        let Some((unit, after)) = after.split_at_checked(unit_length) else { return Err(invalid()) };
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {text:?}"));
        }
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(format!("time: unknown unit {unit:?} in duration {text:?}")),
        };
        // More than eighteen digits are more than Go's 64 bits hold.
        if whole.len() > 18 {
            return Err(invalid());
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| invalid())? };
        let kept: String = fraction.chars().take(18).collect();
        let part: i128 = if kept.is_empty() { 0 } else { kept.parse().map_err(|_| invalid())? };
        let places = u32::try_from(kept.len()).unwrap_or(0);
        nanos += whole * scale + part * scale / 10_i128.pow(places);
        if nanos > i128::from(i64::MAX) + i128::from(is_negative) {
            return Err(invalid());
        }
        rest = after;
    }
    let nanos = i64::try_from(if is_negative { -nanos } else { nanos }).map_err(|_| invalid())?;
    Ok(SignedDuration::from_nanos(nanos))
}

/// Writes a duration as Go's `Duration.String`: `1h30m0s`, `15.25s`, `300ms`, `0s`.
#[must_use]
pub fn show(duration: SignedDuration) -> String {
    let sign = if duration.is_negative() { "-" } else { "" };
    let nanos = duration.as_nanos().unsigned_abs();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{nanos}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", decimal(nanos, 3)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", decimal(nanos, 6)),
        _ => {
            let (minutes, seconds) = (nanos / 60_000_000_000, decimal(nanos % 60_000_000_000, 9));
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// A number with so many of its digits behind the point, without the zeros at its end.
fn decimal(number: u128, places: u32) -> String {
    let unit = 10_u128.pow(places);
    let (whole, rest) = (number / unit, number % unit);
    if rest == 0 {
        return whole.to_string();
    }
    let rest = format!("{rest:0width$}", width = places as usize);
    format!("{whole}.{}", rest.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, seconds) in
            [("0", 0.0), ("1h30m", 5400.0), ("1.5s", 1.5), ("300ms", 0.3), ("-2m", -120.0), (".5h", 1800.0)]
        {
            let expected = SignedDuration::try_from_secs_f64(seconds).unwrap();
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
        for (text, why) in [
            ("", "time: invalid duration \"\""),
            ("-", "time: invalid duration \"-\""),
            ("3", "time: missing unit in duration \"3\""),
            ("3d", "time: unknown unit \"d\" in duration \"3d\""),
            ("x", "time: invalid duration \"x\""),
            ("9999999999999h", "time: invalid duration \"9999999999999h\""),
            ("1ä", "time: unknown unit \"ä\" in duration \"1ä\""),
        ] {
            assert_eq!(parse(text), Err(why.to_owned()), "{text}");
        }
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (20_000_000, "20ms"),
            (1_000_000_000, "1s"),
            (15_250_000_000, "15.25s"),
            (60_000_000_000, "1m0s"),
            (3_900_000_000_001, "1h5m0.000000001s"),
            (-1_500_000_000, "-1.5s"),
            (i64::MAX, "2562047h47m16.854775807s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            let duration = SignedDuration::from_nanos(nanos);
            assert_eq!(show(duration), text);
            assert_eq!(parse(text), Ok(duration));
        }
    }
}
