//! What transactions compare, do, and are refused for, through the public handle.

use std::time::Duration;

use coracle_store::{
    Change, Compare, Error, Is, LeaseId, MAX_DEPTH, MAX_KEY, MAX_OPS, MAX_VALUE, Op, OpResult, Range, Revision, Txn,
};

use crate::semantics::{Running, pairs};

#[tokio::test]
async fn a_transaction_compares_then_does_one_branch_as_a_whole() {
    let run = Running::start().await;
    let create = |value| Txn {
        compare: vec![Compare::absent("k")],
        then: vec![Op::put("k", value)],
        or_else: vec![Op::get("k")],
    };
    assert!(run.store.txn(create("1")).await.unwrap().succeeded);
    let second = run.store.txn(create("2")).await.unwrap();
    assert!(!second.succeeded);
    let [OpResult::Got(found)] = &second.results[..] else { panic!("{second:?}") };
    assert_eq!(found.entries[0].value, "1");
    let key = || "k".into();
    for (compare, holds) in [
        (Compare::unchanged("k", Revision(2)), true),
        (Compare::unchanged("k", Revision(3)), false),
        (Compare::ModRevision { key: key(), is: Is::Greater, value: Revision(1) }, true),
        (Compare::CreateRevision { key: key(), is: Is::Less, value: Revision(2) }, false),
        (Compare::Version { key: key(), is: Is::NotEqual, value: 1 }, false),
        (Compare::Value { key: key(), is: Is::Equal, value: "1".into() }, true),
        (Compare::Value { key: "absent".into(), is: Is::NotEqual, value: "1".into() }, false),
        (Compare::Lease { key: key(), is: Is::Equal, value: LeaseId(0) }, true),
    ] {
        let txn = Txn { compare: vec![compare.clone()], ..Txn::default() };
        assert_eq!(run.store.txn(txn).await.unwrap().succeeded, holds, "{compare:?}");
    }
    let many = Txn {
        then: vec![Op::put("x", "1"), Op::put("y", "1"), Op::delete("k"), Op::Get(Range::prefix(""))],
        ..Txn::default()
    };
    let many = run.store.txn(many).await.unwrap();
    assert_eq!(many.revision, Revision(3));
    let OpResult::Got(after) = &many.results[3] else { panic!("{many:?}") };
    assert_eq!(after.entries.iter().map(|entry| &entry.key[..]).collect::<Vec<_>>(), [b"x", b"y"]);
    run.stop().await;
}

#[tokio::test]
async fn a_comparison_with_a_range_is_one_with_each_key_of_it() {
    let run = Running::start().await;
    run.put("r/a", "1").await;
    run.put("r/b", "2").await;
    run.put("r/b", "3").await;
    let each = |start: &'static str, end: &'static str, compare: fn(bytes::Bytes) -> Compare| {
        let compare = vec![Compare::Each { end: end.into(), compare: Box::new(compare(start.into())) }];
        run.store.txn(Txn { compare, ..Txn::default() })
    };
    let there = |key| Compare::CreateRevision { key, is: Is::Greater, value: Revision::NONE };
    let first = |key| Compare::Version { key, is: Is::Equal, value: 1 };
    let any_value = |key| Compare::Value { key, is: Is::NotEqual, value: "?".into() };
    for (start, end, compare, holds) in [
        ("r/", "r0", there as fn(bytes::Bytes) -> Compare, true),
        ("r/", "r0", first, false),
        ("r/", "r/b", first, true),
        ("r/b", "", first, false),
        ("r/", "", any_value, true),
        // Without a key it is a comparison with one that is not there: its numbers are 0, its value compares with none.
        ("s/", "s0", there, false),
        ("s/", "s0", any_value, false),
        ("s/", "s0", |key| Compare::unchanged(key, Revision::NONE), true),
        ("r0", "r/", |key| Compare::unchanged(key, Revision::NONE), true),
    ] {
        assert_eq!(
            each(start, end, compare).await.unwrap().succeeded,
            holds,
            "{start} {end} {:?}",
            compare(start.into())
        );
    }
    run.stop().await;
}

