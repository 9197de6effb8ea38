//! Times as Go's `time.Parse` reads them, and what it says of what is none.
//!
//! Rust's reader (jiff) takes more than RFC 3339: a space or a small letter between day and hour, zones of two digits or in
//! brackets, times without seconds. Kubernetes refuses these, with the words of Go's package `time`.

/// The form that a time has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `metav1.Time`: a fraction of any length may stand behind the second.
    Seconds,
    /// `metav1.MicroTime`: a fraction of six digits has to.
    Micros,
}

impl Form {
    /// How Go writes it: its layout.
    const fn layout(self) -> &'static str {
        match self {
            Self::Seconds => "2006-01-02T15:04:05Z07:00",
            Self::Micros => "2006-01-02T15:04:05.000000Z07:00",
        }
    }
}

/// What is wrong with a text.
#[derive(Debug)]
enum Fault<'t> {
    /// What is left of it does not begin with this part of the layout.
    Part(&'t [u8], &'static str),
    /// This part is a number, but none that can be.
    Range(&'static str),
    /// There is more behind the time.
    Extra(&'t [u8]),
}

/// Whether a text is a time of the form.
///
/// # Errors
/// What Go says: `parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006"`.
pub fn check(text: &str, form: Form) -> Result<(), String> {
    let whole = || quoted(text.as_bytes());
    read(text.as_bytes(), form).map_err(|fault| match fault {
        Fault::Part(rest, part) => {
            format!("parsing time {} as {:?}: cannot parse {} as {part:?}", whole(), form.layout(), quoted(rest))
        }
        Fault::Range(part) => format!("parsing time {}: {part} out of range", whole()),
        Fault::Extra(rest) => format!("parsing time {}: extra text: {}", whole(), quoted(rest)),
    })
}

/// As Go quotes what it could not parse: byte by byte, where it is no ASCII.
fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from('"');
    for byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(*byte)]),
            b' '..=0x7f => out.push(char::from(*byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

fn read(text: &[u8], form: Form) -> Result<(), Fault<'_>> {
    let mut rest = text;
    let year = digits(&mut rest, 4, "2006")?;
    skip(&mut rest, "-")?;
    let month = part(&mut rest, "01", 1..=12, "month")?;
    skip(&mut rest, "-")?;
    let day = digits(&mut rest, 2, "02")?;
    skip(&mut rest, "T")?;
    hour(&mut rest)?;
    skip(&mut rest, ":")?;
    part(&mut rest, "04", 0..=59, "minute")?;
    skip(&mut rest, ":")?;
    part(&mut rest, "05", 0..=59, "second")?;
    fraction(&mut rest, form)?;
    zone(&mut rest)?;
    if !rest.is_empty() {
        return Err(Fault::Extra(rest));
    }
    if (1..=days_in(year, month)).contains(&day) { Ok(()) } else { Err(Fault::Range("day")) }
}

/// A character of the layout itself.
fn skip<'t>(rest: &mut &'t [u8], sign: &'static str) -> Result<(), Fault<'t>> {
    *rest = rest.strip_prefix(sign.as_bytes()).ok_or(Fault::Part(rest, sign))?;
    Ok(())
}

/// A number of just so many digits.
fn digits<'t>(rest: &mut &'t [u8], count: usize, layout: &'static str) -> Result<u32, Fault<'t>> {
    let split = rest.split_at_checked(count).filter(|(digits, _)| digits.iter().all(u8::is_ascii_digit));
    let (digits, behind) = split.ok_or(Fault::Part(rest, layout))?;
    *rest = behind;
    Ok(digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
}

/// A number of two digits in a range.
fn part<'t>(
    rest: &mut &'t [u8],
    layout: &'static str,
    range: std::ops::RangeInclusive<u32>,
    name: &'static str,
) -> Result<u32, Fault<'t>> {
    let number = digits(rest, 2, layout)?;
    if range.contains(&number) { Ok(number) } else { Err(Fault::Range(name)) }
}

/// An hour, for which one digit will do.
fn hour<'t>(rest: &mut &'t [u8]) -> Result<(), Fault<'t>> {
    let is_digit = |at: usize| rest.get(at).is_some_and(u8::is_ascii_digit);
    let count = if is_digit(1) { 2 } else { 1 };
    let number = digits(rest, count, "15")?;
    if number < 24 { Ok(()) } else { Err(Fault::Range("hour")) }
}

/// What is behind the second.
fn fraction<'t>(rest: &mut &'t [u8], form: Form) -> Result<(), Fault<'t>> {
    let count = match rest.split_first() {
        Some((b'.' | b',', digits)) => digits.iter().take_while(|byte| byte.is_ascii_digit()).count(),
        _ => 0,
    };
    let length = match form {
        Form::Seconds if count == 0 => 0,
        Form::Seconds => count + 1,
        Form::Micros if count < 6 => return Err(Fault::Part(rest, ".000000")),
        Form::Micros => 7,
    };
    *rest = rest.get(length..).unwrap_or_default();
    Ok(())
}

