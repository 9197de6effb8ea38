//! When a CronJob is due: pure.

use std::time::Duration;

use coracle_proto::cron::{self, Schedule};
use k8s_openapi::{
    api::batch::v1::CronJob,
    jiff::{SignedDuration, Timestamp, tz::TimeZone},
};

/// More missed times than this are told of: somebody should look at the clock, or set a deadline.
const MANY: i64 = 100;
/// So many times are looked at for the latest that is past. A schedule has one a minute at most, and those that are left
/// out are few.
const LOOKED_AT: usize = 100_000;
/// A little later than the time itself, so that it is past by any clock.
const DELTA: Duration = Duration::from_millis(100);

/// A schedule in the zone its times are meant in.
pub(super) struct Times {
    schedule: Schedule,
    zone: TimeZone,
}

/// What keeps a CronJob from being scheduled, as an event about it: reason and note.
pub(super) type Fault = (&'static str, String);

/// The latest time that is past.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) at: Timestamp,
    /// That are past too many.
    pub(super) missed_many: bool,
}

impl Times {
    /// The times of a CronJob.
    pub(super) fn of(cron: &CronJob) -> Result<Self, Fault> {
        let spec = &cron.spec;
        let zone = match spec.time_zone.as_deref() {
            None => TimeZone::UTC,
            Some(name) => cron::time_zone(name)
                .ok_or_else(|| ("UnknownTimeZone", format!("invalid timeZone: {name:?}: unknown time zone {name}")))?,
        };
        let schedule = Schedule::parse(&spec.schedule)
            .map_err(|why| ("UnparseableSchedule", format!("unparseable schedule: {:?} : {why}", spec.schedule)))?;
        Ok(Self { schedule, zone })
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.schedule.next(after, &self.zone)
    }

    /// A time as its zone writes it.
    pub(super) fn shown(&self, at: Timestamp) -> String {
        let local = at.to_zoned(self.zone.clone());
        if local.offset().seconds() == 0 {
            return local.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        }
        local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }

