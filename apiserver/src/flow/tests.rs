//! Who gets a seat, who waits and who is refused, with levels made for the purpose.

use super::{
    level::{Place, Refusal, Standing},
    shares::Bounds,
    *,
};

const PATIENCE: Duration = Duration::from_secs(15);

fn counters() -> Arc<Counters> {
    Arc::new(Counters::new("schema", "level"))
}

/// Levels that share seats: how they treat who finds none, and what they are entitled to.
fn levels<const N: usize>(configs: [(Manner, Bounds); N]) -> (Arc<Pool>, [Arc<Level>; N]) {
    let pool = Arc::new(Pool::default());
    let levels = configs.map(|(manner, bounds)| {
        let level = Level::new("level", &pool);
        level.configure(manner, bounds);
        Arc::new(level)
    });
    pool.set(levels.to_vec());
    (pool, levels)
}

fn own(nominal: u32) -> Bounds {
    Bounds { nominal, least: nominal, most: nominal }
}

fn queue(queues: u32, hand: u32, length: u32) -> Manner {
    Manner::Queue(Queuing { queues, hand, length })
}

fn wait(level: &Arc<Level>, counters: &Arc<Counters>, width: u32, flow: u64) -> Place {
    match level.stand(counters, width, flow) {
        Ok(Standing::Waits(place)) => place,
        other => panic!("{other:?}"),
    }
}

fn seat(level: &Arc<Level>, counters: &Arc<Counters>, width: u32) -> Seat {
    level.at_once(counters, width).unwrap()
}

#[test]
fn seats_are_taken_and_given_back() {
    let (_pool, [level]) = levels([(Manner::Reject, own(2))]);
    let counters = counters();
    let first = seat(&level, &counters, 1);
    let second = seat(&level, &counters, 1);
    assert!(level.at_once(&counters, 1).is_none());
    assert_eq!(level.stand(&counters, 1, 0).unwrap_err(), Refusal::ConcurrencyLimit);
    drop(first);
    let third = seat(&level, &counters, 1);
    drop((second, third));
    assert_eq!(level.demand(), 0);
    let wide = seat(&level, &counters, 10);
    assert_eq!(level.demand(), 10, "one that is too wide for the level goes alone");
    assert!(level.at_once(&counters, 1).is_none());
    drop(wide);
}

#[test]
fn who_waits_is_let_in_by_turns_of_the_flows_and_not_of_the_requests() {
    let (_pool, [level]) = levels([(queue(8, 1, 1000), own(1))]);
    let counters = counters();
    let mut running = seat(&level, &counters, 1);
    let mut flood: Vec<Place> = (0..500).map(|_| wait(&level, &counters, 1, 0)).collect();
    let mut other: Vec<Place> = (0..3).map(|_| wait(&level, &counters, 1, 1)).collect();
    let mut before_last = 0;
    // One seat: each that ends lets exactly one in.
    while !other.is_empty() {
        drop(running);
        let told = other.first_mut().and_then(|place| place.told.try_recv().ok());
        running = match told {
            Some(seat) => {
                drop(other.remove(0));
                seat
            }
            None => {
                before_last += 1;
                flood.remove(0).told.try_recv().expect("the first of the flood is next")
            }
        };
    }
    assert!(before_last <= 8, "{before_last} of the flood's 500 went before the other's three");
}

#[test]
fn a_full_queue_refuses_and_who_gives_up_leaves_his_place() {
    let (_pool, [level]) = levels([(queue(1, 1, 2), own(1))]);
    let counters = counters();
    let running = seat(&level, &counters, 1);
    let (first, mut second) = (wait(&level, &counters, 1, 0), wait(&level, &counters, 1, 0));
    assert_eq!(level.stand(&counters, 1, 0).unwrap_err(), Refusal::QueueFull);
    drop(first);
    let third = wait(&level, &counters, 1, 0);
    drop(running);
    let seat = second.told.try_recv().expect("it was next");
    drop(third);
    drop(seat);
    assert_eq!((level.demand(), counters.waiting.load(std::sync::atomic::Ordering::Relaxed)), (0, 0));
    assert!(level.at_once(&counters, 1).is_some());
}

