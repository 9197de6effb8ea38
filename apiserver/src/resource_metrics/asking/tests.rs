//! Nodes of all manners, asked while the clock stands still unless somebody waits.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use serde_json::json;

use super::*;

/// What a node does when it is asked.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// It tells of half a core.
    Well,
    /// It never answers.
    Hangs,
    /// It answers with something else.
    Babbles,
    /// It sets its clock by an hour at every second look.
    Jumps,
    /// Once: then it is well.
    JumpsOnce,
    /// It is not there.
    Gone,
}

/// Nodes whose clock is that of the test, which only runs while nothing else is to be done.
struct Nodes {
    began: Instant,
    manners: BTreeMap<String, Manner>,
    asked: Mutex<BTreeMap<String, u64>>,
    at_once: AtomicU64,
    most_at_once: AtomicU64,
}

impl Nodes {
    fn asked(&self, node: &str) -> u64 {
        self.asked.lock().unwrap().get(node).copied().unwrap_or_default()
    }

    async fn answer(&self, node: &str) -> Result<Bytes, String> {
        let count = *self.asked.lock().unwrap().entry(node.to_owned()).and_modify(|count| *count += 1).or_insert(1);
        // A few milliseconds, as on a network.
        sleep(Duration::from_millis(4)).await;
        let manner = self.manners[node];
        match manner {
            Manner::Hangs => std::future::pending().await,
            Manner::Babbles => return Ok("<html>".into()),
            Manner::Gone => return Err("connection refused".to_owned()),
            Manner::Well | Manner::Jumps | Manner::JumpsOnce => {}
        }
        let passed = self.began.elapsed();
        let jumps = match manner {
            Manner::Jumps => count,
            Manner::JumpsOnce => u64::from(count > 1),
            _ => 0,
        };
        let time = Timestamp::from_second(1_767_225_600).unwrap() + passed + Duration::from_secs(3600 * jumps);
        let cpu = u64::try_from(passed.as_nanos() / 2).unwrap();
        let cpu = json!({"time": time.to_string(), "usageCoreNanoSeconds": cpu});
        Ok(json!({"node": {"cpu": cpu, "memory": {"workingSetBytes": 1}}}).to_string().into())
    }
}

/// Counts who is being asked, until he has answered or nobody waits for him any more.
struct Asked<'a>(&'a AtomicU64);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Source for Nodes {
    fn summary<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Result<Bytes, String>> {
        Box::pin(async move {
            let at_once = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
            self.most_at_once.fetch_max(at_once, Ordering::Relaxed);
            let _asked = Asked(&self.at_once);
            self.answer(node).await
        })
    }
}

fn asking(manners: &[(&str, Manner)]) -> Arc<Asking<Nodes>> {
    Asking::new(Nodes {
        began: Instant::now(),
        manners: manners.iter().map(|(name, manner)| ((*name).to_owned(), *manner)).collect(),
        asked: Mutex::default(),
        at_once: AtomicU64::new(0),
        most_at_once: AtomicU64::new(0),
    })
}

/// What is told of these nodes: the window in milliseconds and thousandths of a core; and how long it took.
async fn ask(asking: &Arc<Asking<Nodes>>, nodes: &[&str]) -> (Vec<(String, i128, u64)>, u128) {
    let began = Instant::now();
    let figures = asking.figures(nodes.iter().map(|node| (*node).to_owned()).collect()).await;
    let told = figures.into_iter().map(|(node, figures)| {
        let (window, used) = figures.node.unwrap();
        (node, window.length.as_millis(), used.cpu / 1_000_000)
    });
    (told.collect(), began.elapsed().as_millis())
}

fn half(node: &str, window: i128) -> (String, i128, u64) {
    (node.to_owned(), window, 500)
}

