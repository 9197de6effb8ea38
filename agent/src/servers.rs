//! Which servers the cluster has: those that the Service `kubernetes` leads to.

use std::collections::BTreeMap;
use std::net::IpAddr;

use futures::StreamExt;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use tokio::sync::watch;

/// Follows them, and tells of all whenever they are others; of none while there never was more than one, which is
/// known already. Does not end.
///
/// # Cancel safety
/// Dropping the future stops it.
pub(crate) async fn follow(client: Client, tell: watch::Sender<Vec<String>>) {
    let slices: Api<EndpointSlice> = Api::namespaced(client, "default");
    let config = watcher::Config::default().labels("kubernetes.io/service-name=kubernetes");
    let mut events = Box::pin(watcher(slices, config).default_backoff());
    let mut known = BTreeMap::new();
    let mut is_whole = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => {
                known.clear();
                is_whole = false;
            }
            Ok(Event::InitDone) => is_whole = true,
            Ok(Event::Apply(slice) | Event::InitApply(slice)) => {
                known.insert(slice.metadata.name.clone().unwrap_or_default(), urls(&slice));
            }
            Ok(Event::Delete(slice)) => drop(known.remove(&slice.metadata.name.unwrap_or_default())),
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "which servers there are is not seen");
                continue;
            }
        }
        if is_whole {
            let all: Vec<String> = known.values().flatten().cloned().collect();
            tell.send_if_modified(|told| {
                // Of several the last one left need not be the one that was joined.
                let is_news = *told != all && (all.len() > 1 || !(all.is_empty() || told.is_empty()));
                if is_news {
                    *told = all;
                }
                is_news
            });
        }
    }
}

/// Where the servers of a slice are reached.
fn urls(slice: &EndpointSlice) -> Vec<String> {
    let port = slice.ports.iter().flatten().find_map(|port| port.port).unwrap_or(443);
    let addresses = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
    let ips = addresses.filter_map(|address| address.parse::<IpAddr>().ok());
    let shown =
        ips.map(|ip| if ip.is_ipv6() { format!("https://[{ip}]:{port}") } else { format!("https://{ip}:{port}") });
    shown.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_a_list_of_addresses() {
        let read = |text: &str| urls(&serde_json::from_str(text).unwrap());
        let slice = r#"{"addressType":"IPv4","ports":[{"port":7443}],"endpoints":[
            {"addresses":["192.0.2.1"]},{"addresses":["192.0.2.2"]},{"addresses":["example"]}]}"#;
        assert_eq!(read(slice), ["https://192.0.2.1:7443", "https://192.0.2.2:7443"]);
        let slice = r#"{"addressType":"IPv6","endpoints":[{"addresses":["2001:db8::1"]}]}"#;
        assert_eq!(read(slice), ["https://[2001:db8::1]:443"]);
    }
}
