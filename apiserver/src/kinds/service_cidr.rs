//! Ranges of service addresses.

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{ServiceCIDR, ServiceCIDRStatus};

use super::{
    addresses::{self, Network},
    blank::{drop_blank, list},
    cells, rules,
};
use crate::kind::{AGE, Column, Context, NAME, Strategy, age};
use coracle_proto::{
    field::{Error, Errors, Path},
    resource::Resource,
};

/// The strategy of `servicecidrs.networking.k8s.io`.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceCidrs;

const COLUMNS: &[Column] = &[
    NAME,
    cells::column("CIDRs", "CIDRs defines the IP blocks in CIDR notation from which to assign service cluster IPs."),
    AGE,
];

fn networks(object: &ServiceCIDR) -> &[String] {
    object.spec.as_ref().map_or(&[][..], |spec| list(&spec.cidrs))
}

impl Strategy for ServiceCidrs {
    type Object = ServiceCIDR;

    fn resource(&self) -> &'static Resource {
        super::row_of("networking.k8s.io", "servicecidrs")
    }

    fn default(&self, object: &mut ServiceCIDR) {
        drop_blank(&mut object.spec.get_or_insert_default().cidrs);
        drop_blank(&mut object.status.get_or_insert_default().conditions);
    }

    fn prepare_create(&self, object: &mut ServiceCIDR, _: &Context<'_>) {
        object.status = Some(ServiceCIDRStatus::default());
    }

    fn prepare_update(&self, new: &mut ServiceCIDR, old: &ServiceCIDR, _: &Context<'_>) {
        new.status.clone_from(&old.status);
    }

    fn prepare_status(&self, new: &mut ServiceCIDR, old: &ServiceCIDR, _: &Context<'_>) {
        new.spec.clone_from(&old.spec);
        rules::keep_meta_for_status(&mut new.metadata, &old.metadata);
    }

    fn validate(&self, object: &ServiceCIDR) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("spec").child("cidrs"));
        let cidrs = networks(object);
        match cidrs.len() {
            0 => errors.push(Error::required(&path, "at least one CIDR required")),
            1 | 2 => {
                for (i, cidr) in cidrs.iter().enumerate() {
                    addresses::cidr(&mut errors, &path.index(i), cidr);
                }
                let families: Vec<bool> =
                    cidrs.iter().filter_map(|c| Network::sloppy(c)).map(|network| network.is_ipv6()).collect();
                if matches!(families.as_slice(), [a, b] if a == b) {
                    let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and \
                                  2001:db8::/64";
                    errors.push(Error::invalid(&path, cidrs.to_vec(), detail));
                }
            }
            _ => errors.push(Error::invalid(&path, rules::json(&object.spec), "may only hold up to 2 values")),
        }
        errors
    }

    fn validate_update(&self, new: &ServiceCIDR, old: &ServiceCIDR) -> Errors {
        let (mut errors, path) = (Errors::new(), Path::new("spec").child("cidrs"));
        let (new_cidrs, old_cidrs) = (networks(new), networks(old));
        let grows = old_cidrs.len() == 1 && new_cidrs.len() == 2;
        if old_cidrs.len() != new_cidrs.len() && !grows {
            errors.push(Error::immutable(&path, new_cidrs.to_vec()));
            return errors;
        }
        for (i, (new, old)) in new_cidrs.iter().zip(old_cidrs).enumerate() {
            rules::immutable(&mut errors, &path.index(i), new, old);
        }
        if grows {
            errors.extend(self.validate(new));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn row(&self, object: &ServiceCIDR, now: Timestamp) -> Vec<serde_json::Value> {
        vec![cells::name(&object.metadata), networks(object).join(",").into(), age(&object.metadata, now).into()]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::testing::{faults, refusals, row};

    fn base() -> Value {
        json!({"metadata": {"name": "c"}, "spec": {"cidrs": ["10.96.0.0/16"]}})
    }

    #[test]
    fn faults_are_named() {
        let cidrs = |cidrs: Value| json!({"spec": {"cidrs": cidrs}});
        let patches = [
            cidrs(json!([])),
            cidrs(json!(["10.0.0.0/8", "11.0.0.0/8"])),
            cidrs(json!(["10.0.0.1/8", "x"])),
            cidrs(json!(["10.0.0.0/8", "::/64", "11.0.0.0/8"])),
        ];
        let text = faults(&ServiceCidrs, &base(), &patches);
        for needle in [
            "spec.cidrs: Required value: at least one CIDR required",
            "spec.cidrs: Invalid value: [\"10.0.0.0/8\",\"11.0.0.0/8\"]: may specify no more than one IP for each IP family",
            "spec.cidrs[0]: Invalid value: \"10.0.0.1/8\": must not have bits set beyond the prefix length",
            "spec.cidrs[1]: Invalid value: \"x\": must be a valid CIDR value",
            "may only hold up to 2 values",
        ] {
            assert!(text.contains(needle), "{needle}\n{text}");
        }
    }

    #[test]
    fn a_second_family_may_be_added_and_nothing_else() {
        let cidrs = |cidrs: Value| json!({"spec": {"cidrs": cidrs}});
        let patches =
            [cidrs(json!(["10.96.0.0/16", "2001:db8::/112"])), cidrs(json!(["10.97.0.0/16"])), cidrs(json!([]))];
        let text = refusals(&ServiceCidrs, &base(), &patches);
        assert_eq!(text.matches("field is immutable").count(), 2, "{text}");
        assert!(text.contains("spec.cidrs[0]: Invalid value: \"10.97.0.0/16\": field is immutable"), "{text}");
    }

    #[test]
    fn a_row_shows_the_ranges() {
        assert_eq!(row(&ServiceCidrs, &base()), "c | 10.96.0.0/16 | <unknown>");
    }
}
