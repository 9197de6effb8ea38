//! What a pod waits for.

use k8s_openapi::{
    api::core::v1::{Container, ContainerState, ContainerStateTerminated, ContainerStatus, Event, Pod, PodCondition},
    jiff::Timestamp,
};

use super::{Answer, latest, message, time_of};

/// Reasons of a container that has not been started because others have not been yet.
const IN_TURN: [&str; 2] = ["PodInitializing", "ContainerCreating"];

/// What `pod` waits for, with the events about it and whether its node is ready, if that is known.
pub(crate) fn why(pod: &Pod, events: &[Event], node_ready: Option<bool>) -> Answer {
    let answer = ended(pod)
        .or_else(|| deleted(pod, node_ready))
        .or_else(|| unbound(pod))
        .or_else(|| lost(pod, node_ready))
        .or_else(|| waiting(pod))
        .or_else(|| setting_up(pod, events))
        .or_else(|| initializing(pod))
        .or_else(|| not_ready(pod, events));
    answer.unwrap_or_else(|| Answer::new("runs and is ready; it waits for nothing", condition_time(pod, "Ready")))
}

/// Whether the pod runs and is ready, or has done its work.
pub(crate) fn is_well(pod: &Pod) -> bool {
    let done = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Succeeded");
    let ready = condition(pod, "Ready").is_some_and(|condition| condition.status == "True");
    done || (ready && pod.metadata.deletion_timestamp.is_none())
}

fn node_of(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn name_of(pod: &Pod) -> String {
    let namespace = pod.metadata.namespace.as_deref().filter(|namespace| *namespace != "default");
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    namespace.map_or_else(|| name.to_owned(), |namespace| format!("{name} -n {namespace}"))
}

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

fn condition_time(pod: &Pod, kind: &str) -> Option<Timestamp> {
    condition(pod, kind)?.last_transition_time.as_ref().map(|time| time.0)
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let init = status.and_then(|status| status.init_container_statuses.as_ref());
    let own = status.and_then(|status| status.container_statuses.as_ref());
    init.into_iter().flatten().chain(own.into_iter().flatten())
}

fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.init_containers.iter().flatten().chain(&spec.containers).find(|container| container.name == name)
}

fn ended(pod: &Pod) -> Option<Answer> {
    let status = pod.status.as_ref()?;
    let ends = || statuses(pod).filter_map(|status| Some((status, status.state.as_ref()?.terminated.as_ref()?)));
    let since = ends().filter_map(|(_, end)| end.finished_at.as_ref().map(|time| time.0)).max();
    match status.phase.as_deref()? {
        "Succeeded" => Some(Answer::new("has done its work; it waits for nothing", since)),
        "Failed" => {
            let words = match (status.reason.as_deref(), status.message.as_deref()) {
                (Some(reason), Some(message)) => Some(format!("{reason}: {message}")),
                (Some(one), None) | (None, Some(one)) => Some(one.to_owned()),
                (None, None) => None,
            };
            let bad = ends().find(|(_, end)| end.exit_code != 0);
            let words = words.or_else(|| bad.map(|(status, end)| format!("container {} {}", status.name, end_of(end))));
            let advice = match status.reason.as_deref() {
                Some("Evicted") => "What it took is said above: give it less to do, or the node more room.".to_owned(),
                Some("DeadlineExceeded") => "Raise spec.activeDeadlineSeconds if it needs longer.".to_owned(),
                Some(_) if bad.is_none() => {
                    "What owns it makes another one; a pod alone must be made again.".to_owned()
                }
                _ => format!("Its logs may say why: kubectl logs {}", logs(pod, bad.map(|(status, _)| status), false)),
            };
            Some(Answer::new("has failed and is not started again", since).saying(words.as_deref()).advising(advice))
        }
        _ => None,
    }
}

fn end_of(end: &ContainerStateTerminated) -> String {
    let reason = end.reason.as_deref().filter(|reason| !["Error", "Completed"].contains(reason));
    let message = end.message.as_deref().map(str::trim).filter(|message| !message.is_empty());
    let mut text = format!("ended with exit code {}", end.exit_code);
    if let Some(reason) = reason {
        text.push_str(&format!(" ({reason})"));
    }
    if let Some(message) = message {
        text.push_str(&format!(", saying {message:?}"));
    }
    text
}

