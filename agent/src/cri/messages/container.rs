//! Containers: what they are made from, how they are, and what is run in them.

use std::collections::BTreeMap;

use super::{
    ContainerState, MountPropagation, SupplementalGroupsPolicy,
    image::ImageSpec,
    sandbox::{IdMapping, Int64Value, NamespaceOption, PodSandboxConfig, SecurityProfile},
};

super::messages! {
    /// `image` mounts an image in place of a host path.
    Mount {
        #[prost(string, tag = "1")] container_path: String,
        #[prost(string, tag = "2")] host_path: String,
        #[prost(bool, tag = "3")] readonly: bool,
        #[prost(bool, tag = "4")] selinux_relabel: bool,
        #[prost(enumeration = "MountPropagation", tag = "5")] propagation: i32,
        #[prost(message, repeated, tag = "6")] uid_mappings: Vec<IdMapping>,
        #[prost(message, repeated, tag = "7")] gid_mappings: Vec<IdMapping>,
        #[prost(bool, tag = "8")] recursive_read_only: bool,
        #[prost(message, optional, tag = "9")] image: Option<ImageSpec>,
        #[prost(string, tag = "10")] image_sub_path: String,
    }
    KeyValue {
        #[prost(string, tag = "1")] key: String,
        #[prost(bytes = "vec", tag = "2")] value: Vec<u8>,
    }
    LinuxContainerResources {
        #[prost(int64, tag = "1")] cpu_period: i64,
        #[prost(int64, tag = "2")] cpu_quota: i64,
        #[prost(int64, tag = "3")] cpu_shares: i64,
        #[prost(int64, tag = "4")] memory_limit_in_bytes: i64,
        #[prost(int64, tag = "5")] oom_score_adj: i64,
        #[prost(string, tag = "6")] cpuset_cpus: String,
        #[prost(string, tag = "7")] cpuset_mems: String,
        #[prost(message, repeated, tag = "8")] hugepage_limits: Vec<HugepageLimit>,
        #[prost(btree_map = "string, string", tag = "9")] unified: BTreeMap<String, String>,
        #[prost(int64, tag = "10")] memory_swap_limit_in_bytes: i64,
    }
    HugepageLimit {
        #[prost(string, tag = "1")] page_size: String,
        #[prost(uint64, tag = "2")] limit: u64,
    }
    Capability {
        #[prost(string, repeated, tag = "1")] add_capabilities: Vec<String>,
        #[prost(string, repeated, tag = "2")] drop_capabilities: Vec<String>,
        #[prost(string, repeated, tag = "3")] add_ambient_capabilities: Vec<String>,
    }
    LinuxContainerSecurityContext {
        #[prost(message, optional, tag = "1")] capabilities: Option<Capability>,
        #[prost(bool, tag = "2")] privileged: bool,
        #[prost(message, optional, tag = "3")] namespace_options: Option<NamespaceOption>,
        #[prost(message, optional, tag = "5")] run_as_user: Option<Int64Value>,
        #[prost(message, optional, tag = "12")] run_as_group: Option<Int64Value>,
        #[prost(string, tag = "6")] run_as_username: String,
        #[prost(bool, tag = "7")] readonly_rootfs: bool,
        #[prost(int64, repeated, tag = "8")] supplemental_groups: Vec<i64>,
        #[prost(enumeration = "SupplementalGroupsPolicy", tag = "17")] supplemental_groups_policy: i32,
        #[prost(bool, tag = "11")] no_new_privs: bool,
        #[prost(string, repeated, tag = "13")] masked_paths: Vec<String>,
        #[prost(string, repeated, tag = "14")] readonly_paths: Vec<String>,
        #[prost(message, optional, tag = "15")] seccomp: Option<SecurityProfile>,
        #[prost(message, optional, tag = "16")] apparmor: Option<SecurityProfile>,
        #[prost(string, tag = "9")] apparmor_profile: String,
        #[prost(string, tag = "10")] seccomp_profile_path: String,
    }
    LinuxContainerConfig {
        #[prost(message, optional, tag = "1")] resources: Option<LinuxContainerResources>,
        #[prost(message, optional, tag = "2")] security_context: Option<LinuxContainerSecurityContext>,
    }
    LinuxContainerUser {
        #[prost(int64, tag = "1")] uid: i64,
        #[prost(int64, tag = "2")] gid: i64,
        #[prost(int64, repeated, tag = "3")] supplemental_groups: Vec<i64>,
    }
    /// The name of a container: no two of a sandbox have the same.
    ContainerMetadata {
        #[prost(string, tag = "1")] name: String,
        #[prost(uint32, tag = "2")] attempt: u32,
    }
    Device {
        #[prost(string, tag = "1")] container_path: String,
        #[prost(string, tag = "2")] host_path: String,
        #[prost(string, tag = "3")] permissions: String,
    }
    CdiDevice {
        #[prost(string, tag = "1")] name: String,
    }
    ContainerConfig {
        #[prost(message, optional, tag = "1")] metadata: Option<ContainerMetadata>,
        #[prost(message, optional, tag = "2")] image: Option<ImageSpec>,
        #[prost(string, repeated, tag = "3")] command: Vec<String>,
        #[prost(string, repeated, tag = "4")] args: Vec<String>,
        #[prost(string, tag = "5")] working_dir: String,
        #[prost(message, repeated, tag = "6")] envs: Vec<KeyValue>,
        #[prost(message, repeated, tag = "7")] mounts: Vec<Mount>,
        #[prost(message, repeated, tag = "8")] devices: Vec<Device>,
        #[prost(btree_map = "string, string", tag = "9")] labels: BTreeMap<String, String>,
        #[prost(btree_map = "string, string", tag = "10")] annotations: BTreeMap<String, String>,
        #[prost(string, tag = "11")] log_path: String,
        #[prost(bool, tag = "12")] stdin: bool,
        #[prost(bool, tag = "13")] stdin_once: bool,
        #[prost(bool, tag = "14")] tty: bool,
        #[prost(message, optional, tag = "15")] linux: Option<LinuxContainerConfig>,
        #[prost(message, repeated, tag = "17")] cdi_devices: Vec<CdiDevice>,
        #[prost(int32, tag = "18")] stop_signal: i32,
    }
    CreateContainerRequest {
        #[prost(string, tag = "1")] pod_sandbox_id: String,
        #[prost(message, optional, tag = "2")] config: Option<ContainerConfig>,
        #[prost(message, optional, tag = "3")] sandbox_config: Option<PodSandboxConfig>,
    }
    CreateContainerResponse {
        #[prost(string, tag = "1")] container_id: String,
    }
    /// A call about one container.
    ContainerRequest {
        #[prost(string, tag = "1")] container_id: String,
    }
    StopContainerRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(int64, tag = "2")] timeout: i64,
    }
    ContainerStateValue {
        #[prost(enumeration = "ContainerState", tag = "1")] state: i32,
    }
    ContainerFilter {
        #[prost(string, tag = "1")] id: String,
        #[prost(message, optional, tag = "2")] state: Option<ContainerStateValue>,
        #[prost(string, tag = "3")] pod_sandbox_id: String,
        #[prost(btree_map = "string, string", tag = "4")] label_selector: BTreeMap<String, String>,
    }
    ListContainersRequest {
        #[prost(message, optional, tag = "1")] filter: Option<ContainerFilter>,
    }
    Container {
        #[prost(string, tag = "1")] id: String,
        #[prost(string, tag = "2")] pod_sandbox_id: String,
        #[prost(message, optional, tag = "3")] metadata: Option<ContainerMetadata>,
        #[prost(message, optional, tag = "4")] image: Option<ImageSpec>,
        #[prost(string, tag = "5")] image_ref: String,
        #[prost(enumeration = "ContainerState", tag = "6")] state: i32,
        #[prost(int64, tag = "7")] created_at: i64,
        #[prost(btree_map = "string, string", tag = "8")] labels: BTreeMap<String, String>,
        #[prost(btree_map = "string, string", tag = "9")] annotations: BTreeMap<String, String>,
        #[prost(string, tag = "10")] image_id: String,
    }
    ListContainersResponse {
        #[prost(message, repeated, tag = "1")] containers: Vec<Container>,
    }
    ContainerStatusRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(bool, tag = "2")] verbose: bool,
    }
    ContainerStatus {
        #[prost(string, tag = "1")] id: String,
        #[prost(message, optional, tag = "2")] metadata: Option<ContainerMetadata>,
        #[prost(enumeration = "ContainerState", tag = "3")] state: i32,
        #[prost(int64, tag = "4")] created_at: i64,
        #[prost(int64, tag = "5")] started_at: i64,
        #[prost(int64, tag = "6")] finished_at: i64,
        #[prost(int32, tag = "7")] exit_code: i32,
        #[prost(message, optional, tag = "8")] image: Option<ImageSpec>,
        #[prost(string, tag = "9")] image_ref: String,
        #[prost(string, tag = "10")] reason: String,
        #[prost(string, tag = "11")] message: String,
        #[prost(btree_map = "string, string", tag = "12")] labels: BTreeMap<String, String>,
        #[prost(btree_map = "string, string", tag = "13")] annotations: BTreeMap<String, String>,
        #[prost(message, repeated, tag = "14")] mounts: Vec<Mount>,
        #[prost(string, tag = "15")] log_path: String,
        #[prost(message, optional, tag = "16")] resources: Option<ContainerResources>,
        #[prost(string, tag = "17")] image_id: String,
        #[prost(message, optional, tag = "18")] user: Option<ContainerUser>,
        #[prost(int32, tag = "19")] stop_signal: i32,
    }
    ContainerStatusResponse {
        #[prost(message, optional, tag = "1")] status: Option<ContainerStatus>,
        #[prost(btree_map = "string, string", tag = "2")] info: BTreeMap<String, String>,
    }
    ContainerResources {
        #[prost(message, optional, tag = "1")] linux: Option<LinuxContainerResources>,
    }
    ContainerUser {
        #[prost(message, optional, tag = "1")] linux: Option<LinuxContainerUser>,
    }
    UpdateContainerResourcesRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(message, optional, tag = "2")] linux: Option<LinuxContainerResources>,
        #[prost(btree_map = "string, string", tag = "4")] annotations: BTreeMap<String, String>,
    }
    CheckpointContainerRequest {
        #[prost(string, tag = "1")] container_id: String,
    }
    ExecSyncRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(string, repeated, tag = "2")] cmd: Vec<String>,
        #[prost(int64, tag = "3")] timeout: i64,
    }
    ExecSyncResponse {
        #[prost(bytes = "vec", tag = "1")] stdout: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")] stderr: Vec<u8>,
        #[prost(int32, tag = "3")] exit_code: i32,
    }
    ExecRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(string, repeated, tag = "2")] cmd: Vec<String>,
        #[prost(bool, tag = "3")] tty: bool,
        #[prost(bool, tag = "4")] stdin: bool,
        #[prost(bool, tag = "5")] stdout: bool,
        #[prost(bool, tag = "6")] stderr: bool,
    }
    AttachRequest {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(bool, tag = "2")] stdin: bool,
        #[prost(bool, tag = "3")] tty: bool,
        #[prost(bool, tag = "4")] stdout: bool,
        #[prost(bool, tag = "5")] stderr: bool,
    }
    PortForwardRequest {
        #[prost(string, tag = "1")] pod_sandbox_id: String,
        #[prost(int32, repeated, tag = "2")] port: Vec<i32>,
    }
    /// Where a stream is to be had.
    UrlResponse {
        #[prost(string, tag = "1")] url: String,
    }
}
