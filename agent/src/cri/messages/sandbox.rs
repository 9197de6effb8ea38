//! Sandboxes: what they are made from, and how they are.

use std::collections::BTreeMap;

use super::{
    NamespaceMode, PodSandboxState, ProfileType, SupplementalGroupsPolicy,
    container::{ContainerStatus, LinuxContainerResources},
};

super::messages! {
    DnsConfig {
        #[prost(string, repeated, tag = "1")] servers: Vec<String>,
        #[prost(string, repeated, tag = "2")] searches: Vec<String>,
        #[prost(string, repeated, tag = "3")] options: Vec<String>,
    }
    PortMapping {
        #[prost(int32, tag = "1")] protocol: i32,
        #[prost(int32, tag = "2")] container_port: i32,
        #[prost(int32, tag = "3")] host_port: i32,
        #[prost(string, tag = "4")] host_ip: String,
    }
    NamespaceOption {
        #[prost(enumeration = "NamespaceMode", tag = "1")] network: i32,
        #[prost(enumeration = "NamespaceMode", tag = "2")] pid: i32,
        #[prost(enumeration = "NamespaceMode", tag = "3")] ipc: i32,
        #[prost(string, tag = "4")] target_id: String,
        #[prost(message, optional, tag = "5")] userns_options: Option<UserNamespace>,
    }
    UserNamespace {
        #[prost(enumeration = "NamespaceMode", tag = "1")] mode: i32,
        #[prost(message, repeated, tag = "2")] uids: Vec<IdMapping>,
        #[prost(message, repeated, tag = "3")] gids: Vec<IdMapping>,
    }
    IdMapping {
        #[prost(uint32, tag = "1")] host_id: u32,
        #[prost(uint32, tag = "2")] container_id: u32,
        #[prost(uint32, tag = "3")] length: u32,
    }
    Int64Value {
        #[prost(int64, tag = "1")] value: i64,
    }
    LinuxSandboxSecurityContext {
        #[prost(message, optional, tag = "1")] namespace_options: Option<NamespaceOption>,
        #[prost(message, optional, tag = "3")] run_as_user: Option<Int64Value>,
        #[prost(message, optional, tag = "8")] run_as_group: Option<Int64Value>,
        #[prost(bool, tag = "4")] readonly_rootfs: bool,
        #[prost(int64, repeated, tag = "5")] supplemental_groups: Vec<i64>,
        #[prost(enumeration = "SupplementalGroupsPolicy", tag = "11")] supplemental_groups_policy: i32,
        #[prost(bool, tag = "6")] privileged: bool,
        #[prost(message, optional, tag = "9")] seccomp: Option<SecurityProfile>,
        #[prost(message, optional, tag = "10")] apparmor: Option<SecurityProfile>,
        #[prost(string, tag = "7")] seccomp_profile_path: String,
    }
    SecurityProfile {
        #[prost(enumeration = "ProfileType", tag = "1")] profile_type: i32,
        #[prost(string, tag = "2")] localhost_ref: String,
    }
    LinuxPodSandboxConfig {
        #[prost(string, tag = "1")] cgroup_parent: String,
        #[prost(message, optional, tag = "2")] security_context: Option<LinuxSandboxSecurityContext>,
        #[prost(btree_map = "string, string", tag = "3")] sysctls: BTreeMap<String, String>,
        #[prost(message, optional, tag = "4")] overhead: Option<LinuxContainerResources>,
        #[prost(message, optional, tag = "5")] resources: Option<LinuxContainerResources>,
    }
    /// The name of a sandbox: no two have the same.
    PodSandboxMetadata {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, tag = "2")] uid: String,
        #[prost(string, tag = "3")] namespace: String,
        #[prost(uint32, tag = "4")] attempt: u32,
    }
    PodSandboxConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<PodSandboxMetadata>,
        #[prost(string, tag = "2")] hostname: String,
        #[prost(string, tag = "3")] log_directory: String,
        #[prost(message, optional, tag = "4")] dns_config: Option<DnsConfig>,
        #[prost(message, repeated, tag = "5")] port_mappings: Vec<PortMapping>,
        #[prost(btree_map = "string, string", tag = "6")] labels: BTreeMap<String, String>,
        #[prost(btree_map = "string, string", tag = "7")] annotations: BTreeMap<String, String>,
        #[prost(message, optional, tag = "8")] linux: Option<LinuxPodSandboxConfig>,
    }
    RunPodSandboxRequest {
        #[prost(message, optional, tag = "1")] config: Option<PodSandboxConfig>,
        #[prost(string, tag = "2")] runtime_handler: String,
    }
    RunPodSandboxResponse {
        #[prost(string, tag = "1")] pod_sandbox_id: String,
    }
    /// A call about one sandbox.
    PodSandboxRequest {
        #[prost(string, tag = "1")] pod_sandbox_id: String,
    }
    UpdatePodSandboxResourcesRequest {
        #[prost(string, tag = "1")] pod_sandbox_id: String,
        #[prost(message, optional, tag = "2")] overhead: Option<LinuxContainerResources>,
        #[prost(message, optional, tag = "3")] resources: Option<LinuxContainerResources>,
    }
    PodSandboxStatusRequest {
        #[prost(string, tag = "1")] pod_sandbox_id: String,
        #[prost(bool, tag = "2")] verbose: bool,
    }
    PodIp {
        #[prost(string, tag = "1")] ip: String,
    }
    PodSandboxNetworkStatus {
        #[prost(string, tag = "1")] ip: String,
        #[prost(message, repeated, tag = "2")] additional_ips: Vec<PodIp>,
    }
    Namespace {
        #[prost(message, optional, tag = "2")] options: Option<NamespaceOption>,
    }
    LinuxPodSandboxStatus {
        #[prost(message, optional, tag = "1")] namespaces: Option<Namespace>,
    }
    PodSandboxStatus {
        #[prost(string, tag = "1")] id: String,
        #[prost(message, optional, tag = "2")] metadata: Option<PodSandboxMetadata>,
        #[prost(enumeration = "PodSandboxState", tag = "3")] state: i32,
        #[prost(int64, tag = "4")] created_at: i64,
        #[prost(message, optional, tag = "5")] network: Option<PodSandboxNetworkStatus>,
        #[prost(message, optional, tag = "6")] linux: Option<LinuxPodSandboxStatus>,
        #[prost(btree_map = "string, string", tag = "7")] labels: BTreeMap<String, String>,
        #[prost(btree_map = "string, string", tag = "8")] annotations: BTreeMap<String, String>,
        #[prost(string, tag = "9")] runtime_handler: String,
    }
    PodSandboxStatusResponse {
        #[prost(message, optional, tag = "1")] status: Option<PodSandboxStatus>,
        #[prost(btree_map = "string, string", tag = "2")] info: BTreeMap<String, String>,
        #[prost(message, repeated, tag = "3")] containers_statuses: Vec<ContainerStatus>,
        #[prost(int64, tag = "4")] timestamp: i64,
    }
    PodSandboxStateValue {
        #[prost(enumeration = "PodSandboxState", tag = "1")] state: i32,
    }
    PodSandboxFilter {
        #[prost(string, tag = "1")] id: String,
        #[prost(message, optional, tag = "2")] state: Option<PodSandboxStateValue>,
        #[prost(btree_map = "string, string", tag = "3")] label_selector: BTreeMap<String, String>,
    }
    ListPodSandboxRequest {
        #[prost(message, optional, tag = "1")] filter: Option<PodSandboxFilter>,
    }
    PodSandbox {
        #[prost(string, tag = "1")] id: String,
        #[prost(message, optional, tag = "2")] metadata: Option<PodSandboxMetadata>,
        #[prost(enumeration = "PodSandboxState", tag = "3")] state: i32,
        #[prost(int64, tag = "4")] created_at: i64,
        #[prost(btree_map = "string, string", tag = "5")] labels: BTreeMap<String, String>,
        #[prost(btree_map = "string, string", tag = "6")] annotations: BTreeMap<String, String>,
        #[prost(string, tag = "7")] runtime_handler: String,
    }
    ListPodSandboxResponse {
        #[prost(message, repeated, tag = "1")] items: Vec<PodSandbox>,
    }
}