#[tokio::test(start_paused = true)]
async fn a_first_answer_takes_a_second_and_those_after_it_none() {
    let nodes = asking(&[("n", Manner::Well)]);
    assert_eq!(ask(&nodes, &["n"]).await, (vec![half("n", 1004)], 1008));
    // Who asks within a second is told the same.
    sleep(Duration::from_millis(990)).await;
    assert_eq!((ask(&nodes, &["n"]).await, nodes.source.asked("n")), ((vec![half("n", 1004)], 0), 2));
    // Afterwards the window grows with the time, until the base is exchanged.
    for (pause, window) in [(10, 2008), (2_000, 4012), (12_000, 16_016), (2_000, 2004), (14_000, 16_008), (3_000, 3004)]
    {
        sleep(Duration::from_millis(pause)).await;
        assert_eq!(ask(&nodes, &["n"]).await, (vec![half("n", window)], 4));
    }
    assert_eq!(nodes.source.asked("n"), 8);
    nodes.stop().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_quiet_time_figures_are_of_now_and_nothing_is_kept() {
    let nodes = asking(&[("n", Manner::Well)]);
    ask(&nodes, &["n"]).await;
    assert_eq!(nodes.table().nodes.len(), 1);
    sleep(LONGEST * 2).await;
    assert!(nodes.table().nodes.is_empty() && !nodes.table().is_swept);
    assert_eq!(nodes.source.asked("n"), 2, "and nobody was asked meanwhile");
    assert_eq!(ask(&nodes, &["n"]).await, (vec![half("n", 1004)], 1008));
    nodes.stop().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_nodes_that_say_nothing() {
    let nodes = asking(&[
        ("a", Manner::Well),
        ("b", Manner::Hangs),
        ("c", Manner::Babbles),
        ("d", Manner::Gone),
        ("e", Manner::Jumps),
    ]);
    let (told, took) = ask(&nodes, &["a", "b", "c", "d", "e"]).await;
    assert_eq!((told, took), (vec![half("a", 1004)], 3000));
    // Nor does who asks for the others alone.
    let hanging = async { ask(&nodes, &["b"]).await };
    let well = async { ask(&nodes, &["a"]).await };
    let ((none, _), (told, took)) = tokio::join!(hanging, well);
    assert_eq!((none.as_slice(), told.as_slice(), took), ([].as_slice(), [half("a", 3000)].as_slice(), 4));
    nodes.stop().await;
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_at_once_are_told_the_same() {
    let nodes = asking(&[("n", Manner::Well), ("h", Manner::Hangs)]);
    let many = join_all((0..50).map(|_| ask(&nodes, &["n"]))).await;
    assert!(many.iter().all(|(told, took)| told == &[half("n", 1004)] && *took == 1008), "{many:?}");
    assert_eq!(nodes.source.asked("n"), 2);
    // Even those behind one who waits for a node that hangs come to an end with him.
    let many = join_all((0..50).map(|_| ask(&nodes, &["h"]))).await;
    assert!(many.iter().all(|(told, took)| told.is_empty() && *took == 3000), "{many:?}");
    assert_eq!(nodes.source.asked("h"), 1);
    nodes.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_nodes_is_asked_by_and_by() {
    let names: Vec<String> = (0..1000).map(|n| format!("n{n:04}")).collect();
    let manner = |n: usize| if n.is_multiple_of(10) { Manner::Hangs } else { Manner::Well };
    let all: Vec<(&str, Manner)> = names.iter().enumerate().map(|(n, name)| (name.as_str(), manner(n))).collect();
    let nodes = asking(&all);
    let (told, took) = ask(&nodes, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(nodes.source.most_at_once.load(Ordering::Relaxed), PLACES as u64);
    assert_eq!((told.len(), took <= DEADLINE.as_millis()), (900, true), "{took}");
    nodes.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_costs_one_more_look() {
    let nodes = asking(&[("n", Manner::JumpsOnce)]);
    assert_eq!(ask(&nodes, &["n"]).await, (vec![half("n", 1004)], 2012));
    assert_eq!(nodes.source.asked("n"), 3);
    nodes.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_learned_is_there_for_the_next_when_a_client_goes_away() {
    let nodes = asking(&[("n", Manner::Well)]);
    let gone = timeout(Duration::from_millis(500), ask(&nodes, &["n"])).await;
    assert!(gone.is_err());
    assert_eq!(ask(&nodes, &["n"]).await, (vec![half("n", 1004)], 508));
    assert_eq!(nodes.source.asked("n"), 2);
    nodes.stop().await;
}
