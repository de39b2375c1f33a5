//! Plans as JSON.

use serde_json::{Value, json};

use crate::plan::PlanSummary;

pub fn shown(plan: &PlanSummary) -> Value {
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
        "term": plan.version.term,
        "generation": plan.version.generation,
        "learning": plan.learning,
        "wrong": plan.wrong,
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