fn logs(pod: &Pod, status: Option<&ContainerStatus>, previous: bool) -> String {
    let container = status.map(|status| format!(" -c {}", status.name)).unwrap_or_default();
    format!("{}{container}{}.", name_of(pod), if previous { " --previous" } else { "" })
}

fn deleted(pod: &Pod, node_ready: Option<bool>) -> Option<Answer> {
    let since = pod.metadata.deletion_timestamp.as_ref()?.0;
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    let begin = since.saturating_sub(k8s_openapi::jiff::SignedDuration::from_secs(grace)).unwrap_or(since);
    let alive = statuses(pod).any(|status| status.state.as_ref().is_some_and(|state| state.running.is_some()));
    let finalizers = pod.metadata.finalizers.as_ref().filter(|list| !list.is_empty());
    Some(if node_ready == Some(false) {
        Answer::new(format!("is being deleted, but its node {} does not answer", node_of(pod)), Some(begin)).advising(
            "If that machine is off for good, delete its node; if only the pod is to go, delete it with \
             --grace-period=0 --force.",
        )
    } else if alive || grace > 0 && finalizers.is_none() {
        Answer::new(format!("is being deleted: its containers have {grace} s to stop"), Some(begin))
            .advising("They are killed after that; a program that ends on its stop signal ends sooner.")
    } else if let Some(list) = finalizers {
        Answer::new(format!("is being deleted, and waits for whoever takes off {}", list.join(", ")), Some(begin))
            .advising("See whether that controller runs; only if it is gone for good, take the finalizers off by hand.")
    } else {
        Answer::new("is being deleted, and the node clears away what is left of it", Some(begin))
    })
}

fn unbound(pod: &Pod) -> Option<Answer> {
    if !node_of(pod).is_empty() {
        return None;
    }
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let spec = pod.spec.as_ref()?;
    let gates: Vec<&str> = spec.scheduling_gates.iter().flatten().map(|gate| gate.name.as_str()).collect();
    if !gates.is_empty() {
        let state = format!("is held back by its scheduling gates {}", gates.join(", "));
        return Some(Answer::new(state, created).advising("Whoever set a gate takes it off; see that this one works."));
    }
    let scheduled = condition(pod, "PodScheduled").filter(|condition| condition.status == "False");
    let Some(scheduled) = scheduled else {
        let by = spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
        return Some(
            Answer::new(format!("waits for the scheduler {by} to look at it"), created)
                .advising(format!("See that a scheduler of the name {by} runs.")),
        );
    };
    let since = scheduled.last_transition_time.as_ref().map(|time| time.0);
    let words = scheduled.message.as_deref().unwrap_or_default();
    let mut advice = Vec::new();
    for (sign, what) in [
        ("Insufficient", "Request less of it (spec.containers[].resources), end other pods, or add a node."),
        ("taint", "Give the pod a toleration, or take the taint off the node (kubectl taint)."),
        (
            "affinity/selector",
            "Label a node as the pod wants it (kubectl label node), or change its nodeSelector or affinity.",
        ),
        ("unschedulable", "Let the node take pods again (kubectl uncordon)."),
        ("free ports", "Another pod has the port of the host: change hostPort, or end that one."),
        ("Too many pods", "End other pods, raise --max-pods, or add a node."),
        ("persistentvolumeclaim", "See the claim it names with coracle why pvc."),
        ("no nodes available", "Add a node (coracle agent), or see why there is none: kubectl get nodes."),
    ] {
        if words.contains(sign) {
            advice.push(what);
        }
    }
    if advice.is_empty() {
        advice.push("See the nodes: kubectl describe nodes.");
    }
    Some(Answer::new("waits for a node that can take it", since).saying(Some(words)).advising(advice.join(" ")))
}

fn lost(pod: &Pod, node_ready: Option<bool>) -> Option<Answer> {
    if node_ready == Some(true) || node_ready.is_none() {
        return None;
    }
    let node = node_of(pod);
    let state = format!("is on the node {node}, which does not answer, so nothing is known of it");
    Some(
        Answer::new(state, condition_time(pod, "Ready")).advising(format!(
            "See the node: coracle why node {node}. What owns the pod replaces it after five minutes."
        )),
    )
}

