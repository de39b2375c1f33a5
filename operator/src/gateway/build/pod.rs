//! Pod template of the data plane.
//!
//! Restricted Pod Security, nothing of Kubernetes inside, configuration and secrets as files that change in place.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_crds::gateway::{Amounts, Resources};

use super::{Validated, config};
use crate::fleet::AUDIENCE;
use crate::gateway::overlay;
use crate::object::{DATA_PLANE, Owner};

/// Name of the container of the data plane.
pub const CONTAINER: &str = "sluice";
/// Health, readiness, metrics and requests. No listener can have it.
pub const ADMIN_PORT: u16 = 8081;

/// Of the image. Volumes belong to its group.
const USER: i64 = 65532;
/// By which the manager knows the pod, and nobody else does.
const TOKEN_FOLDER: &str = "/var/run/secrets/sluice";
const TOKEN_FILE: &str = "token";
const TOKEN_LASTS_S: u32 = 3600;
/// Until every node sends new connections elsewhere.
const LEAVING_S: u64 = 3;
/// To close what is left after the drain.
const CLOSING_S: u64 = 7;
/// Ports below this belong to root unless a pod says otherwise.
const PRIVILEGED_PORTS_END: u16 = 1024;

pub(super) fn template(wanted: &Validated) -> Value {
    let owner = &wanted.owner;
    let mut template = json!({
        "metadata": {
            "labels": owner.labels(DATA_PLANE),
            "annotations": {"kubectl.kubernetes.io/default-container": CONTAINER},
        },
        "spec": spec(wanted),
    });
    if let Some(over) = &wanted.spec.data_plane.pod_template {
        let over = serde_json::to_value(over).unwrap_or_default();
        overlay::lay(&over, &mut template);
        // By these the Deployment knows its pods.
        for (key, value) in owner.labels(DATA_PLANE) {
            template["metadata"]["labels"][key] = value;
        }
    }
    template
}

fn spec(wanted: &Validated) -> Value {
    let owner = &wanted.owner;
    let drain = seconds(wanted.config.drain.timeout);
    let mut security = json!({
        "runAsNonRoot": true,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    let mut listeners = wanted.config.listeners.iter();
    if listeners.any(|listener| listener.port < PRIVILEGED_PORTS_END) {
        let sysctl = json!({"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"});
        security["sysctls"] = json!([sysctl]);
    }
    let name = config::name(&owner.name);
    json!({
        "serviceAccountName": owner.name,
        "automountServiceAccountToken": false,
        // Variables of Services would look like the options of the program.
        "enableServiceLinks": false,
        "terminationGracePeriodSeconds": LEAVING_S + drain + CLOSING_S,
        "topologySpreadConstraints": [
            spread(owner, "topology.kubernetes.io/zone"),
            spread(owner, "kubernetes.io/hostname"),
        ],
        "securityContext": security,
        "containers": [container(wanted)],
        "volumes": [
            {"name": "config", "configMap": {"name": name}},
            {"name": "secrets", "secret": {"secretName": name}},
            {"name": "data", "emptyDir": {}},
            {"name": "token", "projected": {"sources": [{"serviceAccountToken": {
                "audience": AUDIENCE,
                "expirationSeconds": TOKEN_LASTS_S,
                "path": TOKEN_FILE,
            }}]}},
        ],
    })
}

/// Pods of one rollout are spread among themselves.
fn spread(owner: &Owner, topology: &str) -> Value {
    json!({
        "maxSkew": 1,
        "topologyKey": topology,
        "whenUnsatisfiable": "ScheduleAnyway",
        "nodeTaintsPolicy": "Honor",
        "labelSelector": {"matchLabels": owner.selector(DATA_PLANE)},
        "matchLabelKeys": ["pod-template-hash"],
    })
}

fn container(wanted: &Validated) -> Value {
    let image = wanted.spec.data_plane.image.as_ref();
    let listeners = wanted.config.listeners.iter();
    let mut ports: Vec<Value> = listeners
        .map(|listener| json!({"containerPort": listener.port, "protocol": "TCP"}))
        .collect();
    ports.push(json!({"name": "admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}));
    json!({
        "name": CONTAINER,
        "image": image.unwrap_or(&wanted.default_image),
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "run",
            "--config=/etc/sluice/config/config.json",
            "--secrets-dir=/etc/sluice/secrets",
            "--data-dir=/var/lib/sluice",
        ],
        "env": [
            // Probes and scrapers come from outside of the pod.
            {"name": "SLUICE_ADMIN", "value": format!("0.0.0.0:{ADMIN_PORT}")},
            {"name": "SLUICE_LOG_FORMAT", "value": "json"},
            {"name": "SLUICE_MANAGER", "value": wanted.manager},
            {"name": "SLUICE_MANAGER_CA", "value": format!("/etc/sluice/config/{}", config::TRUSTED_FILE)},
            {"name": "SLUICE_MANAGER_TOKEN", "value": format!("{TOKEN_FOLDER}/{TOKEN_FILE}")},
            {"name": "SLUICE_POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "CPU_REQUEST_MILLICORES", "valueFrom": {
                "resourceFieldRef": {"containerName": CONTAINER, "resource": "requests.cpu", "divisor": "1m"},
            }},
            {"name": "SLUICE_CPU_REQUEST", "value": "$(CPU_REQUEST_MILLICORES)m"},
        ],
        "ports": ports,
        "startupProbe": probe("/livez", 1, 2, 120),
        "livenessProbe": probe("/livez", 10, 5, 6),
        "readinessProbe": probe("/readyz", 2, 2, 2),
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVING_S}}},
        "resources": resources(wanted.spec.data_plane.resources.as_ref()),
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/sluice/config", "readOnly": true},
            {"name": "secrets", "mountPath": "/etc/sluice/secrets", "readOnly": true},
            {"name": "data", "mountPath": "/var/lib/sluice"},
            {"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": true},
        ],
    })
}

fn probe(path: &str, period_s: i32, timeout_s: i32, failures: i32) -> Value {
    json!({
        "httpGet": {"path": path, "port": "admin"},
        "periodSeconds": period_s,
        "timeoutSeconds": timeout_s,
        "failureThreshold": failures,
    })
}

/// What the user says, or what a small gateway needs.
fn resources(resources: Option<&Resources>) -> Value {
    let Some(Resources { requests, limits }) = resources else {
        return json!({
            "requests": {"cpu": "250m", "memory": "256Mi"},
            "limits": {"memory": "1Gi"},
        });
    };
    json!({"requests": amounts(requests.as_ref()), "limits": amounts(limits.as_ref())})
}

fn amounts(amounts: Option<&Amounts>) -> Value {
    amounts.map_or_else(
        || json!({}),
        |amounts| serde_json::to_value(amounts).unwrap_or_default(),
    )
}

/// Rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}
