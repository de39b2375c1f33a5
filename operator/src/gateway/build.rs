//! What a Gateway should consist of: a pure function of the validated Gateway and of the pods there are.
//!
//! One file per kind. Nothing here asks the cluster or knows what is there already, but for the pod template: it is kept
//! as it was first made for the same wishes, so that a new operator does not replace running pods.

mod config;
mod deployment;
mod disruption_budget;
mod network_policy;
mod pod;
mod revision;
mod service;
mod service_account;
mod slices;

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_crds::config::GatewayConfig;
use sluice_crds::gateway::GatewaySpec;

use crate::object::{Object, Owner};
use crate::pods::PodView;

pub use config::ACCEPTED_SPEC;
pub use pod::{ADMIN_PORT, CONTAINER};
pub use revision::{inputs, revision_name, template_of};
pub use slices::SLICE_MANAGER;

/// A Gateway that can be served.
#[derive(Debug, Clone, PartialEq)]
pub struct Validated {
    pub owner: Owner,
    pub spec: GatewaySpec,
    pub config: Arc<GatewayConfig>,
    /// Pods that there should be.
    pub replicas: i32,
    /// Of pods that are made for the first time and name no image.
    pub default_image: String,
    /// What `sluice.dev/restartedAt` says: another value replaces all pods.
    pub restarted_at: Option<String>,
    /// Where data planes find the manager, as in `https://sluice-manager.sluice-system.svc:8443`.
    pub manager: String,
    /// Where the operators' pods are, which ask data planes for requests.
    pub operators: String,
    /// The certificates by which they know it; empty while there are none.
    pub trusted: Arc<str>,
    /// Of the Redis that the operator runs, apart from the data plane.
    pub redis: Vec<Object>,
}

/// Everything that a Gateway consists of.
#[derive(Debug)]
pub struct Prepared {
    pub service_account: Object,
    pub secret: Object,
    pub config_map: Object,
    pub revision: Object,
    pub network_policy: Object,
    pub disruption_budget: Object,
    pub redis: Vec<Object>,
    pub deployment: Object,
    pub service: Object,
    pub slices: Vec<Object>,
}

/// Name of the ConfigMap and of the Secret that hold the configuration.
pub fn config_name(owner: &Owner) -> String {
    config::name(&owner.name)
}

/// Tells one configuration, secrets included, from another.
pub fn config_digest(wanted: &Validated) -> String {
    config::digest(wanted)
}

/// `fenced` are pods that are to get no new connections. `pinned` is the pod template that was made for the same wishes before.
pub fn build(
    wanted: &Validated,
    pods: &[Arc<PodView>],
    fenced: &BTreeSet<String>,
    pinned: Option<&serde_json::Value>,
) -> Prepared {
    let owner = &wanted.owner;
    let inputs = revision::inputs(wanted);
    let template = pinned.map_or_else(|| pod::template(wanted), Clone::clone);
    let (secret, config_map) = config::build(wanted);
    Prepared {
        service_account: service_account::build(owner),
        secret,
        config_map,
        revision: revision::build(owner, &inputs, &template),
        network_policy: network_policy::build(wanted),
        disruption_budget: disruption_budget::build(owner),
        redis: wanted.redis.clone(),
        deployment: deployment::build(wanted, template),
        service: service::build(wanted),
        slices: slices::build(wanted, pods, fenced),
    }
}

#[cfg(test)]
mod tests;