/// `Z`, or hours and minutes from it.
fn zone<'t>(rest: &mut &'t [u8]) -> Result<(), Fault<'t>> {
    const LAYOUT: &str = "Z07:00";
    if let Some(behind) = rest.strip_prefix(b"Z") {
        *rest = behind;
        return Ok(());
    }
    let whole = *rest;
    let wrong = || Fault::Part(whole, LAYOUT);
    let [sign, h1, h2, b':', m1, m2, behind @ ..] = whole else { return Err(wrong()) };
    let number = |digits: &[u8; 2]| digits_of(digits).ok_or_else(wrong);
    let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
    // (More than a day or an hour, as some write just these.)
    match (hours > 24, minutes > 60, sign) {
        (_, true, _) => return Err(Fault::Range("time zone offset minute")),
        (true, ..) => return Err(Fault::Range("time zone offset hour")),
        (.., b'+' | b'-') => {}
        _ => return Err(wrong()),
    }
    *rest = behind;
    Ok(())
}

fn digits_of(digits: &[u8; 2]) -> Option<u32> {
    std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()
}

const fn days_in(year: u32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What kube-apiserver 1.36 said of each of them.
    #[test]
    fn what_is_no_time_is_told_as_go_tells_it() {
        for (text, why) in [
            ("", r#"cannot parse "" as "2006""#),
            ("x", r#"cannot parse "x" as "2006""#),
            ("2026-01-01", r#"cannot parse "" as "T""#),
            ("2026-01-01T00:00:00", r#"cannot parse "" as "Z07:00""#),
            ("2026-01-01 00:00:00Z", r#"cannot parse " 00:00:00Z" as "T""#),
            ("2026-01-01t00:00:00z", r#"cannot parse "t00:00:00z" as "T""#),
            ("2026-01-01T00:00:00+01", r#"cannot parse "+01" as "Z07:00""#),
            ("2026-01-01T00:00:00+0100", r#"cannot parse "+0100" as "Z07:00""#),
            ("2026-01-01T00:00:00[UTC]", r#"cannot parse "[UTC]" as "Z07:00""#),
            ("2026-01-01T00:00:00.Z", r#"cannot parse ".Z" as "Z07:00""#),
            ("2026-01-01T00:00Z", r#"cannot parse "Z" as ":""#),
            ("20260101T000000Z", r#"cannot parse "0101T000000Z" as "-""#),
            ("-002026-01-01T00:00:00Z", r#"cannot parse "-002026-01-01T00:00:00Z" as "2006""#),
        ] {
            let told = format!("parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": {why}");
            assert_eq!(check(text, Form::Seconds), Err(told));
        }
        for (text, what) in [
            ("2026-01-01T24:00:00Z", "hour"),
            ("2026-01-01T00:00:60Z", "second"),
            ("2026-02-30T00:00:00Z", "day"),
            ("2025-02-29T00:00:00Z", "day"),
            ("2026-13-01T00:00:00Z", "month"),
            ("2026-01-01T00:00:00+25:00", "time zone offset hour"),
        ] {
            assert_eq!(check(text, Form::Seconds), Err(format!("parsing time \"{text}\": {what} out of range")));
        }
        for (text, why) in [
            ("2026-01-01T00:00:00", r#"cannot parse "" as ".000000""#),
            ("2026-01-01T00:00:00.123456789+02:00", r#"cannot parse "789+02:00" as "Z07:00""#),
        ] {
            let told = format!("parsing time \"{text}\" as \"2006-01-02T15:04:05.000000Z07:00\": {why}");
            assert_eq!(check(text, Form::Micros), Err(told));
        }
        assert_eq!(
            check("2026-01-01T00:00:00Zü\"", Form::Seconds).unwrap_err(),
            r#"parsing time "2026-01-01T00:00:00Z\xc3\xbc\"": extra text: "\xc3\xbc\"""#
        );
    }

    #[test]
    fn times_are_taken() {
        for text in [
            "2026-01-01T00:00:00Z",
            "2024-02-29T23:59:59+01:00",
            "2026-01-01T00:00:00.123456789Z",
            "2026-01-01T00:00:00,5Z",
            "2026-01-01T0:00:00Z",
            "2026-01-01T00:00:00-00:00",
            "2026-01-01T00:00:00+24:00",
            "0000-01-01T00:00:00Z",
            "9999-12-31T23:59:59Z",
        ] {
            assert_eq!(check(text, Form::Seconds), Ok(()), "{text}");
        }
        assert_eq!(check("2026-01-01T00:00:00.000001-07:00", Form::Micros), Ok(()));
    }
}
