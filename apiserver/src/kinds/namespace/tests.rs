//! Namespaces: their finalizers, phases and rows.

use expect_test::expect;
use serde_json::{Value, json};

use super::{Namespaces, is_finalized};
use crate::{
    kind::{Context, Deletion, Strategy},
    kinds::testing::{created, defaulted, faults, lines, merged, now, row, shown},
    user::User,
};

fn base() -> Value {
    json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["example.com/mine"]}, "status": {"phase": "Terminating"}})
}

#[test]
fn a_new_namespace_is_active_labelled_and_held() {
    expect![[r#"
        {
          "apiVersion": "v1",
          "kind": "Namespace",
          "metadata": {
            "labels": {
              "kubernetes.io/metadata.name": "n"
            },
            "name": "n"
          },
          "spec": {
            "finalizers": [
              "example.com/mine",
              "kubernetes"
            ]
          },
          "status": {
            "phase": "Active"
          }
        }"#]]
    .assert_eq(&shown(&Namespaces, &created(&Namespaces, &base())));
}

#[test]
fn finalizers_are_qualified_or_known() {
    let patches = [json!({"spec": {"finalizers": ["mine"]}})];
    expect![[r#"
        {"spec":{"finalizers":["mine"]}}
            spec.finalizers: Invalid value: "mine": name is neither a standard finalizer name nor is it fully qualified
    "#]]
    .assert_eq(&faults(&Namespaces, &base(), &patches));
}

#[test]
fn only_finalize_changes_the_finalizers_and_only_status_the_status() {
    let old = created(&Namespaces, &base());
    let given = json!({"metadata": {"name": "n", "labels": {"a": "b"}}, "spec": {"finalizers": []},
        "status": {"phase": "Terminating"}});
    let (user, new) = (User::new("alice", &[]), defaulted(&Namespaces, &given));
    let context = Context { user: &user, now: now() };

    let mut updated = new.clone();
    Namespaces.prepare_update(&mut updated, &old, &context);
    assert_eq!((&updated.spec, &updated.status), (&old.spec, &old.status));
    assert_eq!(updated.metadata.labels.unwrap()["a"], "b");

    let mut status = new.clone();
    Namespaces.prepare_status(&mut status, &old, &context);
    assert_eq!((&status.spec, &status.status), (&old.spec, &new.status));
    expect![[r#"
        status.Phase: Invalid value: "Terminating": may only be 'Active' if `deletionTimestamp` is empty
    "#]]
    .assert_eq(&lines(&Namespaces.validate_status(&status, &old)));

    let mut finalized = new.clone();
    Namespaces.prepare_finalize(&mut finalized, &old, &context);
    assert_eq!((&finalized.spec, &finalized.status), (&new.spec, &old.status));
    assert!(is_finalized(&finalized));
}

#[test]
fn a_held_namespace_terminates_and_a_free_one_goes() {
    let mut held = created(&Namespaces, &base());
    assert_eq!(Namespaces.begin_deletion(&mut held, None), Deletion::Graceful { seconds: 0 });
    assert_eq!(held.status.unwrap().phase.as_deref(), Some("Terminating"));
    let mut free = defaulted(&Namespaces, &json!({"metadata": {"name": "n"}}));
    assert_eq!(Namespaces.begin_deletion(&mut free, None), Deletion::Immediate);
}

#[test]
fn a_row_shows_the_phase() {
    let object = merged(&base(), &json!({"metadata": {"creationTimestamp": "2025-12-31T01:00:00Z"}}));
    assert_eq!(row(&Namespaces, &object), "n | Terminating | 24h");
}
