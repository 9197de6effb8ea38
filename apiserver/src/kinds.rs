//! The built-in kinds: one file a [`Strategy`], and the one list of them all ([`each`]).
//!
//! What several kinds share (pod specs, label selectors, resource quantities, tolerations) has files of its own here.
//! Validation reports every error it finds, with Kubernetes' field paths and sentences.

mod addresses;
mod admission_match;
mod admission_rules;
mod affinity;
mod cells;
mod conditions;
mod devices;
mod difference;
mod drivers;
mod int_or_percent;
mod label_selector;
mod object_reference;
mod pod_spec;
mod pod_template;
mod resources;
mod rules;
#[cfg(test)]
pub(crate) mod testing;
mod tolerations;
pub(crate) mod usage;
mod volume_access;
pub(crate) mod webhooks;

pub mod api_service;
pub mod certificate_signing_request;
pub mod cluster_role;
pub mod cluster_role_binding;
pub mod component_status;
pub mod config_map;
pub mod controller_revision;
pub mod cron_job;
pub mod csi_driver;
pub mod csi_node;
pub mod csi_storage_capacity;
pub mod custom_resource_definition;
pub mod daemon_set;
pub mod deployment;
pub mod device_class;
pub mod endpoint_slice;
pub mod endpoints;
pub mod event;
pub mod flow_defaults;
pub mod flow_schema;
pub mod horizontal_pod_autoscaler;
pub mod ingress;
pub mod ingress_class;
pub mod ip_address;
pub mod job;
pub mod lease;
pub mod limit_range;
pub mod mutating_admission_policy;
pub mod mutating_admission_policy_binding;
pub mod mutating_webhook_configuration;
pub mod namespace;
pub mod network_policy;
pub mod node;
pub mod node_metrics;
pub mod persistent_volume;
pub mod persistent_volume_claim;
pub mod pod;
pub mod pod_disruption_budget;
pub mod pod_metrics;
pub mod pod_templates;
pub mod priority_class;
pub mod priority_level;
pub mod replica_set;
pub mod replication_controller;
pub mod resource_claim;
pub mod resource_claim_template;
pub mod resource_quota;
pub mod resource_slice;
pub mod role;
pub mod role_binding;
pub mod runtime_class;
pub mod secret;
pub mod service;
pub mod service_account;
pub mod service_cidr;
pub mod stateful_set;
pub mod storage_class;
pub mod validating_admission_policy;
pub mod validating_admission_policy_binding;
pub mod validating_webhook_configuration;
pub mod volume_attachment;
pub mod volume_attributes_class;

use coracle_proto::blank;

use crate::kind::Strategy;

/// Something that wants to see every strategy once, each with its own type.
pub trait Visitor {
    /// Called once a strategy.
    fn visit<S: Strategy>(&mut self, strategy: S);
}

