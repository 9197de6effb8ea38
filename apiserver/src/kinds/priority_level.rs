//! Priority levels: how many requests of a level are worked on at once, and how many wait.

use jiff::Timestamp;
use k8s_openapi::api::flowcontrol::v1::{
    LimitResponse, LimitedPriorityLevelConfiguration, PriorityLevelConfiguration, PriorityLevelConfigurationSpec,
    PriorityLevelConfigurationStatus, QueuingConfiguration,
};

use super::{
    blank::{drop_blank, fill, fill_number, list, text},
    cells, flow_defaults, rules,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    resource::Resource,
};

/// The strategy of `prioritylevelconfigurations.flowcontrol.apiserver.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PriorityLevels;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("Type", "Whether requests of this level are limited."),
    cells::column("NominalConcurrencyShares", "The level's part of all requests that are worked on at once."),
    cells::column("Queues", "The number of queues for this priority level."),
    cells::column("HandSize", "How many queues a flow is dealt, to be put into the shortest of them."),
    cells::column("QueueLengthLimit", "How many requests may wait in one queue."),
    AGE,
];

const MAX_QUEUES: i32 = 10_000_000;

/// The bits of the hash that deals queues to flows.
const HASH_BITS: f64 = 60.0;

/// The bits it takes to deal a hand of `hand` queues from `queues`.
fn entropy_bits(queues: i32, hand: i32) -> f64 {
    (0..hand).map(|dealt| f64::from(queues - dealt).log2()).sum::<f64>().ceil()
}

fn validate_shares(errors: &mut Errors, path: &Path, shares: Option<i32>, lendable: Option<i32>) {
    if let Some(shares) = shares.filter(|shares| *shares < 0) {
        let at = path.child("nominalConcurrencyShares");
        errors.push(Error::invalid(&at, shares, "must be a non-negative integer"));
    }
    if let Some(percent) = lendable.filter(|percent| !(0..=100).contains(percent)) {
        let detail = "must be between 0 and 100, inclusive";
        errors.push(Error::invalid(&path.child("lendablePercent"), percent, detail));
    }
}

fn validate_queuing(errors: &mut Errors, path: &Path, queuing: &QueuingConfiguration) {
    let number = |field: Option<i32>| field.unwrap_or(0);
    let (length, queues, hand) =
        (number(queuing.queue_length_limit), number(queuing.queues), number(queuing.hand_size));
    if length <= 0 {
        errors.push(Error::invalid(&path.child("queueLengthLimit"), length, "must be positive"));
    }
    let at = path.child("queues");
    if queues <= 0 {
        errors.push(Error::invalid(&at, queues, "must be positive"));
    } else if queues > MAX_QUEUES {
        errors.push(Error::invalid(&at, queues, &format!("must not be greater than {MAX_QUEUES}")));
    }
    let at = path.child("handSize");
    if hand <= 0 {
        errors.push(Error::invalid(&at, hand, "must be positive"));
    } else if hand > queues {
        errors.push(Error::invalid(&at, hand, &format!("should not be greater than queues ({queues})")));
    } else if hand > 64 || entropy_bits(queues, hand) > HASH_BITS {
        let detail = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        errors.push(Error::invalid(&at, hand, &detail));
    }
}

fn validate_response(errors: &mut Errors, path: &Path, response: &LimitResponse) {
    let at = path.child("queuing");
    match (response.type_.as_str(), &response.queuing) {
        ("Reject", None) => {}
        ("Reject", Some(_)) => {
            errors.push(Error::forbidden(&at, "must be nil if limited.limitResponse.type is not Limited"));
        }
        ("Queue", None) => {
            errors.push(Error::required(&at, "must not be empty if limited.limitResponse.type is Limited"));
        }
        ("Queue", Some(queuing)) => validate_queuing(errors, &at, queuing),
        (other, _) => errors.push(Error::not_supported(&path.child("type"), other, &["Queue", "Reject"])),
    }
}

