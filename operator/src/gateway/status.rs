//! Fifth step: what is true of a Gateway, in words for people and programs. A pure function.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;
use sluice_crds::conditions::{
    ACCEPTED, CONFIGURATION_WARNING, Finding, PAUSED, PROGRAMMED, READY, RECONCILING, REDIS_READY,
    RESOLVED_REFS, SCALING_LIMITED, STALLED, Status, merge,
};
use sluice_crds::gateway::{GatewayStatus, RedisStatus};
use sluice_crds::problem::{Problem, Reason};
use sluice_manager::{PlanSummary, ScaleLimit};

use super::apply::Applied;
use crate::external::Told;
use crate::pods::PodView;

/// Problems that are named in one message; the rest are counted.
const SHOWN_MAX: usize = 8;

/// What is known of a Gateway at the end of a pass.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    pub generation: Option<i64>,
    pub problems: &'a [Problem],
    pub warnings: &'a [String],
    pub paused: bool,
    pub limited: Option<&'a str>,
    /// `None`: nothing was applied, as there is nothing valid to apply, or it is paused.
    pub applied: Option<&'a Applied>,
    /// Pods that there should be, if anything says so.
    pub wanted: Option<i32>,
    /// Of the data plane.
    pub pods: &'a [Arc<PodView>],
    /// The Deployment as it is.
    pub deployment: Option<&'a Value>,
    pub redis: RedisFacts,
    pub selector: String,
    pub attached: usize,
    /// What the manager sees; `None`: nothing yet.
    pub plan: Option<Arc<PlanSummary>>,
}

/// What is known of Redis.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum RedisFacts {
    /// Nothing valid is known.
    #[default]
    Unknown,
    /// The gateway uses none.
    Unused,
    /// Somebody else runs it: what it told the operator, and whether the data planes are ready, say whether it is there.
    External { told: Option<Told> },
    /// The operator runs it.
    Managed {
        ready: bool,
        reason: &'static str,
        message: String,
        status: RedisStatus,
    },
}

pub fn status(facts: &Facts<'_>, former: &GatewayStatus, now: &Time) -> GatewayStatus {
    let ready = count(facts.pods, |pod| pod.ready && !pod.terminating);
    let wanted = facts.wanted.unwrap_or(former.wanted_replicas);
    let findings = findings(facts, ready, wanted);
    GatewayStatus {
        observed_generation: facts.generation,
        conditions: merge(&former.conditions, &findings, facts.generation, now),
        selector: Some(facts.selector.clone()),
        replicas: count(facts.pods, |pod| !pod.ended),
        ready_replicas: ready,
        wanted_replicas: wanted,
        ready: Some(format!("{ready}/{wanted}")),
        connections: facts.plan.as_ref().map(|plan| rounded(plan.connections)),
        delay: facts.plan.as_ref().and_then(|plan| delay(plan.oldest)),
        image: facts.deployment.and_then(image).map(str::to_owned),
        redis: match &facts.redis {
            RedisFacts::Managed { status, .. } => Some(status.clone()),
            RedisFacts::Unknown | RedisFacts::Unused | RedisFacts::External { .. } => None,
        },
        attached_applications: i32::try_from(facts.attached).unwrap_or(i32::MAX),
    }
}