/// Shows `visitor` every built-in strategy: the one list of them.
pub fn each(visitor: &mut impl Visitor) {
    visitor.visit(namespace::Namespaces);
    visitor.visit(node::Nodes);
    visitor.visit(pod::Pods);
    visitor.visit(config_map::ConfigMaps);
    visitor.visit(secret::Secrets);
    visitor.visit(service_account::ServiceAccounts);
    visitor.visit(service::Services);
    visitor.visit(event::CoreEvents);
    visitor.visit(event::Events);
    visitor.visit(lease::Leases);
    visitor.visit(deployment::Deployments);
    visitor.visit(replica_set::ReplicaSets);
    visitor.visit(stateful_set::StatefulSets);
    visitor.visit(daemon_set::DaemonSets);
    visitor.visit(controller_revision::ControllerRevisions);
    visitor.visit(job::Jobs);
    visitor.visit(cron_job::CronJobs);
    visitor.visit(horizontal_pod_autoscaler::Autoscalers);
    visitor.visit(horizontal_pod_autoscaler::AutoscalersV1);
    visitor.visit(pod_disruption_budget::PodDisruptionBudgets);
    visitor.visit(replication_controller::ReplicationControllers);
    visitor.visit(pod_templates::PodTemplates);
    visitor.visit(endpoints::EndpointsLists);
    visitor.visit(limit_range::LimitRanges);
    visitor.visit(resource_quota::ResourceQuotas);
    visitor.visit(persistent_volume::PersistentVolumes);
    visitor.visit(persistent_volume_claim::PersistentVolumeClaims);
    visitor.visit(component_status::ComponentStatuses);
    visitor.visit(role::Roles);
    visitor.visit(role_binding::RoleBindings);
    visitor.visit(cluster_role::ClusterRoles);
    visitor.visit(cluster_role_binding::ClusterRoleBindings);
    visitor.visit(mutating_webhook_configuration::MutatingWebhookConfigurations);
    visitor.visit(validating_webhook_configuration::ValidatingWebhookConfigurations);
    visitor.visit(custom_resource_definition::CustomResourceDefinitions);
    visitor.visit(mutating_admission_policy::MutatingAdmissionPolicies);
    visitor.visit(mutating_admission_policy_binding::MutatingAdmissionPolicyBindings);
    visitor.visit(validating_admission_policy::ValidatingAdmissionPolicies);
    visitor.visit(validating_admission_policy_binding::ValidatingAdmissionPolicyBindings);
    visitor.visit(ingress::Ingresses);
    visitor.visit(ingress_class::IngressClasses);
    visitor.visit(network_policy::NetworkPolicies);
    visitor.visit(ip_address::IpAddresses);
    visitor.visit(service_cidr::ServiceCidrs);
    visitor.visit(endpoint_slice::EndpointSlices);
    visitor.visit(storage_class::StorageClasses);
    visitor.visit(csi_driver::CsiDrivers);
    visitor.visit(csi_node::CsiNodes);
    visitor.visit(csi_storage_capacity::CsiStorageCapacities);
    visitor.visit(volume_attachment::VolumeAttachments);
    visitor.visit(volume_attributes_class::VolumeAttributesClasses);
    visitor.visit(priority_class::PriorityClasses);
    visitor.visit(runtime_class::RuntimeClasses);
    visitor.visit(certificate_signing_request::CertificateSigningRequests);
    visitor.visit(flow_schema::FlowSchemas);
    visitor.visit(priority_level::PriorityLevels);
    visitor.visit(device_class::DeviceClasses);
    visitor.visit(resource_claim::ResourceClaims);
    visitor.visit(resource_claim_template::ResourceClaimTemplates);
    visitor.visit(resource_slice::ResourceSlices);
    visitor.visit(api_service::ApiServices);
    visitor.visit(node_metrics::NodesFigures);
    visitor.visit(pod_metrics::PodsFigures);
}

/// The row of the table of resources with this group and plural at `v1`, as nearly every built-in kind is served.
fn row_of(group: &str, plural: &str) -> &'static coracle_proto::resource::Resource {
    row_at(group, "v1", plural)
}

/// The row of the table of resources with this group, version and plural.
fn row_at(group: &str, version: &str, plural: &str) -> &'static coracle_proto::resource::Resource {
    match coracle_proto::resource::find(group, version, plural) {
        Some(resource) => resource,
        None => unreachable!("{plural}.{group} is in the table of resources, which a test checks"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Seen(Vec<(String, String, String)>);

    impl Visitor for Seen {
        fn visit<S: Strategy>(&mut self, strategy: S) {
            let resource = strategy.resource();
            self.0.push((resource.group.to_owned(), resource.version.to_owned(), resource.plural.to_owned()));
        }
    }

    #[test]
    fn every_listed_resource_has_exactly_one_strategy() {
        let mut seen = Seen::default();
        each(&mut seen);
        let mut expected: Vec<(String, String, String)> = coracle_proto::resource::RESOURCES
            .iter()
            .filter(|r| !r.list_kind.is_empty())
            .map(|r| (r.group.to_owned(), r.version.to_owned(), r.plural.to_owned()))
            .collect();
        expected.sort();
        seen.0.sort();
        assert_eq!(seen.0, expected);
    }
}
