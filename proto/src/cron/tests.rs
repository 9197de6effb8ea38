//! Schedules: what is refused and why, and when they come.

use proptest::prelude::*;

use super::*;

fn times(schedule: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
    let (schedule, zone) = (Schedule::parse(schedule).unwrap(), time_zone(zone).unwrap());
    let mut time: Timestamp = after.parse().unwrap();
    let mut found = Vec::new();
    for _ in 0..count {
        let Some(next) = schedule.next(time, &zone) else { break };
        found.push(next.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string());
        time = next;
    }
    found
}

#[test]
fn what_is_no_schedule_is_refused_in_the_words_of_kubernetes_parser() {
    for (text, why) in [
        ("", "empty spec string"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("* * * * * *", "expected exactly 5 fields, found 6: [* * * * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* 24 * * *", "end of range (24) above maximum (23): 24"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * 13 *", "end of range (13) above maximum (12): 13"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
        ("@often", "unrecognized descriptor: @often"),
        ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
        ("TZ=Nowhere 0 0 * * *", "provided bad location Nowhere: unknown time zone Nowhere"),
        ("TZ=UTC", "invalid schedule format: there is nothing after the time zone"),
    ] {
        assert_eq!(Schedule::parse(text).unwrap_err().to_string(), why, "{text}");
    }
}

#[test]
fn fields_are_lists_of_ranges_with_steps_and_words() {
    assert_eq!(
        times("*/20 8,20 * * MON-fri", "UTC", "2026-01-02T20:30:00Z", 4),
        [
            "2026-01-02T20:40:00+00:00",
            "2026-01-05T08:00:00+00:00",
            "2026-01-05T08:20:00+00:00",
            "2026-01-05T08:40:00+00:00"
        ]
    );
    assert_eq!(
        times("50/5 0 1 feb *", "UTC", "2026-01-01T00:00:00Z", 2),
        ["2026-02-01T00:50:00+00:00", "2026-02-01T00:55:00+00:00"]
    );
}

#[test]
fn either_day_will_do_when_both_are_restricted() {
    // 2026-01-05 is a Monday.
    assert_eq!(
        times("0 0 13 * mon", "UTC", "2026-01-05T00:00:00Z", 3),
        ["2026-01-12T00:00:00+00:00", "2026-01-13T00:00:00+00:00", "2026-01-19T00:00:00+00:00"]
    );
    assert_eq!(
        times("0 0 */2 * mon", "UTC", "2026-01-05T00:00:00Z", 2),
        ["2026-01-07T00:00:00+00:00", "2026-01-09T00:00:00+00:00"]
    );
}

#[test]
fn descriptors_stand_for_schedules() {
    assert_eq!(times("@weekly", "UTC", "2026-01-05T00:00:00Z", 1), ["2026-01-11T00:00:00+00:00"]);
    assert_eq!(times("@yearly", "UTC", "2026-01-05T00:00:00Z", 1), ["2027-01-01T00:00:00+00:00"]);
    assert_eq!(times("@every 90s", "UTC", "2026-01-05T00:00:00.5Z", 1), ["2026-01-05T00:01:30+00:00"]);
}

#[test]
fn clocks_that_are_set_leave_times_out_and_repeat_them() {
    // Clocks go from 02:00 to 03:00 on 2026-03-29, and from 03:00 back to 02:00 on 2026-10-25.
    assert_eq!(times("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 1), ["2026-03-30T02:30:00+02:00"]);
    assert_eq!(
        times("30 * * * *", "Europe/Berlin", "2026-10-25T00:00:00Z", 3),
        ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T03:30:00+01:00"]
    );
    assert_eq!(times("0 9 * * *", "Asia/Kolkata", "2026-01-01T00:00:00Z", 1), ["2026-01-01T09:00:00+05:30"]);
    assert_eq!(times("TZ=Asia/Kolkata 0 9 * * *", "UTC", "2026-01-01T00:00:00Z", 1), ["2026-01-01T03:30:00+00:00"]);
}

#[test]
fn what_never_comes_is_given_up() {
    assert_eq!(times("0 0 31 2 *", "UTC", "2026-01-01T00:00:00Z", 1), Vec::<String>::new());
    assert_eq!(times("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1), ["2028-02-29T00:00:00+00:00"]);
}

#[test]
fn zones_are_known_by_their_exact_names() {
    assert!(time_zone("Europe/Berlin").is_some() && time_zone("UTC").is_some() && time_zone("Etc/GMT+1").is_some());
    assert!(time_zone("europe/berlin").is_none() && time_zone("").is_none() && time_zone("Nowhere/Town").is_none());
}

proptest! {
    #[test]
    fn whatever_is_written_is_taken_or_refused(text in ".{0,40}") {
        let _ = Schedule::parse(&text);
    }

    #[test]
    fn the_next_time_is_later_and_fits(minute in 0_i8..60, hour in 0_i8..24, start in 0_i64..4_000_000_000) {
        let zone = time_zone("America/New_York").unwrap();
        let schedule = Schedule::parse(&format!("{minute} {hour} * * *")).unwrap();
        let after = Timestamp::from_second(start).unwrap();
        let next = schedule.next(after, &zone).unwrap();
        let local = next.to_zoned(zone);
        prop_assert!(next > after);
        prop_assert_eq!((local.minute(), local.hour(), local.second()), (minute, hour, 0));
    }
}