/// A container that cannot be started, the first in the order they are started in.
fn waiting(pod: &Pod) -> Option<Answer> {
    let stuck = |status: &&ContainerStatus| {
        let waiting = status.state.as_ref().and_then(|state| state.waiting.as_ref());
        let reason = waiting.and_then(|waiting| waiting.reason.as_deref());
        reason.is_some_and(|reason| !IN_TURN.contains(&reason))
    };
    let status = statuses(pod).find(stuck)?;
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let image = container(pod, &status.name).and_then(|container| container.image.as_deref()).unwrap_or(&status.image);
    let since = condition_time(pod, "ContainersReady").or_else(|| condition_time(pod, "Initialized"));
    let name = &status.name;
    let words = waiting.message.as_deref();
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    Some(match reason {
        "ErrImagePull" | "ImagePullBackOff" => {
            Answer::new(format!("cannot get the image {image} of container {name} ({reason})"), since)
                .saying(words)
                .advising(
                    "See that name and tag are right, that the node reaches the registry, and that \
                    imagePullSecrets hold what it asks for; it is tried again by itself.",
                )
        }
        "InvalidImageName" => Answer::new(format!("has a container {name} whose image is no image's name"), since)
            .saying(words)
            .advising("Change the image in what made the pod."),
        "ErrImageNeverPull" => Answer::new(format!("needs the image {image}, which is not on the node"), since)
            .saying(words)
            .advising(format!(
                "Bring it there (coracle image import, on {}), or let imagePullPolicy be IfNotPresent.",
                node_of(pod)
            )),
        "CrashLoopBackOff" => {
            let ended = last.map_or_else(|| "ended".to_owned(), end_of);
            let at = last.and_then(|end| end.finished_at.as_ref()).map(|time| time.0);
            let state = format!(
                "waits before container {name} is started again, which {ended} after {} restarts",
                status.restart_count
            );
            let advice = match last.and_then(|end| end.reason.as_deref()) {
                Some("OOMKilled") => format!(
                    "It needed more memory than limits.memory gives it: raise that. Logs: kubectl logs {}",
                    logs(pod, Some(status), true)
                ),
                _ => format!("Its last logs may say why: kubectl logs {}", logs(pod, Some(status), true)),
            };
            Answer::new(state, at).advising(advice)
        }
        "CreateContainerConfigError" => {
            Answer::new(format!("cannot make container {name} from what it refers to"), since)
                .saying(words)
                .advising("Make the missing object or key; the node sees it at once and goes on by itself.")
        }
        other => Answer::new(format!("cannot start container {name} ({other})"), since)
            .saying(words)
            .advising("Change the container in what made the pod, or what it needs on the node."),
    })
}

/// Nothing of it runs yet: volumes, sandbox, network.
fn setting_up(pod: &Pod, events: &[Event]) -> Option<Answer> {
    let begun = |state: &ContainerState| state.running.is_some() || state.terminated.is_some();
    if statuses(pod).any(|status| status.state.as_ref().is_some_and(begun)) {
        return None;
    }
    let since = condition_time(pod, "PodScheduled");
    let node = node_of(pod);
    let trouble = latest(events, &["FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox"]);
    if let Some(event) = trouble {
        let what = match event.reason.as_deref() {
            Some("FailedCreatePodSandBox") => "waits for its sandbox on the node",
            _ => "waits for its volumes",
        };
        return Some(
            Answer::new(format!("{what} {node}").trim_end().to_owned(), since)
                .saying(message(Some(event)))
                .advising("Make what is missing, or change the volume; the node tries again by itself."),
        );
    }
    let pulling = latest(events, &["Pulling", "Pulled"]).filter(|event| event.reason.as_deref() == Some("Pulling"));
    if let Some(event) = pulling {
        return Some(
            Answer::new("waits for an image on its way to the node", time_of(event)).saying(message(Some(event))),
        );
    }
    Some(Answer::new(format!("is being set up on the node {node}"), since))
}