#[tokio::test]
async fn a_transaction_within_compares_with_what_was_before_and_belongs_to_the_whole() {
    let run = Running::start().await;
    run.put("a", "1").await;
    let within = |compare, then, or_else| Op::Txn(Txn { compare, then, or_else });
    let done = run.store.txn(Txn {
        then: vec![
            Op::put("b", "1"),
            // What was put a step before is not there yet for a comparison, but is read.
            within(
                vec![Compare::absent("b")],
                vec![Op::put("c", "1"), Op::get("b"), within(vec![], vec![Op::delete("a")], vec![])],
                vec![Op::put("d", "1")],
            ),
            Op::Get(Range::prefix("").count()),
        ],
        ..Txn::default()
    });
    let done = done.await.unwrap();
    assert_eq!(done.revision, Revision(3));
    let [OpResult::Put { .. }, OpResult::Txn(inner), OpResult::Got(all)] = &done.results[..] else {
        panic!("{done:?}")
    };
    assert_eq!((inner.succeeded, inner.revision, all.count), (true, Revision(3), 2));
    let [OpResult::Put { .. }, OpResult::Got(read), OpResult::Txn(innermost)] = &inner.results[..] else {
        panic!("{inner:?}")
    };
    assert_eq!(read.entries[0].mod_revision, Revision(3));
    assert!(matches!(&innermost.results[..], [OpResult::Deleted(gone)] if gone.len() == 1));
    assert_eq!(run.read(&Range::prefix("")), pairs(&[("b", "1"), ("c", "1")]));

    // What cannot be done within undoes the whole; what is in the branch that is not done does not.
    let lease = Some(LeaseId(7));
    let unknown = || Op::Put { key: "k".into(), value: "1".into(), lease };
    let both = |or_else, then| Txn { then: vec![Op::put("x", "1"), within(vec![], then, or_else)], ..Txn::default() };
    let refused = run.store.txn(both(vec![], vec![unknown()])).await.unwrap_err();
    assert!(matches!(refused, Error::LeaseNotFound { id: LeaseId(7) }));
    assert!(run.store.get(b"x").is_none());
    run.store.txn(both(vec![unknown()], vec![])).await.unwrap();
    let dir = run.stop().await;

    // The log has it all.
    let run = Running::start_in(dir).await;
    assert_eq!(run.read(&Range::prefix("")), pairs(&[("b", "1"), ("c", "1"), ("x", "1")]));
    run.stop().await;
}

#[tokio::test]
async fn a_key_is_amended_where_it_is_and_keeps_the_rest() {
    let run = Running::start().await;
    let lease = run.store.lease_grant(Duration::from_secs(1000)).await.unwrap().id;
    let amend = |change| Txn { then: vec![Op::Amend { key: "k".into(), change }], ..Txn::default() };
    let refused = run.store.txn(amend(Change::Nothing)).await.unwrap_err();
    assert!(matches!(&refused, Error::KeyNotFound { key } if key == "k"), "{refused:?}");
    let put = Op::Put { key: "k".into(), value: "1".into(), lease: Some(lease) };
    run.store.txn(Txn { then: vec![put], ..Txn::default() }).await.unwrap();
    for (change, value, held, version) in [
        (Change::Value("2".into()), "2", Some(lease), 2),
        (Change::Nothing, "2", Some(lease), 3),
        (Change::Lease(None), "2", None, 4),
        (Change::Value("3".into()), "3", None, 5),
        (Change::Lease(Some(lease)), "3", Some(lease), 6),
    ] {
        run.store.txn(amend(change.clone())).await.unwrap();
        let entry = run.store.get(b"k").unwrap();
        assert_eq!((&entry.value[..], entry.lease, entry.version), (value.as_bytes(), held, version), "{change:?}");
    }
    let unknown = run.store.txn(amend(Change::Lease(Some(LeaseId(7))))).await.unwrap_err();
    assert!(matches!(unknown, Error::LeaseNotFound { id: LeaseId(7) }));
    run.store.lease_revoke(lease).await.unwrap();
    assert!(run.store.get(b"k").is_none(), "the lease it was amended to have takes it along");
    run.stop().await;
}

