//! Second step: what the user wrote, as something that can be served, or what is wrong with it.
//!
//! `crds::resolve` says what it means; only what is so on Kubernetes alone is judged here. A pure function.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;
use sluice_crds::config::GatewayConfig;
use sluice_crds::config_file;
use sluice_crds::gateway::{GatewaySpec, Reconciliation};
use sluice_crds::problem::Problem;
use sluice_crds::resolve::{self, ApplicationOutcome};

use super::build::{ADMIN_PORT, Validated};
use super::dereference::Snapshot;
use super::last_good;
use super::scaling::{self, Known};
use crate::object::{Object, Owner};
use crate::shelf::Key;

/// Names of what is made for a Gateway are its own and a few letters, and some of them may have no more than 63.
const NAME_CHARS_MAX: usize = 40;
/// Kubernetes takes no ConfigMap and no Secret of more than 1 MiB; names and fields besides need some of it.
const DATA_BYTES_MAX: usize = 1_000_000;
/// A user asks for new pods by giving this annotation another value.
pub const RESTARTED_AT: &str = "sluice.dev/restartedAt";

/// What this operator brings along.
#[derive(Debug, Clone)]
pub struct Defaults {
    /// Of gateways that name none.
    pub data_plane_image: String,
    pub redis_image: String,
    /// Where data planes find the manager.
    pub manager: String,
    /// The namespace of the operators' pods.
    pub operators: String,
}

/// What became of a Gateway and its Applications.
#[derive(Debug)]
pub struct Judgement {
    /// `Some` exactly when there are no problems.
    pub validated: Option<Validated>,
    pub problems: Vec<Problem>,
    /// Accepted, but perhaps not what is wanted.
    pub warnings: Vec<String>,
    pub applications: Vec<ApplicationOutcome>,
    /// Of these the ones that are wrong now and served as they were.
    pub kept: BTreeSet<Key>,
    pub paused: bool,
    /// More pods are asked for than there may be.
    pub limited: Option<String>,
}

/// `former` is the configuration that pods have.
pub fn validate(
    snapshot: &Snapshot,
    defaults: &Defaults,
    redis: Vec<Object>,
    former: Option<&GatewayConfig>,
) -> Judgement {
    let mut outcome = resolve::resolve_each(&snapshot.objects);
    let gateway = outcome.gateways.pop();
    let (mut config, mut problems) = gateway.map_or((None, Vec::new()), |gateway| {
        (gateway.config, gateway.problems)
    });
    let spec = snapshot.gateway.data.get("spec").unwrap_or(&Value::Null);
    let spec: Option<GatewaySpec> = serde_json::from_value(spec.clone()).ok();
    let kept = config.as_mut().map(|config| {
        last_good::keep_applications(&snapshot.key, &outcome.applications, former, config)
    });
    let mut judgement = Judgement {
        validated: None,
        problems: Vec::new(),
        warnings: Vec::new(),
        applications: outcome.applications,
        kept: kept.unwrap_or_default(),
        paused: spec.as_ref().is_some_and(is_paused),
        limited: None,
    };
    check_name(snapshot, &mut problems);
    if let Some(config) = &config {
        check_ports(snapshot, config, &mut problems);
        check_size(snapshot, config, &mut problems);
    }
    if let (Some(config), Some(spec)) = (config, spec)
        && problems.is_empty()
    {
        let replicas;
        (replicas, judgement.limited) = self::replicas(&spec, &config);
        warn(&spec, &config, &mut judgement.warnings);
        judgement.validated = Some(Validated {
            owner: owner(snapshot),
            config: Arc::new(config),
            replicas,
            default_image: defaults.data_plane_image.clone(),
            restarted_at: restarted_at(snapshot),
            manager: defaults.manager.clone(),
            operators: defaults.operators.clone(),
            trusted: Arc::default(),
            redis,
            spec,
        });
    }
    judgement.problems = problems;
    judgement
}

pub fn owner(snapshot: &Snapshot) -> Owner {
    let (namespace, name) = snapshot.key.clone();
    Owner {
        namespace,
        name,
        uid: snapshot.gateway.metadata.uid.clone().unwrap_or_default(),
    }
}

