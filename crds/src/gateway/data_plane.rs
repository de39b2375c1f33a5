//! The processes that serve a gateway: the `dataPlane` part.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::DURATION;
use super::quantity::Quantity;
use super::scaling::Scaling;

/// References to images: no white space, and nothing that a shell would read.
pub(crate) const IMAGE: &str = "^[a-zA-Z0-9][-a-zA-Z0-9._/:@]*$";

/// The processes that serve a gateway.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataPlane {
    /// Container image of the data plane; unset: the one that the operator has when it first makes the pods. A new
    /// operator changes it for nobody. Kubernetes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = IMAGE))]
    pub image: Option<String>,
    /// How many pods there are. Kubernetes only.
    #[serde(default)]
    pub scaling: Scaling,
    /// CPU and memory of a pod; unset: 250m and 256Mi are requested, and memory is limited to 1Gi. Kubernetes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Laid over the pods that the operator makes, in the form of a PodTemplateSpec: objects are merged, entries of
    /// lists by their `name`, all else replaces what was there. The container is named `sluice`. Kubernetes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// How a process ends.
    #[serde(default)]
    pub drain: Drain,
    /// Whether clients are moved from pods that have too many to others. Kubernetes only.
    #[serde(default, skip_serializing_if = "Rebalance::is_default")]
    pub rebalance: Rebalance,
}

/// Whether clients are moved from pods that have too many to others.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rebalance {
    /// Steer (the default): new clients go to pods below their share, nobody is moved but by `kubectl sluice rebalance`. Move: a surplus
    /// that lasts is moved too, by closing clients, which come back elsewhere. Disabled: neither.
    #[serde(default)]
    pub mode: RebalanceMode,
    /// Clients that may be closed per second, for moves and drains of all pods together, from 1 to 10000; unset: 1 % of all, from
    /// 10 to 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub moves_per_second: Option<i32>,
}

impl Rebalance {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether clients are moved.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum RebalanceMode {
    #[default]
    Steer,
    Move,
    Disabled,
}

/// CPU and memory of a container.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.requests) || !has(self.limits) || !has(self.requests.memory) || !has(self.limits.memory) || !isQuantity(string(self.requests.memory)) || !isQuantity(string(self.limits.memory)) || quantity(string(self.requests.memory)).compareTo(quantity(string(self.limits.memory))) <= 0",
    "message": "requests.memory must not be above limits.memory"
}]))]
pub struct Resources {
    /// What is kept free for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<Amounts>,
    /// What it never gets more of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Amounts>,
}

/// Amounts of CPU and memory.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default, JsonSchema)]
pub struct Amounts {
    /// CPU, as in 500m or 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Memory, as in 512Mi or 2Gi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// A part of a PodTemplateSpec.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default, JsonSchema)]
pub struct PodTemplate {
    /// Labels and annotations of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub metadata: Option<Map<String, Value>>,
    /// A part of a PodSpec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub spec: Option<Map<String, Value>>,
}

/// The API server judges it when the pods are made.
fn anything(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// How a process ends.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
pub struct Drain {
    /// Time that a stopping process has for its clients: a duration from 0s to 1h, default 5m. On Kubernetes they leave at the pace of
    /// `rebalance.movesPerSecond`, all pods that stop together; those that are left after half of the time, and all where there is no
    /// manager, evenly. The process ends when they are gone.
    #[serde(default = "drain_timeout")]
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('0s') && duration(self) <= duration('1h')",
        "message": "must be from 0s to 1h"
    }]))]
    pub timeout: String,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            timeout: drain_timeout(),
        }
    }
}

fn drain_timeout() -> String {
    "5m".to_owned()
}
