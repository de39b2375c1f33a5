//! What the user wants of the fleet, in numbers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sluice_crds::config::GatewayConfig;
use sluice_proto::fleet::CapKey;

/// Everything that planners are told by the user. The operator makes it of the `Gateway`, standalone of its manifest.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Caps in requests per minute, for all data planes together.
    pub caps: BTreeMap<CapKey, f64>,
    /// Those whose requests are served, with or without a cap.
    pub applications: BTreeSet<Arc<str>>,
    pub scaling: Scaling,
    pub rebalance: Rebalance,
    /// Clients that may be closed per second, for rebalance and drains together; `None`: the smaller of 500 and 1 % of all.
    pub moves_per_second: Option<f64>,
    /// Between fencing a pod and closing its clients: what carries new connections has to learn of it.
    pub fence_delay: Duration,
    /// No steering at all: everyone takes new connections.
    pub steering: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    pub mode: ScalingMode,
    /// Of [`ScalingMode::Managed`] only.
    pub min: u32,
    /// The most that there will be, whoever decides.
    pub max: u32,
    /// Connections that a pod is meant to carry at most.
    pub connections_per_replica: u64,
    /// Part of `connections_per_replica` to plan for, above 0 and at most 1.
    pub connections_target: f64,
    /// Part of its CPU request that a pod should use, above 0 and at most 1.
    pub cpu_target: f64,
    /// Waiting that the gateway causes itself, above which pods are added.
    pub queue_delay_target: Duration,
    /// The highest wish of this time counts when pods are removed.
    pub scale_down_window: Duration,
    /// The user has paused it: the wish is said, and nothing is done.
    pub paused: bool,
}

/// What a Gateway that says nothing has, for a number of pods that is nobody's to change.
impl Default for Scaling {
    fn default() -> Self {
        let unsaid = sluice_crds::gateway::Scaling::default();
        Self {
            mode: ScalingMode::Fixed,
            min: 1,
            max: 1,
            connections_per_replica: unsaid.connections_per_replica(),
            connections_target: unsaid.target_connections(),
            cpu_target: unsaid.target_cpu(),
            queue_delay_target: unsaid.target_queue_delay(),
            scale_down_window: unsaid.scale_down_window(),
            paused: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalingMode {
    /// The manager decides.
    Managed,
    /// So many, as the user or an autoscaler of Kubernetes says; the manager decides who goes, and when.
    Given(u32),
    /// There are as many as there are.
    Fixed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebalance {
    /// New connections go to pods below their fair share; nobody is moved.
    Steer,
    /// A surplus that stays is moved too.
    Move,
    Off,
}

impl Policy {
    /// The applications of a configuration.
    pub fn applications_of(config: &GatewayConfig) -> BTreeSet<Arc<str>> {
        let ingest = config.ingest.iter();
        let applications = ingest.flat_map(|ingest| &ingest.applications);
        applications
            .map(|application| application.name.as_str().into())
            .collect()
    }

    /// The caps of a configuration.
    pub fn caps_of(config: &GatewayConfig) -> BTreeMap<CapKey, f64> {
        let Some(ingest) = &config.ingest else {
            return BTreeMap::new();
        };
        let applications = ingest.applications.iter().filter_map(|application| {
            let cap = application.requests_per_minute?;
            Some((
                CapKey::Application(application.name.as_str().into()),
                f64::from(cap),
            ))
        });
        let gateway = ingest
            .requests_per_minute
            .map(|cap| (CapKey::Gateway, f64::from(cap)));
        applications.chain(gateway).collect()
    }
}
