//! Two looks, and what comes of them.

use super::*;

const SECOND: u64 = 1_000_000_000;

/// A time of the node's, so many milliseconds after some hour.
fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(1_767_225_600_000 + millis).unwrap()
}

fn point(millis: i64, cpu: u64) -> Point {
    Point { at: at(millis), cpu, memory: 4096 }
}

/// A container: name, when it started, when it was looked at, CPU time.
type Line = (&'static str, Option<i64>, i64, u64);

fn pod(uid: &str, lines: &[Line]) -> Pod {
    let container = |(name, started, millis, cpu): &Line| {
        ((*name).to_owned(), Container { started: started.map(at), point: point(*millis, *cpu) })
    };
    Pod { uid: uid.to_owned(), containers: lines.iter().map(container).collect() }
}

fn key() -> PodKey {
    ("a".to_owned(), "p".to_owned())
}

/// Looks so many milliseconds apart, each answered after ten.
fn looks(apart: u64, first: Summary, last: Summary) -> (Look, Look) {
    let began = Instant::now();
    let look = |after: u64, summary| {
        let asked = began + Duration::from_millis(after);
        Look { asked, answered: asked + Duration::from_millis(10), summary }
    };
    (look(0, first), look(apart, last))
}

/// What is told of a pod by two looks a second apart: the window in milliseconds, and each container's thousandths of a core.
fn told(first: Option<(&str, &[Line])>, last: (&str, &[Line])) -> Option<(i128, Vec<(String, u64)>)> {
    let summary = |(uid, lines): (&str, &[Line])| Summary { node: None, pods: [(key(), pod(uid, lines))].into() };
    let (first, last) = looks(1000, first.map(summary).unwrap_or_default(), summary(last));
    let mut figures = between(&first, &last).unwrap();
    let pod = figures.pods.remove(&key())?;
    let millicores = pod.containers.into_iter().map(|(name, used)| (name, used.cpu / 1_000_000));
    Some((pod.window.length.as_millis(), millicores.collect()))
}

fn is(window: i128, containers: &[(&str, u64)]) -> Option<(i128, Vec<(String, u64)>)> {
    Some((window, containers.iter().map(|(name, cpu)| ((*name).to_owned(), *cpu)).collect()))
}

#[test]
fn what_is_used_is_the_difference_by_the_time_between() {
    let before: &[Line] = &[("busy", Some(-60_000), 5, 10 * SECOND), ("idle", Some(-60_000), 6, SECOND)];
    let now: &[Line] = &[("busy", Some(-60_000), 1005, 11 * SECOND), ("idle", Some(-60_000), 1008, SECOND + 1002)];
    let told = told(Some(("u", before)), ("u", now));
    assert_eq!(told, is(1002, &[("busy", 1000), ("idle", 0)]));
}

#[test]
fn a_container_that_started_within_the_window_counts_with_all_it_has_used() {
    let old = ("old", Some(-60_000), 0, 5 * SECOND);
    let old_now = ("old", Some(-60_000), 1000, 5 * SECOND + SECOND / 2);
    // New, and anew: less than the one before it has used, or more.
    for before in [vec![old], vec![old, ("new", Some(-5_000), 0, 9 * SECOND)], vec![old, ("new", Some(-5_000), 0, 7)]] {
        let now: &[Line] = &[old_now, ("new", Some(400), 1000, SECOND / 4)];
        assert_eq!(told(Some(("u", &before)), ("u", now)), is(1000, &[("new", 250), ("old", 500)]), "{before:?}");
    }
}

#[test]
fn a_young_pod_has_its_age_as_its_window() {
    let line = |started: Option<i64>| ("c", started, 1000, SECOND);
    for (started, expected) in [
        (Some(0), is(1000, &[("c", 1000)])),
        (Some(-1_000), is(2000, &[("c", 500)])),
        (Some(-29_000), is(30_000, &[("c", 33)])),
        // Older than figures may be: the first look has missed it.
        (Some(-29_001), None),
        // Too young.
        (Some(1), None),
        // Of the future, and of no known time.
        (Some(3_000), None),
        (None, None),
    ] {
        assert_eq!(told(None, ("u", &[line(started)])), expected, "{started:?}");
        // Another pod of the same name says nothing of it.
        let other: &[Line] = &[("c", Some(-60_000), 0, 0)];
        assert_eq!(told(Some(("other", other)), ("u", &[line(started)])), expected, "{started:?}");
    }
    let two: &[Line] = &[("a", Some(-1_000), 1000, SECOND), ("b", Some(500), 1000, SECOND)];
    assert_eq!(told(None, ("u", two)), is(2000, &[("a", 500), ("b", 500)]), "one window for all");
}

#[test]
fn counters_that_cannot_be_are_not_believed() {
    let before: &[Line] = &[("c", Some(-60_000), 0, SECOND)];
    let now = |millis, cpu| ("c", Some(-60_000), millis, cpu);
    for (wrong, why) in [
        (now(1000, SECOND - 1), "less than before"),
        (now(0, 2 * SECOND), "no time has passed"),
        (now(-1000, 2 * SECOND), "time went back"),
        (now(3_600_000, 2 * SECOND), "an hour within a second"),
        (now(900, 2 * SECOND), "less time than has passed here"),
    ] {
        assert_eq!(told(Some(("u", before)), ("u", &[wrong])), None, "{why}");
    }
    // One is there that was there before, and was not told of.
    let both: &[Line] = &[("c", Some(-60_000), 1000, SECOND), ("d", Some(-60_000), 1000, SECOND)];
    assert_eq!(told(Some(("u", before)), ("u", both)), None);
    assert_eq!(told(Some(("u", before)), ("u", &[])), None, "nothing runs");
    let most: &[Line] = &[("c", None, 0, 0)];
    let huge = told(Some(("u", most)), ("u", &[("c", None, 1000, u64::MAX)]));
    assert_eq!(huge, is(1000, &[("c", u64::MAX / 1_000_000)]), "and nothing overflows");
}

#[test]
fn a_nodes_own_figures_are_of_its_clock() {
    let node = |first: Option<Point>, last: Option<Point>| {
        let summary = |node| Summary { node, ..Summary::default() };
        let (first, last) = looks(2000, summary(first), summary(last));
        between(&first, &last).map(|figures| figures.node)
    };
    let window = Window { end: at(2000), length: SignedDuration::from_secs(2) };
    let used = Used { cpu: SECOND / 4, memory: 4096 };
    assert_eq!(node(Some(point(0, 0)), Some(point(2000, SECOND / 2))), Some(Some((window, used))));
    // It was started anew: there is no rate, but the clock is right.
    assert_eq!(node(Some(point(0, 9)), Some(point(2000, 8))), Some(None));
    assert_eq!(node(None, Some(point(2000, 8))), Some(None));
    assert_eq!(node(Some(point(0, 9)), None), Some(None));
    // Its clock was set.
    assert_eq!(node(Some(point(0, 0)), Some(point(1_000_000, 8))), None);
    assert_eq!(node(Some(point(0, 0)), Some(point(-1_000_000, 8))), None);
    assert_eq!(node(Some(point(0, 0)), Some(point(1500, 8))), None);
}
