//! Deployment of the data plane.

use serde_json::{Value, json};

use super::Validated;
use crate::kinds::Kind;
use crate::object::{DATA_PLANE, Object};

/// A pod that has just become ready gets a moment to prove it before the next one is replaced.
const MIN_READY_S: i32 = 3;
/// Within this time a new pod is ready, or the rollout is said to be stuck.
const PROGRESS_DEADLINE_S: i32 = 300;

pub(super) fn build(wanted: &Validated, template: Value) -> Object {
    let owner = &wanted.owner;
    // Alone, a pod holds the queue by itself: a second one would be another gateway.
    let strategy = if wanted.config.redis.is_some() {
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
    } else {
        json!({"type": "Recreate"})
    };
    let body = json!({
        "spec": {
            "replicas": wanted.replicas,
            "selector": {"matchLabels": owner.selector(DATA_PLANE)},
            "strategy": strategy,
            "minReadySeconds": MIN_READY_S,
            "progressDeadlineSeconds": PROGRESS_DEADLINE_S,
            "revisionHistoryLimit": 2,
            "template": template,
        },
    });
    Object::new(Kind::Deployment, owner, DATA_PLANE, &owner.name, body)
}