fn initializing(pod: &Pod) -> Option<Answer> {
    condition(pod, "Initialized").filter(|condition| condition.status == "False")?;
    let status = pod.status.as_ref()?;
    let running = status.init_container_statuses.iter().flatten().find_map(|status| {
        let running = status.state.as_ref()?.running.as_ref()?;
        (status.started != Some(true) || !is_sidecar(pod, &status.name)).then_some((status, running))
    });
    let (status, running) = running?;
    let since = running.started_at.as_ref().map(|time| time.0);
    Some(
        Answer::new(format!("waits for its init container {} to end", status.name), since)
            .advising(format!("See what that does: kubectl logs {}", logs(pod, Some(status), false))),
    )
}

fn is_sidecar(pod: &Pod, name: &str) -> bool {
    container(pod, name).is_some_and(|container| container.restart_policy.as_deref() == Some("Always"))
}

fn not_ready(pod: &Pod, events: &[Event]) -> Option<Answer> {
    let ready = condition(pod, "Ready").filter(|condition| condition.status != "True")?;
    let since = ready.last_transition_time.as_ref().map(|time| time.0);
    let slow = statuses(pod)
        .find(|status| !status.ready && status.state.as_ref().is_some_and(|state| state.running.is_some()));
    if let Some(status) = slow {
        let own = container(pod, &status.name);
        let startup = status.started == Some(false) && own.is_some_and(|own| own.startup_probe.is_some());
        let probe = if startup { "startup" } else { "readiness" };
        let unhealthy = latest(events, &["Unhealthy"]);
        let advice = match unhealthy {
            Some(_) => format!("See why the program does not answer: kubectl logs {}", logs(pod, Some(status), false)),
            None => "It was not asked long enough yet; wait for initialDelaySeconds and periodSeconds.".to_owned(),
        };
        let state = format!("runs, but the {probe} probe of container {} has not passed", status.name);
        return Some(Answer::new(state, since).saying(message(unhealthy)).advising(advice));
    }
    let gates = pod.spec.as_ref()?.readiness_gates.iter().flatten();
    let shut: Vec<&str> = gates
        .map(|gate| gate.condition_type.as_str())
        .filter(|kind| condition(pod, kind).is_none_or(|condition| condition.status != "True"))
        .collect();
    if !shut.is_empty() {
        return Some(
            Answer::new(format!("runs, but its readiness gates {} are not true", shut.join(", ")), since)
                .advising("Whoever set a gate writes its condition; see that this one works."),
        );
    }
    let done = statuses(pod).find_map(|status| Some((status, status.state.as_ref()?.terminated.as_ref()?)));
    Some(match done {
        Some((status, end)) => {
            let state = format!("has a container {} that {}", status.name, end_of(end));
            let at = end.finished_at.as_ref().map(|time| time.0);
            Answer::new(state, at).advising(format!("Its logs: kubectl logs {}", logs(pod, Some(status), false)))
        }
        None => Answer::new("is not ready", since).saying(ready.message.as_deref()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const AT: &str = "2026-01-01T00:00:00Z";

    fn answer(spec: Value, status: Value, events: &[(&str, &str)], node_ready: Option<bool>) -> String {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "default", "creationTimestamp": AT}, "spec": spec, "status": status,
        }))
        .unwrap();
        let events: Vec<Event> = events
            .iter()
            .map(|(reason, message)| {
                serde_json::from_value(json!({"metadata": {}, "involvedObject": {}, "reason": reason,
                    "message": message, "lastTimestamp": AT}))
                .unwrap()
            })
            .collect();
        why(&pod, &events, node_ready).paragraph("Pod default/web", AT.parse().unwrap())
    }

    fn bound() -> Value {
        json!({"nodeName": "n1", "containers": [{"name": "a", "image": "b:1", "startupProbe": {}}]})
    }

    fn waiting(reason: &str, message: &str) -> Value {
        json!({"phase": "Pending", "containerStatuses": [{"name": "a", "image": "b:1", "imageID": "", "ready": false,
            "restartCount": 3, "state": {"waiting": {"reason": reason, "message": message}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": AT}}}]})
    }

    #[test]
    fn each_thing_a_pod_waits_for_has_its_sentence_and_its_advice() {
        let unbound = |message: &str| {
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False",
                "reason": "Unschedulable", "message": message, "lastTransitionTime": AT}]})
        };
        let none = json!({"containers": [{"name": "a"}]});
        let running = |ready: bool, started: bool| {
            json!({"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" },
                "lastTransitionTime": AT}], "containerStatuses": [{"name": "a", "image": "b:1", "imageID": "",
                "ready": ready, "started": started, "restartCount": 0, "state": {"running": {"startedAt": AT}}}]})
        };
        let gated = json!({"containers": [{"name": "a"}], "schedulingGates": [{"name": "x.example/g"}]});
        for (spec, status, events, want) in [
            (none.clone(), json!({}), vec![], "waits for the scheduler default-scheduler to look at it"),
            (gated, json!({}), vec![], "is held back by its scheduling gates x.example/g"),
            (
                none.clone(),
                unbound("0/1 nodes are available: 1 Insufficient cpu."),
                vec![],
                "Insufficient cpu. Request less of it",
            ),
            (
                none.clone(),
                unbound("0/1 nodes are available: 1 node(s) had untolerated taint {a: b}."),
                vec![],
                "Give the pod a toleration",
            ),
            (none, unbound("something else"), vec![], "kubectl describe nodes"),
            (bound(), json!({}), vec![], "is being set up on the node n1"),
            (
                bound(),
                json!({}),
                vec![("FailedMount", "no such secret")],
                "waits for its volumes n1: no such secret. Make what is missing",
            ),
            (
                bound(),
                json!({}),
                vec![("Pulling", "Pulling image \"b:1\"")],
                "waits for an image on its way to the node",
            ),
            (
                bound(),
                waiting("ImagePullBackOff", "not found"),
                vec![],
                "cannot get the image b:1 of container a (ImagePullBackOff): not found. See that name and tag",
            ),
            (bound(), waiting("ErrImageNeverPull", ""), vec![], "coracle image import, on n1"),
            (
                bound(),
                waiting("CrashLoopBackOff", "back-off"),
                vec![],
                "ended with exit code 137 (OOMKilled) after 3 restarts, for 0s",
            ),
            (
                bound(),
                waiting("CrashLoopBackOff", "back-off"),
                vec![],
                "raise that. Logs: kubectl logs web -c a --previous.",
            ),
            (
                bound(),
                waiting("CreateContainerConfigError", "secret \"x\" not found"),
                vec![],
                "secret \"x\" not found. Make the missing object",
            ),
            (
                bound(),
                running(false, false),
                vec![("Unhealthy", "Startup probe failed: refused")],
                "the startup probe of container a has not passed, for 0s",
            ),
            (bound(), running(false, true), vec![], "the readiness probe of container a has not passed"),
            (bound(), running(true, true), vec![], "runs and is ready; it waits for nothing"),
            (bound(), json!({"phase": "Succeeded"}), vec![], "has done its work; it waits for nothing"),
            (
                bound(),
                json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}),
                vec![],
                "Evicted: low on memory. What it took",
            ),
        ] {
            let said = answer(spec, status, &events, None);
            assert!(said.starts_with("Pod default/web ") && said.contains(want), "{said}\n{want}");
        }
        let lost = answer(bound(), running(true, true), &[], Some(false));
        assert!(lost.contains("is on the node n1, which does not answer"), "{lost}");
    }

    #[test]
    fn a_pod_that_is_deleted_says_what_keeps_it() {
        let of = |finalizers: &[&str], grace: i64, state: Value, ready| {
            let pod: Pod = serde_json::from_value(json!({
                "metadata": {"name": "web", "deletionTimestamp": AT, "deletionGracePeriodSeconds": grace,
                    "finalizers": finalizers},
                "spec": bound(),
                "status": {"containerStatuses": [{"name": "a", "image": "", "imageID": "", "ready": true,
                    "restartCount": 0, "state": state}]},
            }))
            .unwrap();
            why(&pod, &[], ready).state
        };
        let (runs, over) = (json!({"running": {}}), json!({"terminated": {"exitCode": 0}}));
        assert_eq!(of(&[], 30, runs.clone(), None), "is being deleted: its containers have 30 s to stop");
        assert_eq!(of(&["a/b"], 30, over, None), "is being deleted, and waits for whoever takes off a/b");
        assert_eq!(of(&[], 30, runs, Some(false)), "is being deleted, but its node n1 does not answer");
    }
}
