//! What sandboxes and containers use, and what happens to them.

use std::collections::BTreeMap;

use super::{
    ContainerEventType, MetricType,
    container::{ContainerMetadata, ContainerStatus},
    image::FilesystemUsage,
    sandbox::{PodSandboxMetadata, PodSandboxStatus},
};

super::messages! {
    Uint64Value {
        #[prost(uint64, tag = "1")] value: u64,
    }
    ContainerStatsResponse {
        #[prost(message, optional, tag = "1")] stats: Option<ContainerStats>,
    }
    ContainerStatsFilter {
        #[prost(string, tag = "1")] id: String,
        #[prost(string, tag = "2")] pod_sandbox_id: String,
        #[prost(btree_map = "string, string", tag = "3")] label_selector: BTreeMap<String, String>,
    }
    ListContainerStatsRequest {
        #[prost(message, optional, tag = "1")] filter: Option<ContainerStatsFilter>,
    }
    ListContainerStatsResponse {
        #[prost(message, repeated, tag = "1")] stats: Vec<ContainerStats>,
    }
    ContainerAttributes {
        #[prost(string, tag = "1")] id: String,
        #[prost(message, optional, tag = "2")] metadata: Option<ContainerMetadata>,
        #[prost(btree_map = "string, string", tag = "3")] labels: BTreeMap<String, String>,
        #[prost(btree_map = "string, string", tag = "4")] annotations: BTreeMap<String, String>,
    }
    ContainerStats {
        #[prost(message, optional, tag = "1")] attributes: Option<ContainerAttributes>,
        #[prost(message, optional, tag = "2")] cpu: Option<CpuUsage>,
        #[prost(message, optional, tag = "3")] memory: Option<MemoryUsage>,
        #[prost(message, optional, tag = "4")] writable_layer: Option<FilesystemUsage>,
    }
    CpuUsage {
        #[prost(int64, tag = "1")] timestamp: i64,
        #[prost(message, optional, tag = "2")] usage_core_nano_seconds: Option<Uint64Value>,
        #[prost(message, optional, tag = "3")] usage_nano_cores: Option<Uint64Value>,
    }
    MemoryUsage {
        #[prost(int64, tag = "1")] timestamp: i64,
        #[prost(message, optional, tag = "2")] working_set_bytes: Option<Uint64Value>,
        #[prost(message, optional, tag = "3")] available_bytes: Option<Uint64Value>,
        #[prost(message, optional, tag = "4")] usage_bytes: Option<Uint64Value>,
        #[prost(message, optional, tag = "5")] rss_bytes: Option<Uint64Value>,
        #[prost(message, optional, tag = "6")] page_faults: Option<Uint64Value>,
        #[prost(message, optional, tag = "7")] major_page_faults: Option<Uint64Value>,
    }
    PodSandboxStatsResponse {
        #[prost(message, optional, tag = "1")] stats: Option<PodSandboxStats>,
    }
    PodSandboxStatsFilter {
        #[prost(string, tag = "1")] id: String,
        #[prost(btree_map = "string, string", tag = "2")] label_selector: BTreeMap<String, String>,
    }
    ListPodSandboxStatsRequest {
        #[prost(message, optional, tag = "1")] filter: Option<PodSandboxStatsFilter>,
    }
    ListPodSandboxStatsResponse {
        #[prost(message, repeated, tag = "1")] stats: Vec<PodSandboxStats>,
    }
    PodSandboxAttributes {
        #[prost(string, tag = "1")] id: String,
        #[prost(message, optional, tag = "2")] metadata: Option<PodSandboxMetadata>,
        #[prost(btree_map = "string, string", tag = "3")] labels: BTreeMap<String, String>,
        #[prost(btree_map = "string, string", tag = "4")] annotations: BTreeMap<String, String>,
    }
    PodSandboxStats {
        #[prost(message, optional, tag = "1")] attributes: Option<PodSandboxAttributes>,
        #[prost(message, optional, tag = "2")] linux: Option<LinuxPodSandboxStats>,
    }
    LinuxPodSandboxStats {
        #[prost(message, optional, tag = "1")] cpu: Option<CpuUsage>,
        #[prost(message, optional, tag = "2")] memory: Option<MemoryUsage>,
        #[prost(message, optional, tag = "3")] network: Option<NetworkUsage>,
        #[prost(message, optional, tag = "4")] process: Option<ProcessUsage>,
        #[prost(message, repeated, tag = "5")] containers: Vec<ContainerStats>,
    }
    NetworkUsage {
        #[prost(int64, tag = "1")] timestamp: i64,
        #[prost(message, optional, tag = "2")] default_interface: Option<NetworkInterfaceUsage>,
        #[prost(message, repeated, tag = "3")] interfaces: Vec<NetworkInterfaceUsage>,
    }
    NetworkInterfaceUsage {
        #[prost(string, tag = "1")] name: String,
        #[prost(message, optional, tag = "2")] rx_bytes: Option<Uint64Value>,
        #[prost(message, optional, tag = "3")] rx_errors: Option<Uint64Value>,
        #[prost(message, optional, tag = "4")] tx_bytes: Option<Uint64Value>,
        #[prost(message, optional, tag = "5")] tx_errors: Option<Uint64Value>,
    }
    ProcessUsage {
        #[prost(int64, tag = "1")] timestamp: i64,
        #[prost(message, optional, tag = "2")] process_count: Option<Uint64Value>,
    }
    /// What figures of this name are about, and which labels they have.
    MetricDescriptor {
        #[prost(string, tag = "1")] name: String,
        #[prost(string, tag = "2")] help: String,
        #[prost(string, repeated, tag = "3")] label_keys: Vec<String>,
    }
    ListMetricDescriptorsResponse {
        #[prost(message, repeated, tag = "1")] descriptors: Vec<MetricDescriptor>,
    }
    /// One figure; `timestamp` is 0 when it was read for the answer.
    Metric {
        #[prost(string, tag = "1")] name: String,
        #[prost(int64, tag = "2")] timestamp: i64,
        #[prost(enumeration = "MetricType", tag = "3")] metric_type: i32,
        #[prost(string, repeated, tag = "4")] label_values: Vec<String>,
        #[prost(message, optional, tag = "5")] value: Option<Uint64Value>,
    }
    ContainerMetrics {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(message, repeated, tag = "2")] metrics: Vec<Metric>,
    }
    PodSandboxMetrics {
        #[prost(string, tag = "1")] pod_sandbox_id: String,
        #[prost(message, repeated, tag = "2")] metrics: Vec<Metric>,
        #[prost(message, repeated, tag = "3")] container_metrics: Vec<ContainerMetrics>,
    }
    ListPodSandboxMetricsResponse {
        #[prost(message, repeated, tag = "1")] pod_metrics: Vec<PodSandboxMetrics>,
    }
    ContainerEventResponse {
        #[prost(string, tag = "1")] container_id: String,
        #[prost(enumeration = "ContainerEventType", tag = "2")] container_event_type: i32,
        #[prost(int64, tag = "3")] created_at: i64,
        #[prost(message, optional, tag = "4")] pod_sandbox_status: Option<PodSandboxStatus>,
        #[prost(message, repeated, tag = "5")] containers_statuses: Vec<ContainerStatus>,
    }
}