#[test]
fn who_was_let_in_and_is_gone_gives_his_seat_back() {
    let (_pool, [level]) = levels([(queue(1, 1, 9), own(1))]);
    let counters = counters();
    let running = seat(&level, &counters, 1);
    let first = wait(&level, &counters, 1, 0);
    let mut second = wait(&level, &counters, 1, 0);
    drop(running);
    assert!(second.told.try_recv().is_err(), "it is the first one's turn");
    drop(first);
    assert!(second.told.try_recv().is_ok());
}

#[test]
fn who_gives_up_waiting_for_many_seats_lets_those_behind_him_in() {
    let (_pool, [level]) = levels([(queue(1, 1, 9), own(4))]);
    let counters = counters();
    let _running = seat(&level, &counters, 2);
    let wide = wait(&level, &counters, 4, 0);
    let mut narrow = wait(&level, &counters, 1, 0);
    assert!(narrow.told.try_recv().is_err(), "nobody overtakes");
    drop(wide);
    assert!(narrow.told.try_recv().is_ok());
}

#[test]
fn what_is_lent_comes_back_at_once() {
    let lender = Bounds { nominal: 10, least: 2, most: 20 };
    let (_pool, [a, b]) = levels([(queue(4, 1, 100), lender), (queue(4, 1, 100), lender)]);
    let counters = counters();
    let taken: Vec<Seat> = (0..10).map(|_| seat(&a, &counters, 1)).collect();
    let mut borrowed: Vec<Place> = (0..9).map(|_| wait(&a, &counters, 1, 0)).collect();
    let borrowed: Vec<Seat> = borrowed.iter_mut().map_while(|place| place.told.try_recv().ok()).collect();
    assert_eq!((taken.len(), borrowed.len()), (10, 8), "all but what the lender keeps");
    assert_eq!((a.limit(), b.limit()), (18, 2));
    let (_x, _y) = (seat(&b, &counters, 1), seat(&b, &counters, 1));
    let mut wants = wait(&b, &counters, 1, 0);
    assert!(wants.told.try_recv().is_ok(), "the owner does not wait for what he lent");
    assert!(a.limit() < 18 && a.at_once(&counters, 1).is_none());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_his_patience() {
    let (_pool, [level]) = levels([(queue(1, 1, 9), own(1))]);
    let counters = counters();
    let running = seat(&level, &counters, 1);
    let late = level.take(&counters, 1, 0, PATIENCE).await;
    assert_eq!(late.unwrap_err(), Refusal::TimeOut);
    assert_eq!(level.demand(), 1);
    drop(running);
    assert!(level.take(&counters, 1, 0, PATIENCE).await.is_ok());
}

#[test]
fn the_exempt_never_wait() {
    let (_pool, [level]) = levels([(Manner::Exempt, own(0))]);
    let counters = counters();
    let all: Vec<Seat> = (0..1000).map(|_| level.exempt(&counters)).collect();
    assert_eq!((all.len(), level.demand()), (1000, 0));
}

#[test]
fn seats_are_neither_lost_nor_made_when_many_threads_take_them() {
    let lender = Bounds { nominal: 4, least: 1, most: 8 };
    let (_pool, levels) = levels([(queue(4, 2, 1000), lender), (queue(4, 2, 1000), lender)]);
    let done = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let (levels, done) = (&levels, &done);
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                runtime.block_on(async {
                    for round in 0..50_u64 {
                        let take = |n: u64| {
                            let level = Arc::clone(&levels[usize::try_from((n + thread) % 2).unwrap()]);
                            async move {
                                let counters = counters();
                                let width = u32::try_from(n % 3 + 1).unwrap();
                                let seat = match level.at_once(&counters, width) {
                                    Some(seat) => seat,
                                    None => level.take(&counters, width, n, Duration::from_secs(600)).await.unwrap(),
                                };
                                tokio::task::yield_now().await;
                                drop(seat);
                                done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                            }
                        };
                        futures::future::join_all((0..10).map(|n| take(n * 7 + round))).await;
                    }
                });
            });
        }
    });
    assert_eq!(done.into_inner(), 2000);
    assert!(levels.iter().all(|level| level.demand() == 0), "{levels:?}");
}
