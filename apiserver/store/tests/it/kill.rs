//! A process under load is killed again and again; what it acknowledged must be there each time.
//!
//! The victim is this very test binary, started anew with [`the_victim`] as its only test. It tells every acknowledged
//! write on its standard output, so that the pipe holds what a client was told. `CORACLE_KILL_ROUNDS=n` kills so often.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use coracle_store::{Compare, Config, Op, Range, Store, Txn};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const CLIENTS: u64 = 8;
const KEYS: u64 = 16;
const DIR: &str = "CORACLE_KILL_DIR";

fn config(dir: &Path) -> Config {
    // Small, so that kills meet checkpoints too.
    Config { checkpoint_bytes: 1 << 20, ..Config::new(dir) }
}

/// What client `client` has written last, by the store.
fn last(store: &Store, client: u64) -> u64 {
    let entry = store.get(format!("last/{client}").as_bytes());
    entry.map_or(0, |entry| std::str::from_utf8(&entry.value).unwrap().parse().unwrap())
}

fn value(n: u64) -> Vec<u8> {
    let mut value = format!("{n} ").into_bytes();
    value.resize(value.len() + usize::try_from(n * 97 % 6000).unwrap(), b'.');
    value
}

#[test]
fn the_victim() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (store, driver) = Store::open(config(Path::new(&dir))).await.unwrap();
        let mut tasks = JoinSet::new();
        let stop = CancellationToken::new();
        tasks.spawn(async move { driver.run(stop).await.unwrap() });
        for client in 0..CLIENTS {
            let store = store.clone();
            tasks.spawn(async move {
                let mut n = last(&store, client);
                loop {
                    let before = if n == 0 {
                        Compare::absent(format!("last/{client}"))
                    } else {
                        let value = n.to_string().into();
                        Compare::Value { key: format!("last/{client}").into(), is: coracle_store::Is::Equal, value }
                    };
                    n += 1;
                    let then = vec![
                        Op::put(format!("last/{client}"), n.to_string()),
                        Op::put(format!("key/{client}/{}", n % KEYS), value(n)),
                    ];
                    let done = store.txn(Txn { compare: vec![before], then, or_else: vec![] }).await.unwrap();
                    assert!(done.succeeded);
                    writeln!(std::io::stdout(), "acknowledged {client} {n}").unwrap();
                }
            });
        }
        while tasks.join_next().await.is_some() {}
    });
}

/// What clients were told: by client, the last write acknowledged.
pub(crate) type Told = BTreeMap<u64, u64>;

/// Starts a process that writes to a store at this place, and tells what was acknowledged.
pub(crate) fn victim(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "kill::the_victim", "--nocapture", "--test-threads=1"])
        .env(DIR, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Notes what a line of a victim's says; false if it is no acknowledgement, or one that was cut short.
pub(crate) fn hear(told: &mut Told, line: &str) -> bool {
    let mut words = line.split(' ');
    let (said, mut number) = (words.next(), || words.next().and_then(|word| word.parse::<u64>().ok()));
    let (Some("acknowledged"), Some(client), Some(n)) = (said, number(), number()) else { return false };
    let known = told.entry(client).or_default();
    *known = n.max(*known);
    true
}

/// Opens the store and finds everything that was acknowledged, and nothing torn; whether the log had a torn tail.
pub(crate) fn judge(path: &Path, told: &Told, when: &str) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (store, _driver) =
        runtime.block_on(Store::open(config(path))).unwrap_or_else(|error| panic!("{when}: {error}"));
    let mut sum = 0;
    for client in 0..CLIENTS {
        let (told, found) = (told.get(&client).copied().unwrap_or(0), last(&store, client));
        assert!(found >= told, "{when}: client {client} was told of {told}, and {found} is there");
        sum += found;
        for key in 0..KEYS {
            let expected = (0..KEYS).map(|back| found.saturating_sub(back)).find(|n| n % KEYS == key && *n > 0);
            let entry = store.get(format!("key/{client}/{key}").as_bytes());
            let found = entry.map(|entry| entry.value.clone());
            assert_eq!(found, expected.map(|n| value(n).into()), "{when}: key/{client}/{key}");
        }
    }
    assert_eq!(store.revision().0, 1 + sum, "{when}: each transaction has one revision");
    let count = store.range(&Range::prefix("").count()).unwrap().count;
    assert!(count <= usize::try_from(CLIENTS * (KEYS + 1)).unwrap());
    store.recovery().torn.is_some()
}

#[test]
fn what_a_killed_process_acknowledged_is_there_after_every_kill() {
    let rounds = std::env::var("CORACLE_KILL_ROUNDS").map_or(200, |rounds| rounds.parse().expect("a number"));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store");
    let mut acknowledged = Told::new();
    let mut torn = 0;
    for round in 0..rounds {
        let mut victim = victim(&path);
        let patience = 1 + (round * 7919 % 1500);
        let mut heard = 0;
        for line in BufReader::new(victim.stdout.take().unwrap()).lines() {
            if hear(&mut acknowledged, &line.unwrap_or_default()) {
                heard += 1;
            }
            if heard == patience {
                victim.kill().unwrap();
            }
        }
        assert!(heard >= patience, "round {round}: the victim died by itself: {:?}", victim.wait());
        victim.wait().unwrap();
        torn += u64::from(judge(&path, &acknowledged, &format!("round {round}")));
    }
    println!("{rounds} kills, {} acknowledged writes, {torn} torn tails", acknowledged.values().sum::<u64>());
}
