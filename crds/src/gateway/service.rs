//! How clients find the pods, whose Applications a gateway takes, and who keeps it: `service`, `allowedApplications`
//! and `operation`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The Service in front of the pods.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.loadBalancerClass) || self.type == 'LoadBalancer'",
    "message": "loadBalancerClass needs type LoadBalancer"
}]))]
pub struct Service {
    /// ClusterIP (the default), NodePort or LoadBalancer.
    #[serde(default, rename = "type")]
    pub kind: ServiceType,
    /// Annotations of the Service, at most 64: what load balancers are told by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Which implementation of load balancers takes the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub load_balancer_class: Option<String>,
    /// Managed (the default): the operator says which pods take new connections. Disabled: Kubernetes does, by their
    /// readiness alone, also while no operator runs.
    #[serde(default)]
    pub steering: Steering,
    /// None (the default): a connection may go to any pod. PreferSameZone: to pods of the zone that it comes from, while some there take
    /// new ones, and where each pod that does is in a known zone (Kubernetes 1.35; with `steering: Disabled` 1.31).
    #[serde(default, skip_serializing_if = "ServiceTopology::is_none")]
    pub topology: ServiceTopology,
}

/// Types of Services.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum ServiceType {
    #[default]
    #[serde(rename = "ClusterIP")]
    ClusterIp,
    NodePort,
    LoadBalancer,
}

impl ServiceType {
    /// As Kubernetes writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// Who writes the EndpointSlices.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum Steering {
    #[default]
    Managed,
    Disabled,
}

/// Whether zones count.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum ServiceTopology {
    #[default]
    None,
    PreferSameZone,
}

impl ServiceTopology {
    fn is_none(&self) -> bool {
        *self == Self::None
    }
}

fn annotations(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 4096},
    })
}

/// Whose Applications a gateway takes.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default, JsonSchema)]
pub struct AllowedApplications {
    /// The namespaces they may be in.
    #[serde(default)]
    pub namespaces: AllowedNamespaces,
}

/// Namespaces.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(self.from == 'Selector') == has(self.matchLabels)",
    "message": "from: Selector needs matchLabels, and only it takes them"
}]))]
pub struct AllowedNamespaces {
    /// Same (the default): that of the gateway. All: any. Selector: those with the labels of `matchLabels`.
    #[serde(default)]
    pub from: From,
    /// Labels that a namespace must have, 1 to 16 of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "labels")]
    pub match_labels: Option<BTreeMap<String, String>>,
}

/// Which namespaces.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum From {
    #[default]
    Same,
    All,
    Selector,
}

fn labels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

/// What the operator does for a gateway.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default, JsonSchema)]
pub struct Operation {
    /// Active (the default). Paused: the operator changes nothing of the gateway but its status; the pods go on.
    #[serde(default)]
    pub reconciliation: Reconciliation,
    /// Active (the default). Paused: where the operator decides how many pods there are, it leaves that as it is, and says what it would do.
    #[serde(default, skip_serializing_if = "ScalingOperation::is_default")]
    pub scaling: ScalingOperation,
}

/// Whether the operator changes things.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum Reconciliation {
    #[default]
    Active,
    Paused,
}

/// Whether the operator changes the number of pods by what the load asks for.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum ScalingOperation {
    #[default]
    Active,
    Paused,
}

impl ScalingOperation {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
