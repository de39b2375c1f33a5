//! What others know of the pods: the operator from Kubernetes, standalone of itself.

use std::sync::Arc;

pub type PodName = Arc<str>;

/// What is known of a fleet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    pub pods: Vec<PodFacts>,
    /// How many pods Kubernetes was asked for; `None`: as many as there are. While pods are replaced there may be more.
    pub replicas: Option<u32>,
}

impl From<Vec<PodFacts>> for Facts {
    fn from(pods: Vec<PodFacts>) -> Self {
        Self {
            pods,
            replicas: None,
        }
    }
}

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
    /// Someone asked for it to be emptied (`kubectl sluice drain`).
    pub drain_requested: bool,
}