    /// The latest time since the CronJob last ran (or was made, or since its deadline) that is past.
    pub(super) fn due(&self, cron: &CronJob, now: Timestamp) -> Result<Option<Due>, Fault> {
        let deadline = cron.spec.starting_deadline_seconds;
        let limit = deadline.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok());
        let since = self.since(cron).max(limit.unwrap_or(Timestamp::MIN));
        let invalid = || {
            let schedule = &cron.spec.schedule;
            let why = "time difference between two schedules is less than 1 second";
            Err(("InvalidSchedule", format!("invalid schedule: {schedule} : {why}")))
        };
        // The 31st of February never comes; Kubernetes says so in these words.
        let Some(first) = self.next(since) else { return invalid() };
        if now < first {
            return Ok(None);
        }
        let once = Ok(Some(Due { at: first, missed_many: false }));
        let Some(second) = self.next(first) else { return once };
        if now < second {
            return once;
        }
        let between = second.duration_since(first).as_secs();
        if between < 1 {
            return invalid();
        }
        // Times are mostly equally far apart: from one or two before the last, the last is found.
        let missed = now.duration_since(first).as_secs() / between + 1;
        let back = SignedDuration::from_secs((missed - 2).saturating_mul(between));
        let from = first.checked_add(back).unwrap_or(first);
        let times = std::iter::successors(self.next(from), |at| self.next(*at));
        let last = times.take(LOOKED_AT).take_while(|at| *at <= now).last();
        Ok(last.map(|at| Due { at, missed_many: missed > MANY }))
    }

    fn since(&self, cron: &CronJob) -> Timestamp {
        let ran = cron.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
        ran.or(cron.metadata.creation_timestamp.as_ref()).map_or(Timestamp::UNIX_EPOCH, |time| time.0)
    }

    /// How long until the next time after now.
    pub(super) fn wait(&self, cron: &CronJob, now: Timestamp) -> Option<Duration> {
        // `@every` counts from when it last ran.
        let from = match self.due(cron, now) {
            Ok(Some(due)) => due.at,
            Ok(None) => self.since(cron),
            Err(_) => now,
        };
        let next = self.next(from).filter(|next| *next > now).or_else(|| self.next(now))?;
        Some(Duration::try_from(next.duration_since(now)).unwrap_or_default() + DELTA)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cron(schedule: &str, more: Value, last: Option<&str>) -> CronJob {
        let mut spec = json!({"schedule": schedule, "jobTemplate": {}});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let meta = json!({"name": "c", "creationTimestamp": "2026-01-01T00:00:30Z"});
        serde_json::from_value(json!({"metadata": meta, "spec": spec, "status": {"lastScheduleTime": last}})).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn due(cron: &CronJob, now: &str) -> Option<(String, bool)> {
        let due = Times::of(cron).unwrap().due(cron, at(now)).unwrap()?;
        Some((due.at.to_string(), due.missed_many))
    }

    #[test]
    fn the_latest_time_that_is_past_is_due() {
        let every_minute = cron("* * * * *", json!({}), None);
        let hourly = cron("0 * * * *", json!({}), Some("2026-01-01T05:00:00Z"));
        let odd = cron("30 6-16/4 * * 1-5", json!({}), None);
        let deadline = cron("0 * * * *", json!({"startingDeadlineSeconds": 600}), None);
        for (cron, now, expected) in [
            (&every_minute, "2026-01-01T00:00:59Z", None),
            (&every_minute, "2026-01-01T00:01:00Z", Some(("2026-01-01T00:01:00Z", false))),
            (&every_minute, "2026-01-01T00:05:10Z", Some(("2026-01-01T00:05:00Z", false))),
            (&every_minute, "2026-01-01T03:00:00Z", Some(("2026-01-01T03:00:00Z", true))),
            (&hourly, "2026-01-01T05:59:59Z", None),
            (&hourly, "2026-01-01T07:30:00Z", Some(("2026-01-01T07:00:00Z", false))),
            // The 5th is a Monday. What was last due on the Friday before is not found any more, as in Kubernetes.
            (&odd, "2026-01-02T15:00:00Z", Some(("2026-01-02T14:30:00Z", false))),
            (&odd, "2026-01-05T06:00:00Z", None),
            (&odd, "2026-01-05T11:00:00Z", Some(("2026-01-05T10:30:00Z", false))),
            (&deadline, "2026-01-01T03:09:00Z", Some(("2026-01-01T03:00:00Z", false))),
            (&deadline, "2026-01-01T03:11:00Z", None),
        ] {
            let expected = expected.map(|(at, many)| (at.to_owned(), many));
            assert_eq!(due(cron, now), expected, "{now} {:?}", cron.spec.schedule);
        }
    }

    #[test]
    fn the_next_time_is_waited_for() {
        let wait = |cron: &CronJob, now: &str| {
            let wait = Times::of(cron).unwrap().wait(cron, at(now)).unwrap();
            assert_eq!(wait.subsec_millis(), 100);
            wait.as_secs()
        };
        assert_eq!(wait(&cron("* * * * *", json!({}), None), "2026-01-01T00:00:40Z"), 20);
        assert_eq!(wait(&cron("0 * * * *", json!({}), None), "2026-01-01T09:59:00Z"), 60);
        assert_eq!(wait(&cron("@every 1h", json!({}), None), "2026-01-01T00:30:30Z"), 1800);
        let zoned = cron("0 9 * * *", json!({"timeZone": "Europe/Berlin"}), None);
        assert_eq!(wait(&zoned, "2026-01-01T07:59:00Z"), 60);
        assert_eq!(wait(&zoned, "2026-07-01T06:59:00Z"), 60);
        assert_eq!(Times::of(&zoned).unwrap().shown(at("2026-01-01T08:00:00Z")), "2026-01-01T09:00:00+01:00");
        let plain = cron("@daily", json!({}), None);
        assert_eq!(Times::of(&plain).unwrap().shown(at("2026-01-01T08:00:00Z")), "2026-01-01T08:00:00Z");
    }

    #[test]
    fn what_makes_no_sense_is_told() {
        let fault = |cron: CronJob| Times::of(&cron).map(|_| ()).unwrap_err();
        assert_eq!(fault(cron("* * *", json!({}), None)).0, "UnparseableSchedule");
        assert_eq!(fault(cron("* * * * *", json!({"timeZone": "Mars/Olympus"}), None)).0, "UnknownTimeZone");
        let never = cron("59 23 31 2 *", json!({}), None);
        let (reason, note) = Times::of(&never).unwrap().due(&never, at("2026-01-01T00:01:00Z")).unwrap_err();
        let why = "invalid schedule: 59 23 31 2 * : time difference between two schedules is less than 1 second";
        assert_eq!((reason, note.as_str()), ("InvalidSchedule", why));
        assert_eq!(Times::of(&never).unwrap().wait(&never, at("2026-06-01T00:00:00Z")), None);
    }
}
