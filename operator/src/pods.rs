//! What the operator knows of a pod: what EndpointSlices and status need of it, and no more.

use std::net::IpAddr;

use kube::api::DynamicObject;
use serde_json::Value;

use crate::managed::SHARD_LABEL;
use crate::object::{COMPONENT_LABEL, GATEWAY_LABEL};

/// A kubelet looks at the volumes of a pod that changes, and else about once a minute.
pub const CONFIG_ANNOTATION: &str = "sluice.dev/config";
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// A pod that is to be emptied has this annotation with this value, as `kubectl sluice drain` writes it.
pub const DRAIN_ANNOTATION: &str = "sluice.dev/drain";
pub const REQUESTED: &str = "requested";
/// Kubernetes removes pods of lower cost first; those that say nothing have 0.
pub const DELETION_COST_ANNOTATION: &str = "controller.kubernetes.io/pod-deletion-cost";
pub const GOES_FIRST: &str = "-1000";

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodView {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// The Gateway it belongs to.
    pub gateway: String,
    /// `dataplane` or `redis`.
    pub component: String,
    /// Of a Redis: its shard.
    pub shard: Option<u32>,
    /// Which revision of its StatefulSet it was made from.
    pub revision: String,
    pub ips: Vec<IpAddr>,
    pub node: Option<String>,
    /// Of its node: Kubernetes copies it from there, 1.35 and later.
    pub zone: Option<String>,
    /// Of a data plane: which template of its Deployment it was made from.
    pub template: String,
    /// Seconds since 1970; 0: not said.
    pub created: i64,
    /// Someone asked for it to be emptied.
    pub drain: bool,
    /// It goes first when there are to be fewer.
    pub goes_first: bool,
    /// Digest of the configuration that its kubelet was told of last.
    pub config: String,
    pub ready: bool,
    /// It was told to end.
    pub terminating: bool,
    /// It ran to its end and will not run again.
    pub ended: bool,
    /// Why it does not run, in words of Kubernetes.
    pub trouble: Option<String>,
}

impl PodView {
    pub fn of(pod: &DynamicObject) -> Self {
        let metadata = &pod.metadata;
        let label = |key: &str| {
            let labels = metadata.labels.as_ref();
            labels
                .and_then(|labels| labels.get(key))
                .cloned()
                .unwrap_or_default()
        };
        let annotation = |key: &str| {
            let annotations = metadata.annotations.as_ref();
            annotations
                .and_then(|annotations| annotations.get(key))
                .cloned()
                .unwrap_or_default()
        };
        let text = |pointer: &str| pod.data.pointer(pointer).and_then(Value::as_str);
        let ready = condition(pod, "Ready").is_some_and(|ready| ready["status"] == "True");
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            gateway: label(GATEWAY_LABEL),
            component: label(COMPONENT_LABEL),
            shard: label(SHARD_LABEL).parse().ok(),
            revision: label("controller-revision-hash"),
            template: label("pod-template-hash"),
            created: metadata
                .creation_timestamp
                .as_ref()
                .map_or(0, |created| created.0.as_second()),
            drain: annotation(DRAIN_ANNOTATION) == REQUESTED,
            goes_first: annotation(DELETION_COST_ANNOTATION) == GOES_FIRST,
            ips: list(pod, "/status/podIPs")
                .filter_map(|ip| ip["ip"].as_str()?.parse().ok())
                .collect(),
            node: text("/spec/nodeName").map(str::to_owned),
            zone: Some(label(ZONE_LABEL)).filter(|zone| !zone.is_empty()),
            config: annotation(CONFIG_ANNOTATION),
            ready,
            terminating: metadata.deletion_timestamp.is_some(),
            ended: matches!(text("/status/phase"), Some("Succeeded" | "Failed")),
            trouble: trouble(pod),
        }
    }
}

fn list<'a>(pod: &'a DynamicObject, pointer: &str) -> impl Iterator<Item = &'a Value> {
    let list = pod.data.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten()
}

fn condition<'a>(pod: &'a DynamicObject, kind: &str) -> Option<&'a Value> {
    list(pod, "/status/conditions").find(|condition| condition["type"] == kind)
}

/// The first thing that keeps a pod from running: no node for it, no image, a container that fails.
fn trouble(pod: &DynamicObject) -> Option<String> {
    let scheduled = condition(pod, "PodScheduled");
    if let Some(unscheduled) = scheduled.filter(|condition| condition["status"] == "False") {
        return Some(words(unscheduled));
    }
    list(pod, "/status/containerStatuses").find_map(|status| {
        let waiting = &status["state"]["waiting"];
        let reason = waiting["reason"].as_str()?;
        // These are on their way.
        if matches!(reason, "ContainerCreating" | "PodInitializing") {
            return None;
        }
        let last = &status["lastState"]["terminated"];
        Some(match last["exitCode"].as_i64() {
            Some(code) => format!("{} (last exit code {code})", words(waiting)),
            None => words(waiting),
        })
    })
}

/// Reason and message.
fn words(said: &Value) -> String {
    let text = |key: &str| said[key].as_str().unwrap_or_default();
    match (text("reason"), text("message")) {
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(status: Value) -> PodView {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "n", "labels": {GATEWAY_LABEL: "g"}},
            "spec": {"nodeName": "a"}, "status": status,
        });
        PodView::of(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_running_pod() {
        let pod = view(json!({
            "phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }));
        assert!(pod.ready && !pod.ended && !pod.terminating && pod.trouble.is_none());
        assert_eq!((pod.ips.len(), pod.gateway.as_str()), (2, "g"));
    }

    #[test]
    fn troubles_are_named() {
        let unscheduled = view(json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
        ]}));
        assert_eq!(unscheduled.trouble.unwrap(), "Unschedulable: 0/3 nodes");
        let crashing = view(json!({"phase": "Running", "containerStatuses": [{
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
            "lastState": {"terminated": {"exitCode": 2}}
        }]}));
        let crash = "CrashLoopBackOff: back-off (last exit code 2)";
        assert_eq!(crashing.trouble.unwrap(), crash);
        let starting = view(json!({"phase": "Pending", "containerStatuses": [{
            "state": {"waiting": {"reason": "ContainerCreating"}}
        }]}));
        assert_eq!(starting.trouble, None);
    }
}