fn validate_limited(errors: &mut Errors, path: &Path, limited: &LimitedPriorityLevelConfiguration) {
    validate_shares(errors, path, limited.nominal_concurrency_shares, limited.lendable_percent);
    let response = limited.limit_response.clone().unwrap_or_default();
    validate_response(errors, &path.child("limitResponse"), &response);
    if let Some(percent) = limited.borrowing_limit_percent.filter(|percent| *percent < 0) {
        let detail = "if specified, must be a non-negative integer";
        errors.push(Error::invalid(&path.child("borrowingLimitPercent"), percent, detail));
    }
}

fn validate_spec(errors: &mut Errors, path: &Path, level: &str, spec: &PriorityLevelConfigurationSpec) {
    let kind = spec.type_.as_str();
    if (level == "exempt") != (kind == "Exempt") {
        let detail = "must be 'Exempt' if and only if `name` is 'exempt'";
        errors.push(Error::invalid(&path.child("type"), kind, detail));
    }
    match kind {
        "Exempt" => {
            if spec.limited.is_some() {
                let detail = "must be nil if the type is not Limited";
                errors.push(Error::forbidden(&path.child("limited"), detail));
            }
            if let Some(exempt) = &spec.exempt {
                let at = path.child("exempt");
                validate_shares(errors, &at, exempt.nominal_concurrency_shares, exempt.lendable_percent);
            }
        }
        "Limited" => {
            if spec.exempt.is_some() {
                errors.push(Error::forbidden(&path.child("exempt"), "must be nil if the type is Limited"));
            }
            match &spec.limited {
                Some(limited) => validate_limited(errors, &path.child("limited"), limited),
                None => {
                    let detail = "must not be empty when type is Limited";
                    errors.push(Error::required(&path.child("limited"), detail));
                }
            }
        }
        other => errors.push(Error::not_supported(&path.child("type"), other, &["Exempt", "Limited"])),
    }
}

impl Strategy for PriorityLevels {
    type Object = PriorityLevelConfiguration;

