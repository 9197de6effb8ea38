//! What the runtime tells of itself: version, status, configuration.

use std::collections::BTreeMap;

use coracle_process::grpc::Result;
use serde_json::json;

use super::messages::{
    CgroupDriver, LinuxRuntimeConfiguration, Nothing, RuntimeCondition, RuntimeConfigResponse, RuntimeFeatures,
    RuntimeHandler, RuntimeHandlerFeatures, RuntimeStatus, StatusRequest, StatusResponse, UpdateRuntimeConfigRequest,
    VersionResponse,
};
use super::{Front, invalid};
use crate::node::HANDLERS;

/// The version of the kubelet's side of the interface, which has always been this.
const KUBELET_API: &str = "0.1.0";

pub(super) async fn version() -> Result<VersionResponse> {
    Ok(VersionResponse {
        version: KUBELET_API.to_owned(),
        runtime_name: "coracle".to_owned(),
        runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
        runtime_api_version: "v1".to_owned(),
    })
}

/// The runtime and its network are opened before the interface is served.
pub(super) async fn status(front: &Front, request: StatusRequest) -> Result<StatusResponse> {
    let ready = |kind: &str| RuntimeCondition { kind: kind.to_owned(), status: true, ..Default::default() };
    let mut info = BTreeMap::new();
    if request.verbose {
        let config = &front.context.config;
        let shown = json!({
            "dataDir": config.data_dir, "runDir": config.run_dir, "cgroupRoot": config.cgroup_root,
            "podCIDR": config.pod_cidr.map(|range| range.to_string()), "node": config.node_name,
        });
        info.insert("config".to_owned(), shown.to_string());
    }
    let handler = |name: &str| RuntimeHandler {
        name: name.to_owned(),
        features: Some(RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: true }),
    };
    Ok(StatusResponse {
        status: Some(RuntimeStatus { conditions: vec![ready("RuntimeReady"), ready("NetworkReady")] }),
        info,
        runtime_handlers: HANDLERS.map(handler).to_vec(),
        features: Some(RuntimeFeatures { supplemental_groups_policy: true, user_namespaces_host_network: false }),
    })
}

/// The runtime makes cgroups itself.
pub(super) async fn config() -> Result<RuntimeConfigResponse> {
    let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs.into() };
    Ok(RuntimeConfigResponse { linux: Some(linux) })
}

/// The range of pods' addresses is the cluster's to say; who says the same is right.
pub(super) async fn update(front: &Front, request: UpdateRuntimeConfigRequest) -> Result<Nothing> {
    let asked = request.runtime_config.and_then(|config| config.network_config).map(|network| network.pod_cidr);
    let Some(asked) = asked.filter(|range| !range.is_empty()) else { return Ok(Nothing {}) };
    let mut ranges = Vec::new();
    for range in asked.split(',') {
        let parsed: std::result::Result<coracle_network::Ipv4Net, _> = range.trim().parse();
        ranges.push(parsed.map_err(|_| invalid(format!("pod CIDR {range:?} is no IPv4 range")))?);
    }
    match front.context.config.pod_cidr {
        Some(own) if ranges.contains(&own) => Ok(Nothing {}),
        own => {
            let own = own.map_or_else(|| "none".to_owned(), |own| own.to_string());
            Err(invalid(format!("the cluster gave this node the pod range {own}, which cannot become {asked} here")))
        }
    }
}
