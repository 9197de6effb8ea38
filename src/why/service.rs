//! What a Service waits for.

use k8s_openapi::api::{
    core::v1::{Pod, Service},
    discovery::v1::EndpointSlice,
};

use super::{Answer, pod};

/// What `service` waits for, with the pods it selects, and the slices of its endpoints.
pub(crate) fn why(service: &Service, pods: &[Pod], slices: &[EndpointSlice]) -> Answer {
    let spec = service.spec.clone().unwrap_or_default();
    let created = service.metadata.creation_timestamp.as_ref().map(|time| time.0);
    if spec.type_.as_deref() == Some("ExternalName") {
        let to = spec.external_name.unwrap_or_default();
        return Answer::new(format!("is another name for {to}; it waits for nothing"), None);
    }
    let endpoints = || slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
    let usable = |ready: Option<bool>| ready.unwrap_or(true);
    let ready = endpoints().filter(|e| usable(e.conditions.as_ref().and_then(|c| c.ready))).count();
    let selector = spec.selector.clone().unwrap_or_default();
    if ready == 0 {
        if selector.is_empty() {
            return Answer::new("selects no pods, and has no endpoints", created)
                .advising("Give it a selector, or make an EndpointSlice for it by hand.");
        }
        let wanted: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let wanted = wanted.join(",");
        let Some(first) = pods.iter().find(|pod| !pod::is_well(pod)).or_else(|| pods.first()) else {
            return Answer::new(format!("has no endpoints: no pod has the labels {wanted}"), created)
                .advising("Compare the labels with kubectl get pods --show-labels, and start what is to answer.");
        };
        let name = first.metadata.name.as_deref().unwrap_or_default();
        let inner = pod::why(first, &[], None);
        let state = format!(
            "has no endpoint that is ready, and {} pods of the labels {wanted}; its pod {name} {}",
            pods.len(),
            inner.state
        );
        return Answer { state, ..inner };
    }
    if spec.type_.as_deref() == Some("LoadBalancer") {
        let given = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref());
        if given.is_none_or(Vec::is_empty) {
            return Answer::new("waits for an address from outside the cluster", created)
                .advising("A controller for load balancers gives it one; without such, use its node ports.");
        }
    }
    Answer::new(format!("has {ready} endpoints that are ready; it waits for nothing"), None)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn state(spec: Value, pods: &[Value], ready: &[bool]) -> String {
        let service: Service = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
        let pods: Vec<Pod> = pods.iter().map(|pod| serde_json::from_value(pod.clone()).unwrap()).collect();
        let endpoints: Vec<Value> =
            ready.iter().map(|ready| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}})).collect();
        let slice: EndpointSlice =
            serde_json::from_value(json!({"metadata": {}, "addressType": "IPv4", "endpoints": endpoints})).unwrap();
        why(&service, &pods, &[slice]).state
    }

    #[test]
    fn a_service_says_why_nobody_answers() {
        let selects = json!({"selector": {"app": "web"}});
        let idle = json!({"metadata": {"name": "p"}, "spec": {"containers": []}, "status": {}});
        for (spec, pods, ready, want) in [
            (
                json!({"type": "ExternalName", "externalName": "x.example"}),
                vec![],
                vec![],
                "is another name for x.example; it waits for nothing",
            ),
            (json!({}), vec![], vec![], "selects no pods, and has no endpoints"),
            (selects.clone(), vec![], vec![], "has no endpoints: no pod has the labels app=web"),
            (
                selects.clone(),
                vec![idle],
                vec![false],
                "has no endpoint that is ready, and 1 pods of the labels app=web; its pod p waits for the scheduler default-scheduler to look at it",
            ),
            (selects.clone(), vec![], vec![true, false], "has 1 endpoints that are ready; it waits for nothing"),
            (
                json!({"type": "LoadBalancer", "selector": {"a": "b"}}),
                vec![],
                vec![true],
                "waits for an address from outside the cluster",
            ),
        ] {
            assert_eq!(state(spec, &pods, &ready), want);
        }
    }
}
