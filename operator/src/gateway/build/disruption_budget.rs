//! PodDisruptionBudget: of the pods one at a time may be put out on purpose.

use serde_json::json;

use crate::kinds::Kind;
use crate::object::{DATA_PLANE, Object, Owner};

pub(super) fn build(owner: &Owner) -> Object {
    let body = json!({
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": owner.selector(DATA_PLANE)},
            // A pod that is not ready protects nobody by staying.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    });
    Object::new(
        Kind::PodDisruptionBudget,
        owner,
        DATA_PLANE,
        &owner.name,
        body,
    )
}
