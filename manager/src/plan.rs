//! What the manager wants, as others carry it out and show it: the part of a plan that leaves the manager. Below are the
//! planners, each a function of what is known, what the user wants, what was decided before, and `now`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_proto::fleet::{CapKey, Version};

use crate::facts::PodName;

pub(crate) mod autoscale;
pub(crate) mod check;
pub(crate) mod moves;
pub(crate) mod steering;
pub(crate) mod throttle;
pub(crate) mod upstreams;

/// Made every tick. Directives tell each data plane its part; endpoints and replicas are the operator's to carry out.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PlanSummary {
    pub version: Version,
    /// A new manager learns first what the fleet holds; meanwhile nothing is moved, scaled or fenced.
    pub learning: bool,
    pub pods: BTreeMap<PodName, PodPlan>,
    /// `None`: not the manager's to decide.
    pub scale: Option<ScaleDecision>,
    /// Of all pods that report.
    pub connections: u64,
    /// Requests per minute: taken in, delivered, failed.
    pub arrived_per_minute: f64,
    pub delivered_per_minute: f64,
    pub failed_per_minute: f64,
    pub waiting: u64,
    pub oldest: Duration,
    /// For each cap: sent per minute over all pods, and what is allowed to them together.
    pub caps: BTreeMap<CapKey, (f64, f64)>,
    /// What is under way, in words, for people: `moving 240 clients off front-1`.
    pub activity: Option<Arc<str>>,
    /// What no plan may be and this one is: a defect of the manager.
    pub wrong: Option<Arc<str>>,
}

/// What the plan is for a pod.
#[derive(Debug, Clone, PartialEq)]
pub struct PodPlan {
    pub state: PodState,
    /// Why, in words.
    pub reason: Arc<str>,
    pub connections: u64,
    /// Connections that would be its part by weight.
    pub fair: f64,
    /// Reports come.
    pub reporting: bool,
    /// No client is left, and none comes.
    pub drained: bool,
}

/// Conditions of endpoints derive from this alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodState {
    /// Exists, and is not ready.
    Warming,
    Accepting,
    /// No new clients; those it has stay.
    Fenced,
    Draining,
    Drained,
    /// Does not report although it should: given no new clients.
    Silent,
}

impl PodState {
    /// Whether new connections may go to it.
    pub fn takes_new(self) -> bool {
        self == Self::Accepting
    }
}

/// How many pods there should be.
#[derive(Debug, Clone, PartialEq)]
pub struct ScaleDecision {
    /// What Kubernetes is to be asked for, if it was asked for `of` until now: a decision that comes late does no harm.
    pub replicas: u32,
    pub of: u32,
    /// What it comes to, once pods that are too many are drained.
    pub wanted: u32,
    /// What asked for the most.
    pub reason: ScaleReason,
    /// The wish before limits.
    pub wish: u32,
    /// Why it is not followed.
    pub limit: Option<ScaleLimit>,
    /// Why no pod goes now although fewer are wished, in words.
    pub waits: Option<Arc<str>>,
    /// The pod to remove. `replicas` goes down by one when it is drained, and not before.
    pub victim: Option<PodName>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleLimit {
    /// More pods are wished than there may be.
    Maximum,
    Paused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScaleReason {
    Connections,
    Slope,
    Cpu,
    QueueDelay,
    Minimum,
    /// The user, or an autoscaler of Kubernetes.
    Asked,
}