fn count(pods: &[Arc<PodView>], what: impl Fn(&PodView) -> bool) -> i32 {
    let count = pods.iter().filter(|pod| what(pod)).count();
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Two digits: more would be another status every second.
fn rounded(count: u64) -> i64 {
    let mut unit = 1;
    while count / unit >= 100 {
        unit *= 10;
    }
    i64::try_from((count + unit / 2) / unit * unit).unwrap_or(i64::MAX)
}

fn delay(oldest: Duration) -> Option<String> {
    const SHOWN_MIN: Duration = Duration::from_millis(100);
    let seconds = oldest.as_secs_f64();
    match oldest {
        short if short < SHOWN_MIN => None,
        _ if seconds < 10.0 => Some(format!("{seconds:.1}s")),
        _ => Some(format!("{}s", rounded(oldest.as_secs()))),
    }
}

fn image(deployment: &Value) -> Option<&str> {
    let containers = deployment.pointer("/spec/template/spec/containers")?;
    let mut containers = containers.as_array()?.iter();
    let ours = containers.find(|container| container["name"] == super::build::CONTAINER)?;
    ours["image"].as_str()
}

fn findings(facts: &Facts<'_>, ready: i32, wanted: i32) -> Vec<Finding> {
    let accepted = accepted(facts.problems);
    let programmed = programmed(facts);
    let redis = redis(&facts.redis, ready);
    let rollout = rollout(facts).or_else(|| removal(facts));
    let whole = ready_finding(facts, [&accepted, &programmed, &redis], ready, wanted);
    let stalled = stalled(facts);
    let reconciling = reconciling(facts, &whole, rollout.as_deref(), stalled.is_some());
    let mut all = vec![
        accepted,
        resolved_refs(facts.problems),
        programmed,
        redis,
        whole,
    ];
    all.extend(reconciling);
    all.extend(stalled);
    if !facts.warnings.is_empty() {
        let message = facts.warnings.join("\n");
        all.push(Finding::new(
            CONFIGURATION_WARNING,
            true,
            "Warning",
            message,
        ));
    }
    all.extend(scaling_limited(facts));
    if facts.paused {
        let message =
            "the operator changes nothing; write spec.operation.reconciliation: Active to go on";
        all.push(Finding::new(PAUSED, true, "ReconciliationPaused", message));
    }
    all
}

fn scaling_limited(facts: &Facts<'_>) -> Option<Finding> {
    if let Some(limited) = facts.limited {
        return Some(Finding::new(SCALING_LIMITED, true, "NoRedis", limited));
    }
    let scale = facts.plan.as_ref()?.scale.as_ref()?;
    let wish = scale.wish;
    let (reason, message) = match scale.limit? {
        ScaleLimit::Maximum => (
            "Maximum",
            format!("{wish} pods would be needed; write a higher spec.dataPlane.scaling.max"),
        ),
        ScaleLimit::Paused if wish == scale.of => return None,
        ScaleLimit::Paused => (
            "Paused",
            format!(
                "{wish} pods would be right; write spec.operation.scaling: Active to have them"
            ),
        ),
    };
    Some(Finding::new(SCALING_LIMITED, true, reason, message))
}

/// Which pod is to go, while clients are still on it.
fn removal(facts: &Facts<'_>) -> Option<String> {
    let plan = facts.plan.as_ref()?;
    let victim = plan.scale.as_ref()?.victim.as_ref()?;
    let clients = plan.pods.get(victim).map_or(0, |pod| pod.connections);
    let clients = rounded(clients);
    Some(format!(
        "{victim} is drained before it is removed; about {clients} clients are left"
    ))
}

fn accepted(problems: &[Problem]) -> Finding {
    let mut others = problems
        .iter()
        .filter(|problem| problem.reason != Reason::RefNotFound)
        .peekable();
    match (problems.is_empty(), others.peek()) {
        (true, _) => Finding::new(ACCEPTED, true, "Accepted", "the Gateway can be served"),
        (false, Some(_)) => Finding::new(ACCEPTED, false, "Invalid", listed(problems)),
        (false, None) => Finding::new(ACCEPTED, false, "RefNotFound", listed(problems)),
    }
}

fn resolved_refs(problems: &[Problem]) -> Finding {
    let missing: Vec<Problem> = problems
        .iter()
        .filter(|problem| problem.reason == Reason::RefNotFound)
        .cloned()
        .collect();
    if missing.is_empty() {
        let message = "everything that is referred to was found";
        return Finding::new(RESOLVED_REFS, true, "ResolvedRefs", message);
    }
    Finding::new(RESOLVED_REFS, false, "RefNotFound", listed(&missing))
}

/// One problem per line, without the object, which is the one that bears the condition.
pub fn listed(problems: &[Problem]) -> String {
    let shown = problems.iter().take(SHOWN_MAX);
    let mut lines: Vec<String> = shown
        .map(|problem| {
            let whole = problem.to_string();
            let bare = whole.strip_prefix(&format!("{}: ", problem.object));
            bare.unwrap_or(&whole).to_owned()
        })
        .collect();
    if problems.len() > SHOWN_MAX {
        lines.push(format!("and {} more", problems.len() - SHOWN_MAX));
    }
    lines.join("\n")
}

fn programmed(facts: &Facts<'_>) -> Finding {
    let finding =
        |status: Status, reason, message: &str| Finding::new(PROGRAMMED, status, reason, message);
    let Some(applied) = facts.applied else {
        if facts.paused {
            return finding(
                Status::Unknown,
                "Paused",
                "the operator was told to change nothing",
            );
        }
        let message = "the former configuration stays in force until the problems are solved";
        return finding(Status::False, "Invalid", message);
    };
    if !applied.refused.is_empty() {
        return finding(Status::False, "Refused", &applied.refused.join("\n"));
    }
    if !applied.failed.is_empty() {
        let message = format!("tried again soon: {}", applied.failed.join("\n"));
        return finding(Status::False, "WriteFailed", &message);
    }
    if !applied.waiting.is_empty() {
        let message = format!(
            "being deleted, then made anew: {}",
            applied.waiting.join(", ")
        );
        return finding(Status::False, "Pending", &message);
    }
    finding(
        Status::True,
        "Programmed",
        "all objects are as they should be",
    )
}

fn redis(redis: &RedisFacts, ready: i32) -> Finding {
    let finding =
        |status: Status, reason, message: &str| Finding::new(REDIS_READY, status, reason, message);
    match redis {
        RedisFacts::Unknown => {
            finding(Status::Unknown, "Unknown", "nothing valid says which Redis")
        }
        RedisFacts::Unused => finding(
            Status::True,
            "Unused",
            "the one pod keeps everything itself",
        ),
        RedisFacts::External { told } => external(told.as_ref(), ready > 0),
        RedisFacts::Managed {
            ready,
            reason,
            message,
            ..
        } => finding(Status::from(*ready), reason, message),
    }
}

/// The pods are who has to reach it; the operator may stand elsewhere.
fn external(told: Option<&Told>, are_pods_ready: bool) -> Finding {
    let finding = |status: Status, reason, message: String| {
        Finding::new(REDIS_READY, status, reason, message)
    };
    match (told, are_pods_ready) {
        (Some(Ok(told)), _) => finding(Status::True, "External", told.clone()),
        (None, true) => {
            let message = "the ready pods reach it".to_owned();
            finding(Status::True, "External", message)
        }
        (None, false) => {
            let message = "it has not been asked yet".to_owned();
            finding(Status::Unknown, "External", message)
        }
        (Some(Err(why)), true) => {
            let message = format!("the ready pods reach it; the operator does not: {why}");
            finding(Status::True, "External", message)
        }
        (Some(Err(why)), false) => {
            let message = format!(
                "{why}; see that spec.redis.external is right, and that the server runs and lets the pods in"
            );
            finding(Status::False, "Unreachable", message)
        }
    }
}

fn ready_finding(facts: &Facts<'_>, needed: [&Finding; 3], ready: i32, wanted: i32) -> Finding {
    let not = |reason, message: String| Finding::new(READY, false, reason, message);
    let [accepted, programmed, redis] = needed;
    if accepted.status != Status::True {
        return not(accepted.reason, accepted.message.clone());
    }
    if programmed.status == Status::False {
        return not(programmed.reason, programmed.message.clone());
    }
    if redis.status == Status::False {
        return not("RedisNotReady", redis.message.clone());
    }
    if ready < wanted {
        return not("PodsNotReady", pods_message(facts, ready, wanted));
    }
    let message = if wanted == 0 {
        "no pods are wanted".to_owned()
    } else {
        format!("{ready} of {wanted} pods are ready")
    };
    Finding::new(READY, true, "Ready", message)
}

/// How many pods are missing, and what keeps the first of them.
fn pods_message(facts: &Facts<'_>, ready: i32, wanted: i32) -> String {
    let message = format!("{ready} of {wanted} pods are ready");
    let mut pods = facts.pods.iter().filter(|pod| !pod.ready && !pod.ended);
    if let Some(pod) = pods.clone().find(|pod| pod.trouble.is_some()) {
        let trouble = pod.trouble.as_deref().unwrap_or_default();
        return format!("{message}; {}: {trouble}{}", pod.name, remedy(trouble));
    }
    if let Some(failure) = facts.deployment.and_then(replica_failure) {
        return format!("{message}; {failure}");
    }
    match pods.next() {
        Some(pod) => format!("{message}; {} is starting", pod.name),
        None => format!("{message}; waiting for pods to be made"),
    }
}

fn remedy(trouble: &str) -> &'static str {
    let begins = |words: &[&str]| words.iter().any(|word| trouble.starts_with(word));
    if begins(&["ErrImage", "ImagePull", "InvalidImage"]) {
        "; write an image that nodes can pull into spec.dataPlane.image"
    } else if begins(&["Unschedulable"]) {
        "; add nodes, or ask for less in spec.dataPlane.resources"
    } else if begins(&["CrashLoop"]) {
        "; its log says why: kubectl logs --previous"
    } else {
        ""
    }
}