    fn resource(&self) -> &'static Resource {
        super::row_of("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations")
    }

    fn default(&self, object: &mut PriorityLevelConfiguration) {
        let spec = object.spec.get_or_insert_default();
        if let Some(exempt) = &mut spec.exempt {
            fill(&mut exempt.nominal_concurrency_shares, 0);
            fill(&mut exempt.lendable_percent, 0);
        }
        if let Some(limited) = &mut spec.limited {
            fill(&mut limited.nominal_concurrency_shares, 30);
            fill(&mut limited.lendable_percent, 0);
            if let Some(queuing) = limited.limit_response.get_or_insert_default().queuing.as_mut() {
                fill_number(&mut queuing.hand_size, 8);
                fill_number(&mut queuing.queues, 64);
                fill_number(&mut queuing.queue_length_limit, 50);
            }
        }
        drop_blank(&mut object.status.get_or_insert_default().conditions);
    }

    fn prepare_create(&self, object: &mut PriorityLevelConfiguration, _: &Context<'_>) {
        object.status = Some(PriorityLevelConfigurationStatus::default());
    }

    fn prepare_update(&self, new: &mut PriorityLevelConfiguration, old: &PriorityLevelConfiguration, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut PriorityLevelConfiguration, old: &PriorityLevelConfiguration, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        new.metadata.clone_from(&old.metadata);
    }

    fn validate(&self, object: &PriorityLevelConfiguration) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("spec"));
        let (name, spec) = (text(&object.metadata.name), object.spec.clone().unwrap_or_default());
        validate_spec(&mut errors, &path, name, &spec);
        if let Some(mut fixed) = flow_defaults::mandatory_level(name).and_then(|level| level.spec) {
            let mut except = "";
            if name == "exempt" {
                // How much of it may be lent is the operator's to say.
                fixed.exempt.clone_from(&spec.exempt);
                except = " except the 'spec.exempt' field";
            }
            if fixed != spec {
                let detail = format!("spec of '{name}'{except} must equal the fixed value");
                errors.push(Error::invalid(&path, rules::json(&spec), &detail));
            }
        }
        errors
    }

    fn validate_status(&self, new: &PriorityLevelConfiguration, _: &PriorityLevelConfiguration) -> Errors {
        let conditions = new.status.as_ref().map_or(&[][..], |status| list(&status.conditions));
        rules::condition_types(conditions.iter().map(|condition| text(&condition.type_)))
    }

    fn counts_generations(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &PriorityLevelConfiguration, now: Timestamp) -> Vec<serde_json::Value> {
        let spec = object.spec.clone().unwrap_or_default();
        let cell = |number: Option<i32>| number.map_or_else(|| cells::NONE.into(), serde_json::Value::from);
        let queuing = spec.limited.as_ref().and_then(|l| l.limit_response.as_ref()?.queuing.clone());
        vec![
            cells::name(&object.metadata),
            spec.type_.into(),
            cell(spec.limited.as_ref().and_then(|limited| limited.nominal_concurrency_shares)),
            cell(queuing.as_ref().and_then(|queuing| queuing.queues)),
            cell(queuing.as_ref().and_then(|queuing| queuing.hand_size)),
            cell(queuing.as_ref().and_then(|queuing| queuing.queue_length_limit)),
            age(&object.metadata, now).into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{created, faults, row};

    fn base() -> Value {
        json!({"metadata": {"name": "l"}, "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {}}}}})
    }

    #[test]
    fn faults_are_named() {
        let limited = |limited: Value| json!({"spec": {"limited": limited}});
        let queuing = |queuing: Value| limited(json!({"limitResponse": {"queuing": queuing}}));
        let patches = [
            json!({"spec": {"type": "Exempt"}}),
            json!({"spec": {"type": "Other"}}),
            json!({"spec": {"limited": null, "exempt": {}}}),
            limited(json!({"nominalConcurrencyShares": -1, "lendablePercent": 101, "borrowingLimitPercent": -1})),
            limited(json!({"limitResponse": {"type": "Reject"}})),
            limited(json!({"limitResponse": {"queuing": null}})),
            queuing(json!({"queues": -1, "handSize": -1, "queueLengthLimit": -1})),
            queuing(json!({"queues": 4, "handSize": 5})),
            queuing(json!({"queues": 10_000_000, "handSize": 8})),
            json!({"metadata": {"name": "catch-all"}}),
        ];
        let text = faults(&PriorityLevels, &base(), &patches);
        for needle in [
            "spec.type: Invalid value: \"Exempt\": must be 'Exempt' if and only if `name` is 'exempt'",
            "spec.limited: Forbidden: must be nil if the type is not Limited",
            "spec.type: Unsupported value: \"Other\": supported values: \"Exempt\", \"Limited\"",
            "spec.limited: Required value: must not be empty when type is Limited",
            "spec.exempt: Forbidden: must be nil if the type is Limited",
            "spec.limited.nominalConcurrencyShares: Invalid value: -1: must be a non-negative integer",
            "spec.limited.lendablePercent: Invalid value: 101: must be between 0 and 100, inclusive",
            "spec.limited.borrowingLimitPercent: Invalid value: -1: if specified, must be a non-negative integer",
            "spec.limited.limitResponse.queuing: Forbidden: must be nil if limited.limitResponse.type is not Limited",
            "spec.limited.limitResponse.queuing: Required value: must not be empty",
            "queuing.queueLengthLimit: Invalid value: -1: must be positive",
            "queuing.queues: Invalid value: -1: must be positive",
            "queuing.handSize: Invalid value: 5: should not be greater than queues (4)",
            "required entropy bits of deckSize 10000000 and handSize 8 should not be greater than 60",
            "spec of 'catch-all' must equal the fixed value",
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
    }

    #[test]
    fn a_row_shows_the_queues() {
        let object = serde_json::to_value(created(&PriorityLevels, &base())).unwrap();
        assert_eq!(row(&PriorityLevels, &object), "l | Limited | 30 | 64 | 8 | 50 | <unknown>");
        let exempt = json!({"metadata": {"name": "exempt"}, "spec": {"type": "Exempt"}});
        assert_eq!(row(&PriorityLevels, &exempt), "exempt | Exempt | <none> | <none> | <none> | <none> | <unknown>");
    }
}
