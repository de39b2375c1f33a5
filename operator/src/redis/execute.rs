//! Carries steps out. Decides nothing, repeats nothing, and ends within `EXECUTE_TIMEOUT`.
//!
//! Addresses wander between pods, so each server is asked for its name before anything is done to it. A failed step
//! does not keep the others from being tried: each is safe alone, and the next pass sees what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::link::{Connector, Link, LinkError};
use super::observe::REPLICATION_USER;
use super::plan::{Step, Target};

/// Steps that are left by then are for the next pass.
const EXECUTE_TIMEOUT: Duration = Duration::from_secs(20);

/// The part of Kubernetes that steps need.
#[async_trait]
pub trait Pods: Send + Sync {
    /// Deletes this very pod: one with the name and another uid is left alone, and one that is gone is no error.
    async fn delete(&self, name: &str, uid: &str) -> Result<(), String>;
}

/// What came of the steps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Executed {
    pub done: Vec<Step>,
    pub failed: Vec<Failure>,
}

/// Names the pod and the command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{step}: {cause}")]
pub struct Failure {
    pub step: Step,
    pub cause: String,
}

pub async fn execute(steps: &[Step], redis: &Connector, pods: &dyn Pods) -> Executed {
    let deadline = Instant::now() + EXECUTE_TIMEOUT;
    let mut links = Links {
        redis,
        open: BTreeMap::new(),
    };
    let mut executed = Executed::default();
    for step in steps {
        let left = deadline.saturating_duration_since(Instant::now());
        let outcome = match tokio::time::timeout(left, carry_out(step, &mut links, pods)).await {
            Ok(outcome) => outcome,
            Err(_) => Err("not done in time".to_owned()),
        };
        match outcome {
            Ok(()) => executed.done.push(step.clone()),
            Err(cause) => executed.failed.push(Failure {
                step: step.clone(),
                cause,
            }),
        }
    }
    executed
}

async fn carry_out(step: &Step, links: &mut Links<'_>, pods: &dyn Pods) -> Result<(), String> {
    let port = links.redis.port.to_string();
    let (at, words, done_already) = match step {
        Step::DeletePod { name, uid } => return pods.delete(name, uid).await,
        // Sent to one that has taken over meanwhile.
        Step::Force(at) => (at, words(&["CLUSTER", "FAILOVER", "FORCE"]), "to a replica"),
        Step::TakeOver(at) => (
            at,
            words(&["CLUSTER", "FAILOVER", "TAKEOVER"]),
            "to a replica",
        ),
        Step::HandOver(at) => (at, words(&["CLUSTER", "FAILOVER"]), "to a replica"),
        Step::SetEpoch { at, epoch } => (
            at,
            words(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch.to_string()]),
            "already",
        ),
        Step::Meet { at, peer } => {
            // Introducing whoever has the address now would join two clusters.
            links.to(peer).await?;
            (
                at,
                words(&["CLUSTER", "MEET", &peer.ip.to_string(), &port]),
                NEVER,
            )
        }
        Step::Forget { at, id } => (
            at,
            words(&["CLUSTER", "FORGET", id.as_str()]),
            "Unknown node",
        ),
        Step::AddSlots { at, ranges } => {
            let mut all = words(&["CLUSTER", "ADDSLOTSRANGE"]);
            all.extend(
                ranges
                    .iter()
                    .flat_map(|(first, last)| [first.to_string(), last.to_string()]),
            );
            (at, all, NEVER)
        }
        Step::BumpEpoch(at) => (at, words(&["CLUSTER", "BUMPEPOCH"]), NEVER),
        Step::Unseal(at) => (
            at,
            words(&["ACL", "SETUSER", REPLICATION_USER, "on"]),
            NEVER,
        ),
        Step::Replicate { at, primary } => (
            at,
            words(&["CLUSTER", "REPLICATE", primary.as_str()]),
            NEVER,
        ),
    };
    let link = links.to(at).await?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match link.call(&words).await {
        Ok(_) => Ok(()),
        Err(LinkError::Refused(text)) if text.contains(done_already) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// In no server's error.
const NEVER: &str = "\n";

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// One connection to each server; one that was not reached is not tried again in the same pass.
struct Links<'a> {
    redis: &'a Connector,
    open: BTreeMap<Target, Result<Link, String>>,
}

impl Links<'_> {
    async fn to(&mut self, target: &Target) -> Result<&Link, String> {
        if !self.open.contains_key(target) {
            let link = self.connect(target).await;
            self.open.insert(target.clone(), link);
        }
        match &self.open[target] {
            Ok(link) => Ok(link),
            Err(cause) => Err(cause.clone()),
        }
    }

    async fn connect(&self, target: &Target) -> Result<Link, String> {
        let named = |error: LinkError| format!("{}: {error}", target.pod);
        let link = self.redis.connect(target.ip).await.map_err(named)?;
        let id = link.text(&["CLUSTER", "MYID"]).await.map_err(named)?;
        if id != target.id.as_str() {
            return Err(format!(
                "{}: another server has its address by now",
                target.pod
            ));
        }
        Ok(link)
    }
}

/// The pod and the command, as a person would look for them.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Force(at) => write!(f, "{}: CLUSTER FAILOVER FORCE", at.pod),
            Self::TakeOver(at) => write!(f, "{}: CLUSTER FAILOVER TAKEOVER", at.pod),
            Self::SetEpoch { at, epoch } => {
                write!(f, "{}: CLUSTER SET-CONFIG-EPOCH {epoch}", at.pod)
            }
            Self::Meet { at, peer } => {
                write!(f, "{}: CLUSTER MEET {} ({})", at.pod, peer.ip, peer.pod)
            }
            Self::Forget { at, id } => write!(f, "{}: CLUSTER FORGET {id}", at.pod),
            Self::AddSlots { at, ranges } => {
                write!(f, "{}: CLUSTER ADDSLOTSRANGE {ranges:?}", at.pod)
            }
            Self::BumpEpoch(at) => write!(f, "{}: CLUSTER BUMPEPOCH", at.pod),
            Self::Unseal(at) => write!(f, "{}: ACL SETUSER {REPLICATION_USER} on", at.pod),
            Self::Replicate { at, primary } => write!(f, "{}: CLUSTER REPLICATE {primary}", at.pod),
            Self::HandOver(at) => write!(f, "{}: CLUSTER FAILOVER", at.pod),
            Self::DeletePod { name, .. } => write!(f, "delete pod {name}"),
        }
    }
}