#[test]
fn keys_and_operations_are_counted_through_transactions_within() {
    let put = |key: &'static str| Op::put(key, "1");
    let within = |then, or_else| Op::Txn(Txn { compare: vec![], then, or_else });
    let then = |then| Txn { then, ..Txn::default() }.validate();
    // A key is set once, whoever sets it; of two branches only one is done.
    let a_to_c = || Op::Delete { start: "a".into(), end: Some("c".into()) };
    for (branch, fine) in [
        (vec![put("a"), within(vec![put("b")], vec![put("b")])], true),
        (vec![put("a"), within(vec![put("a")], vec![])], false),
        (vec![put("a"), within(vec![], vec![put("a")])], false),
        (vec![within(vec![put("a")], vec![]), within(vec![], vec![put("a")])], false),
        (vec![within(vec![put("a")], vec![Op::delete("a")])], true),
        (vec![within(vec![put("a"), Op::delete("a")], vec![])], false),
        (vec![within(vec![put("b")], vec![]), a_to_c()], false),
        (vec![within(vec![put("c")], vec![]), a_to_c()], true),
        (vec![within(vec![a_to_c()], vec![]), within(vec![put("b")], vec![])], false),
        (vec![within(vec![put("b")], vec![]), within(vec![a_to_c()], vec![])], false),
        (vec![within(vec![], vec![within(vec![put("b")], vec![])]), put("b")], false),
        (vec![a_to_c(), Op::Delete { start: "b".into(), end: Some("d".into()) }, put("c")], false),
        (vec![a_to_c(), Op::Delete { start: "c".into(), end: Some("d".into()) }, put("d")], true),
        (vec![Op::Delete { start: "x".into(), end: Some("".into()) }, a_to_c(), put("y")], false),
        (vec![Op::Delete { start: "c".into(), end: Some("a".into()) }, put("b")], true),
        (vec![Op::delete("b"), put("a"), put("b\0")], true),
        (vec![Op::Amend { key: "a".into(), change: Change::Nothing }, put("a")], false),
    ] {
        let checked = then(branch.clone());
        let refused = matches!(checked, Err(Error::DuplicateKey { .. }));
        assert!(if fine { checked.is_ok() } else { refused }, "{branch:?}: {checked:?}");
    }
    // Of each the longest list, and those around it.
    let gets = |count| vec![Op::get("k"); count];
    then(vec![within(gets(MAX_OPS - 1), gets(MAX_OPS - 1)); 1]).unwrap();
    let refused = then(vec![within(gets(MAX_OPS), vec![])]).unwrap_err();
    assert!(matches!(refused, Error::TooManyOps { found: 1025, limit: MAX_OPS }), "{refused:?}");
    let deep = |depth| (0..depth).fold(Op::get("k"), |op, _| within(vec![op], vec![]));
    then(vec![deep(MAX_DEPTH)]).unwrap();
    assert!(matches!(then(vec![deep(MAX_DEPTH + 1)]), Err(Error::TooDeep { limit: MAX_DEPTH })));
    let each = |compare| Compare::Each { end: "b".into(), compare: Box::new(compare) };
    let compare = vec![each(each(Compare::absent("a")))];
    assert!(matches!(Txn { compare, ..Txn::default() }.validate(), Err(Error::RangeInRange)));
    let long = vec![Compare::Each { end: vec![b'k'; MAX_KEY + 1].into(), compare: Box::new(Compare::absent("a")) }];
    assert!(matches!(Txn { compare: long, ..Txn::default() }.validate(), Err(Error::KeyTooLong { size: 1025, .. })));
}

#[tokio::test]
async fn what_no_transaction_may_do_is_refused_by_name() {
    let run = Running::start().await;
    let then = |then| Txn { then, ..Txn::default() };
    let refused = |txn| async { run.store.txn(txn).await.unwrap_err() };
    assert!(matches!(refused(then(vec![Op::put("", "x")])).await, Error::KeyEmpty));
    assert!(matches!(
        refused(then(vec![Op::put(vec![b'k'; MAX_KEY + 1], "x")])).await,
        Error::KeyTooLong { size: 1025, .. }
    ));
    assert!(matches!(
        refused(then(vec![Op::put("k", vec![0; MAX_VALUE + 1])])).await,
        Error::ValueTooLarge { limit: MAX_VALUE, .. }
    ));
    assert!(matches!(
        refused(then(vec![Op::get("k"); MAX_OPS + 1])).await,
        Error::TooManyOps { found: 1025, limit: MAX_OPS }
    ));
    let large = (0..6).map(|n| Op::put(format!("k{n}"), vec![0; MAX_VALUE])).collect();
    assert!(matches!(refused(then(large)).await, Error::TxnTooLarge { .. }));
    assert!(matches!(refused(then(vec![Op::put("k", "1"), Op::put("k", "2")])).await, Error::DuplicateKey { .. }));
    let both = vec![Op::put("k/a", "1"), Op::Delete { start: "k/".into(), end: Some("k0".into()) }];
    assert!(matches!(refused(then(both)).await, Error::DuplicateKey { .. }));
    assert!(matches!(refused(then(vec![Op::Get(Range::key("k").at(Revision(1)))])).await, Error::PastReadInTxn));
    let lease = Some(LeaseId(7));
    let unknown = vec![Op::put("a", "1"), Op::Put { key: "k".into(), value: "1".into(), lease }];
    assert!(matches!(refused(then(unknown)).await, Error::LeaseNotFound { id: LeaseId(7) }));
    assert_eq!(run.store.revision(), Revision(1), "nothing was done");
    run.store.txn(then(vec![Op::put("k", vec![7; MAX_VALUE])])).await.unwrap();
    assert_eq!(run.store.get(b"k").unwrap().value.len(), MAX_VALUE);
    run.stop().await;
}