fn is_paused(spec: &GatewaySpec) -> bool {
    spec.operation.reconciliation == Reconciliation::Paused
}

pub(super) fn restarted_at(snapshot: &Snapshot) -> Option<String> {
    let annotations = snapshot.gateway.metadata.annotations.as_ref()?;
    annotations.get(RESTARTED_AT).cloned()
}

/// How many pods there should be, as far as the Gateway alone says it, and why not as many as was asked for.
pub(super) fn replicas(spec: &GatewaySpec, config: &GatewayConfig) -> (i32, Option<String>) {
    let has_redis = config.redis.is_some();
    let scaling = &spec.data_plane.scaling;
    let nothing = Known {
        there: None,
        former: 0,
        decision: None,
        paused: false,
    };
    let limited = scaling::bounded(scaling.most(), has_redis).1;
    (scaling::replicas(scaling, has_redis, nothing), limited)
}

fn problem(snapshot: &Snapshot, field: &str, what: String, instead: &str) -> Problem {
    let (namespace, name) = &snapshot.key;
    Problem {
        object: format!("Gateway {namespace}/{name}"),
        field: field.to_owned(),
        what,
        instead: instead.to_owned(),
        reason: sluice_crds::problem::Reason::Invalid,
    }
}

fn check_name(snapshot: &Snapshot, problems: &mut Vec<Problem>) {
    let name = &snapshot.key.1;
    let is_label = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !is_label || name.len() > NAME_CHARS_MAX {
        let what = "Services and pods cannot be named after it".to_owned();
        let instead =
            "give it a name of at most 40 lower-case letters, digits and -, a letter first";
        problems.push(problem(snapshot, "metadata.name", what, instead));
    }
}

fn check_ports(snapshot: &Snapshot, config: &GatewayConfig, problems: &mut Vec<Problem>) {
    let listeners = config.listeners.iter().enumerate();
    for (index, _) in listeners.filter(|(_, listener)| listener.port == ADMIN_PORT) {
        let field = format!("spec.listeners[{index}].port");
        let what = format!("{ADMIN_PORT} is the port of probes and metrics");
        problems.push(problem(snapshot, &field, what, "write another port"));
    }
}

fn check_size(snapshot: &Snapshot, config: &GatewayConfig, problems: &mut Vec<Problem>) {
    let encoded = config_file::encode(config);
    // Base64 makes four of three.
    let secrets = encoded.secrets.iter();
    let secrets: usize = secrets
        .map(|(name, secret)| name.len() + secret.expose().len() * 4 / 3 + 8)
        .sum();
    for (what, bytes) in [
        ("configuration", encoded.document.len()),
        ("secrets", secrets),
    ] {
        if bytes > DATA_BYTES_MAX {
            let what = format!("the {what} of the gateway and its Applications has {bytes} bytes");
            let instead =
                "give some of the Applications to another Gateway: 1000000 bytes fit into one";
            problems.push(problem(snapshot, "", what, instead));
        }
    }
}

fn warn(spec: &GatewaySpec, config: &GatewayConfig, warnings: &mut Vec<String>) {
    if config.redis.is_none() && config.ingest.is_some() {
        let text = "without redis, requests that wait are lost with their pod; write spec.redis";
        warnings.push(text.to_owned());
    }
    if config.drain.timeout.as_secs() > 590 {
        let text = "spec.dataPlane.drain.timeout: some cluster autoscalers kill pods after 10 minutes; write 9m or less";
        warnings.push(text.to_owned());
    }
    let requested = |part: fn(&sluice_crds::gateway::Amounts) -> bool| {
        let resources = spec.data_plane.resources.as_ref();
        let amounts = resources.and_then(|resources| resources.limits.as_ref());
        amounts.is_some_and(part)
    };
    if spec.data_plane.resources.is_some() && !requested(|limits| limits.memory.is_some()) {
        let text = "spec.dataPlane.resources.limits.memory: without it a pod takes the memory of its node for its own; write one";
        warnings.push(text.to_owned());
    }
}

#[cfg(test)]
mod tests;