/// Pods that the API server refuses: quotas, Pod Security.
fn replica_failure(deployment: &Value) -> Option<&str> {
    let conditions = deployment.pointer("/status/conditions")?.as_array()?;
    let failure = conditions
        .iter()
        .find(|condition| condition["type"] == "ReplicaFailure" && condition["status"] == "True");
    failure?["message"].as_str()
}

/// What a rollout still has to do.
fn rollout(facts: &Facts<'_>) -> Option<String> {
    let deployment = facts.deployment?;
    let number = |pointer: &str| {
        let number = deployment.pointer(pointer).and_then(Value::as_i64);
        number.unwrap_or_default()
    };
    let generation = number("/metadata/generation");
    if number("/status/observedGeneration") < generation {
        return Some("the Deployment has just been changed".to_owned());
    }
    let wanted = number("/spec/replicas");
    let updated = number("/status/updatedReplicas");
    let all = number("/status/replicas");
    let available = number("/status/availableReplicas");
    if updated < wanted {
        return Some(format!("{updated} of {wanted} pods are of the new kind"));
    }
    if all > updated {
        let old = all - updated;
        return Some(format!("{old} pods of the old kind are ending"));
    }
    (available < wanted).then(|| format!("{available} of {wanted} pods are available"))
}

fn stalled(facts: &Facts<'_>) -> Option<Finding> {
    if !facts.problems.is_empty() {
        let message = listed(facts.problems);
        return Some(Finding::new(STALLED, true, "Invalid", message));
    }
    let refused = &facts.applied?.refused;
    (!refused.is_empty()).then(|| Finding::new(STALLED, true, "Refused", refused.join("\n")))
}

fn reconciling(
    facts: &Facts<'_>,
    ready: &Finding,
    rollout: Option<&str>,
    stalled: bool,
) -> Option<Finding> {
    if stalled || facts.paused {
        return None;
    }
    let message = match (rollout, ready.status) {
        (Some(rollout), _) => rollout,
        (None, Status::True) => return None,
        (None, Status::False | Status::Unknown) => &ready.message,
    };
    Some(Finding::new(RECONCILING, true, "Progressing", message))
}

#[cfg(test)]
mod tests;
