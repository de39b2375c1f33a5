//! NetworkPolicy: clients reach the listeners, and only operators and who is told to reach the admin port.
//!
//! The admin port shows requests and can repeat them, so it is not for everybody. What the pods connect to is not limited:
//! upstreams may be anywhere.

use serde_json::{Value, json};

use super::{ADMIN_PORT, Validated};
use crate::kinds::Kind;
use crate::object::{DATA_PLANE, OPERATOR, OPERATOR_LABEL, Object};

/// Namespaces and pods with this label, set to `true`, may reach the admin port: those of Prometheus, say.
const ADMIN_ACCESS_LABEL: &str = "sluice.dev/admin-access";

pub(super) fn build(wanted: &Validated) -> Object {
    let owner = &wanted.owner;
    let listeners = wanted.config.listeners.iter();
    let ports: Vec<Value> = listeners
        .map(|listener| json!({"port": listener.port, "protocol": "TCP"}))
        .collect();
    let operators = json!({
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": wanted.operators}},
        "podSelector": {"matchLabels": {OPERATOR_LABEL: OPERATOR}},
    });
    let labelled = json!({"matchLabels": {ADMIN_ACCESS_LABEL: "true"}});
    let body = json!({
        "spec": {
            "podSelector": {"matchLabels": owner.selector(DATA_PLANE)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"ports": ports},
                {
                    "ports": [{"port": ADMIN_PORT, "protocol": "TCP"}],
                    "from": [{"namespaceSelector": labelled}, {"podSelector": labelled}, operators],
                },
            ],
        },
    });
    Object::new(Kind::NetworkPolicy, owner, DATA_PLANE, &owner.name, body)
}
