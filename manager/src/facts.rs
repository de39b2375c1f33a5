//! What others know of the pods: the operator from Kubernetes, standalone of itself.

use std::sync::Arc;

pub type PodName = Arc<str>;

/// A pod that exists, whether it reports or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodFacts {
    pub name: PodName,
    /// Its readiness probe succeeds.
    pub ready: bool,
    /// It was told to end.
    pub terminating: bool,
    pub node: Option<Arc<str>>,
    pub zone: Option<Arc<str>>,
    /// Of the newest pod template; others are being replaced.
    pub current_revision: bool,
    /// Someone asked for it to be emptied (`kubectl sluice drain`), or its node is being drained.
    pub drain_requested: bool,
}
