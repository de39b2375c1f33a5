//! What is true of Applications: a Gateway's pass tells each of its Applications what became of it.
//!
//! An Application owns no objects: what it says is in the configuration of its Gateway.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject};
use sluice_crds::application::Application;
use sluice_crds::conditions::{
    ACCEPTED, CONFIGURATION_WARNING, Finding, READY, RESOLVED_REFS, Status, merge,
};
use sluice_crds::gateway::{ApplicationStatus, GatewayStatus};
use sluice_crds::problem::{Problem, Reason};
use sluice_crds::resolve::ApplicationOutcome;

use crate::cluster::{WriteError, Writer};
use crate::gateway::dereference::Snapshot;
use crate::gateway::status::listed;
use crate::gateway::validate::Judgement;
use crate::shelf::Key;

/// Writes the status of every Application of a Gateway that is not as it should be.
pub async fn report(
    writer: &Writer,
    snapshot: &Snapshot,
    judgement: &Judgement,
    gateway: &GatewayStatus,
) -> Result<(), WriteError> {
    let is_served = says(gateway, sluice_crds::conditions::PROGRAMMED);
    for (object, outcome) in snapshot.applications.iter().zip(&judgement.applications) {
        let key = (outcome.namespace.clone(), outcome.name.clone());
        let mut findings = findings(outcome, judgement.problems.is_empty(), is_served);
        if judgement.kept.contains(&key) {
            say_kept(&mut findings);
        }
        write(writer, object, &findings).await?;
    }
    Ok(())
}

/// Tells Applications that there is no such Gateway.
pub async fn orphaned(
    writer: &Writer,
    gateway: &Key,
    applications: &[Arc<DynamicObject>],
) -> Result<(), WriteError> {
    let (namespace, name) = gateway;
    let message = format!(
        "spec.gatewayRef.name: Gateway {namespace}/{name} does not exist; add it, or name one that exists"
    );
    let findings = [
        Finding::new(ACCEPTED, false, "TargetNotFound", &message),
        Finding::new(READY, false, "TargetNotFound", &message),
    ];
    for object in applications {
        write(writer, object, &findings).await?;
    }
    Ok(())
}

async fn write(
    writer: &Writer,
    object: &DynamicObject,
    findings: &[Finding],
) -> Result<(), WriteError> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let former: ApplicationStatus = object
        .data
        .get("status")
        .and_then(|status| serde_json::from_value(status.clone()).ok())
        .unwrap_or_default();
    let generation = object.metadata.generation;
    let now = Time(Timestamp::now());
    let status = ApplicationStatus {
        observed_generation: generation,
        conditions: merge(&former.conditions, findings, generation, &now),
    };
    if status == former {
        return Ok(());
    }
    let value =
        serde_json::to_value(&status).map_err(|failure| WriteError::Failed(failure.to_string()))?;
    let metadata = &object.metadata;
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let name = metadata.name.as_deref().unwrap_or_default();
    let resource = ApiResource::erase::<Application>(&());
    writer.status(&resource, namespace, name, &value).await
}

fn says(status: &GatewayStatus, kind: &str) -> bool {
    let mut conditions = status.conditions.iter();
    conditions.any(|condition| condition.type_ == kind && condition.status == "True")
}

/// `sound`: its Gateway has no problems of its own. `served`: what the Gateway says is what the pods have.
fn findings(outcome: &ApplicationOutcome, sound: bool, served: bool) -> Vec<Finding> {
    let problems = &outcome.problems;
    let missing: Vec<Problem> = problems
        .iter()
        .filter(|problem| problem.reason == Reason::RefNotFound)
        .cloned()
        .collect();
    let mut findings = Vec::with_capacity(4);
    let reason = reason(problems);
    let is_accepted = problems.is_empty() || outcome.attached;
    if is_accepted {
        let message = "the Application can be served";
        findings.push(Finding::new(ACCEPTED, true, "Accepted", message));
    } else {
        findings.push(Finding::new(ACCEPTED, false, reason, listed(problems)));
    }
    findings.push(if missing.is_empty() {
        let message = "everything that is referred to was found";
        Finding::new(RESOLVED_REFS, true, "ResolvedRefs", message)
    } else {
        Finding::new(RESOLVED_REFS, false, "RefNotFound", listed(&missing))
    });
    findings.push(ready(outcome, reason, sound, served));
    if outcome.attached && !problems.is_empty() {
        let message = format!("served without some of its keys: {}", listed(problems));
        findings.push(Finding::new(CONFIGURATION_WARNING, true, reason, message));
    }
    findings
}

fn ready(outcome: &ApplicationOutcome, reason: &'static str, sound: bool, served: bool) -> Finding {
    if outcome.attached && served {
        return Finding::new(READY, true, "Ready", "its Gateway serves it");
    }
    if outcome.attached {
        let message = "its Gateway is not as it should be yet; look at its conditions";
        return Finding::new(READY, Status::False, "GatewayNotReady", message);
    }
    if outcome.problems.is_empty() && !sound {
        let message = "its Gateway has problems and goes on as before; look at its conditions";
        return Finding::new(READY, Status::False, "GatewayInvalid", message);
    }
    Finding::new(READY, Status::False, reason, listed(&outcome.problems))
}

/// It is not as it should be, and not out of service either.
fn say_kept(findings: &mut [Finding]) {
    for finding in findings.iter_mut().filter(|finding| finding.kind == READY) {
        finding.message = format!("served as it was before: {}", finding.message);
    }
}

/// The one reason to show: what somebody else has to do something about comes first.
fn reason(problems: &[Problem]) -> &'static str {
    const BY_WEIGHT: [(Reason, &str); 5] = [
        (Reason::TargetNotFound, "TargetNotFound"),
        (Reason::NotAllowed, "NotAllowed"),
        (Reason::Invalid, "Invalid"),
        (Reason::RefNotFound, "RefNotFound"),
        (Reason::Conflicted, "Conflicted"),
    ];
    let has = |reason: Reason| problems.iter().any(|problem| problem.reason == reason);
    let found = BY_WEIGHT.into_iter().find(|(reason, _)| has(*reason));
    found.map_or("Invalid", |(_, name)| name)
}

#[cfg(test)]
mod tests;
