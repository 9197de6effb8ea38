//! The runtime itself.

use std::collections::BTreeMap;

use super::CgroupDriver;

super::messages! {
    VersionResponse {
        #[prost(string, tag = "1")] version: String,
        #[prost(string, tag = "2")] runtime_name: String,
        #[prost(string, tag = "3")] runtime_version: String,
        #[prost(string, tag = "4")] runtime_api_version: String,
    }
    NetworkConfig {
        #[prost(string, tag = "1")] pod_cidr: String,
    }
    RuntimeConfig {
        #[prost(message, optional, tag = "1")] network_config: Option<NetworkConfig>,
    }
    UpdateRuntimeConfigRequest {
        #[prost(message, optional, tag = "1")] runtime_config: Option<RuntimeConfig>,
    }
    RuntimeCondition {
        #[prost(string, tag = "1")] kind: String,
        #[prost(bool, tag = "2")] status: bool,
        #[prost(string, tag = "3")] reason: String,
        #[prost(string, tag = "4")] message: String,
    }
    RuntimeStatus {
        #[prost(message, repeated, tag = "1")] conditions: Vec<RuntimeCondition>,
    }
    StatusRequest {
        #[prost(bool, tag = "1")] verbose: bool,
    }
    RuntimeHandlerFeatures {
        #[prost(bool, tag = "1")] recursive_read_only_mounts: bool,
        #[prost(bool, tag = "2")] user_namespaces: bool,
    }
    RuntimeHandler {
        #[prost(string, tag = "1")] name: String,
        #[prost(message, optional, tag = "2")] features: Option<RuntimeHandlerFeatures>,
    }
    RuntimeFeatures {
        #[prost(bool, tag = "1")] supplemental_groups_policy: bool,
        #[prost(bool, tag = "2")] user_namespaces_host_network: bool,
    }
    StatusResponse {
        #[prost(message, optional, tag = "1")] status: Option<RuntimeStatus>,
        #[prost(btree_map = "string, string", tag = "2")] info: BTreeMap<String, String>,
        #[prost(message, repeated, tag = "3")] runtime_handlers: Vec<RuntimeHandler>,
        #[prost(message, optional, tag = "4")] features: Option<RuntimeFeatures>,
    }
    RuntimeConfigResponse {
        #[prost(message, optional, tag = "1")] linux: Option<LinuxRuntimeConfiguration>,
    }
    LinuxRuntimeConfiguration {
        #[prost(enumeration = "CgroupDriver", tag = "1")] cgroup_driver: i32,
    }
}
