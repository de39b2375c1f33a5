//! Pod template of a managed Redis, the same for all shards but for the number of the shard.

use serde_json::{Value, json};
use sluice_crds::gateway::{Resources, StorageMode};

use super::{BUS_PORT, Plan};
use crate::managed::{CERTIFICATE_ANNOTATION, CERTIFICATE_FILES as FILES};
use crate::managed::{REDIS, SHARD_LABEL, name};
use crate::redis::config::{CONFIG_DIR, DATA_DIR, PORT, SECRET_DIR, TLS_DIR};

/// Stands for the number of the shard in the template; no name holds it.
const SHARD: &str = "@shard@";
/// Any but root; volumes belong to its group.
const USER: i64 = 65532;
/// The stop script hands over to a replica first, and the server then writes what it has.
const GRACE_S: i64 = 60;
const MEMORY_DEFAULT: &str = "512Mi";

/// The limit of memory, in which all of Redis has to fit.
pub(super) fn memory_limit(resources: Option<&Resources>) -> String {
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let limit = limits.and_then(|limits| limits.memory.as_ref());
    limit.map_or_else(|| MEMORY_DEFAULT.to_owned(), |limit| limit.0.clone())
}

/// The template of one shard.
pub(super) fn of_shard(template: &Value, shard: u32) -> Value {
    match template {
        Value::String(text) => text.replace(SHARD, &shard.to_string()).into(),
        Value::Array(list) => list.iter().map(|entry| of_shard(entry, shard)).collect(),
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (key.clone(), of_shard(value, shard)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => template.clone(),
    }
}

pub(super) fn template(plan: &Plan<'_>) -> Value {
    let owner = plan.owner;
    let mut labels = owner.labels(REDIS);
    labels.insert(SHARD_LABEL.to_owned(), SHARD.into());
    let name = name(owner);
    let mut volumes = vec![
        json!({"name": "config", "configMap": {"name": name}}),
        json!({"name": "secret", "secret": {"secretName": format!("{name}-s{SHARD}")}}),
    ];
    if let Some(tls) = &plan.spec.tls {
        let secret = json!({"secretName": tls.certificate_ref.name, "items": FILES.map(|file| json!({"key": file, "path": file}))});
        volumes.push(json!({"name": "tls", "secret": secret}));
    }
    if plan.spec.storage.mode == StorageMode::Ephemeral {
        volumes.push(json!({"name": "data", "emptyDir": {}}));
    }
    let mut same_shard = owner.selector(REDIS);
    same_shard.insert(SHARD_LABEL.to_owned(), SHARD.into());
    let apart = |weight: i32, topology: &str, labels: &Value| {
        let term = json!({"topologyKey": topology, "labelSelector": {"matchLabels": labels}});
        json!({"weight": weight, "podAffinityTerm": term})
    };
    let same_shard = Value::Object(same_shard);
    let same_redis = Value::Object(owner.selector(REDIS));
    let mut metadata = json!({"labels": labels});
    if let Some(certificate) = plan.certificate {
        // Servers read it when they start.
        metadata["annotations"] = json!({CERTIFICATE_ANNOTATION: certificate});
    }
    json!({
        "metadata": metadata,
        "spec": {
            "serviceAccountName": owner.name,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": GRACE_S,
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                apart(100, "kubernetes.io/hostname", &same_shard),
                apart(90, "topology.kubernetes.io/zone", &same_shard),
                apart(10, "kubernetes.io/hostname", &same_redis),
            ]}},
            "securityContext": {
                "runAsNonRoot": true,
                "runAsUser": USER,
                "runAsGroup": USER,
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container(plan)],
            "volumes": volumes,
        },
    })
}

fn container(plan: &Plan<'_>) -> Value {
    let image = plan.spec.image.as_deref().unwrap_or(plan.default_image);
    let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
    let limit = memory_limit(plan.spec.resources.as_ref());
    let resources = plan.spec.resources.as_ref().map_or_else(
        || json!({"requests": {"cpu": "100m", "memory": limit}, "limits": {"memory": limit}}),
        |resources| serde_json::to_value(resources).unwrap_or_default(),
    );
    let mut mounts = vec![
        json!({"name": "config", "mountPath": CONFIG_DIR, "readOnly": true}),
        json!({"name": "secret", "mountPath": SECRET_DIR, "readOnly": true}),
        json!({"name": "data", "mountPath": DATA_DIR}),
    ];
    if plan.spec.tls.is_some() {
        mounts.push(json!({"name": "tls", "mountPath": TLS_DIR, "readOnly": true}));
    }
    json!({
        "name": "redis",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": script("entry.sh"),
        "env": [
            {"name": "POD_IP", "valueFrom": field("status.podIP")},
            {"name": "POD_NAME", "valueFrom": field("metadata.name")},
        ],
        "ports": [
            {"name": "redis", "containerPort": PORT, "protocol": "TCP"},
            {"name": "bus", "containerPort": BUS_PORT, "protocol": "TCP"},
        ],
        // Reading the data at the start takes as long as it takes: ten minutes here.
        "startupProbe": probe("startup.sh", 2, 300),
        "livenessProbe": probe("liveness.sh", 10, 6),
        "readinessProbe": probe("readiness.sh", 5, 2),
        "lifecycle": {"preStop": {"exec": {"command": script("pre-stop.sh")}}},
        "resources": resources,
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": mounts,
    })
}

fn script(name: &str) -> Value {
    json!(["sh", format!("{CONFIG_DIR}/{name}")])
}

fn probe(name: &str, period_s: i32, failures: i32) -> Value {
    json!({
        "exec": {"command": script(name)},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    })
}
