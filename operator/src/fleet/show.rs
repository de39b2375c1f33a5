//! Plans as JSON, for `kubectl sluice` and whoever asks the admin port.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use sluice_manager::PlanSummary;

use crate::shelf::Key;

pub fn all(plans: &BTreeMap<Key, Arc<PlanSummary>>) -> Value {
    plans.iter().map(|(key, plan)| one(key, plan)).collect()
}

pub fn one(key: &Key, plan: &PlanSummary) -> Value {
    let pods = plan.pods.iter().map(|(name, pod)| {
        json!({
            "name": name,
            "state": format!("{:?}", pod.state),
            "reason": pod.reason,
            "connections": pod.connections,
            "fair": pod.fair,
            "reporting": pod.reporting,
            "drained": pod.drained,
        })
    });
    let caps = plan.caps.iter().map(|(cap, (sent, allowed))| {
        json!({"key": cap.to_string(), "sentPerMinute": sent, "allowedPerMinute": allowed})
    });
    let scale = plan.scale.as_ref().map(|scale| {
        json!({
            "replicas": scale.replicas,
            "wanted": scale.wanted,
            "wish": scale.wish,
            "reason": format!("{:?}", scale.reason),
            "limit": scale.limit.map(|limit| format!("{limit:?}")),
            "waits": scale.waits,
            "victim": scale.victim,
        })
    });
    json!({
        "gateway": format!("{}/{}", key.0, key.1),
        "term": plan.version.term,
        "generation": plan.version.generation,
        "learning": plan.learning,
        "activity": plan.activity,
        "connections": plan.connections,
        "arrivedPerMinute": plan.arrived_per_minute,
        "deliveredPerMinute": plan.delivered_per_minute,
        "failedPerMinute": plan.failed_per_minute,
        "waiting": plan.waiting,
        "oldestSeconds": plan.oldest.as_secs_f64(),
        "scale": scale,
        "caps": caps.collect::<Value>(),
        "pods": pods.collect::<Value>(),
    })
}
