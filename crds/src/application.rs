//! The `Application` custom resource: a tenant of ingest, with its own keys, limits and upstreams.
//!
//! These types are the source of the CRD in `crds/yaml/application.yaml`, under the rules that `gateway` states.

#![allow(
    clippy::duplicated_attributes,
    reason = "columns of one table have parts in common"
)]

use std::fmt;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::gateway::{
    ApplicationStatus, DURATION, DeliveryOverride, LABEL, OBJECT_NAME, SecretKey, Upstream,
};

/// A tenant of ingest: whose requests a gateway accepts, and how they are delivered.
#[derive(CustomResource, Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "Application",
    plural = "applications",
    shortname = "slapp",
    category = "sluice",
    namespaced,
    derive = "PartialEq",
    status = "ApplicationStatus",
    printcolumn(
        name = "Gateway",
        type_ = "string",
        json_path = ".spec.gatewayRef.name"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    doc = "A tenant of ingest: whose requests a gateway accepts, and how they are delivered."
)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationSpec {
    /// The Gateway that takes the requests of this application.
    pub gateway_ref: GatewayRef,
    /// Keys by which requests name this application, 1 to 16 of them; several while a key is being replaced. No two
    /// applications of a gateway have a key in common: the oldest application keeps it.
    #[schemars(
        length(min = 1, max = 16),
        extend(
            "x-kubernetes-list-type" = "atomic",
            "x-kubernetes-validations" = [{
                "rule": "self.all(a, !has(a.value) || self.exists_one(b, has(b.value) && b.value == a.value))",
                "message": "every key must be written once"
            }]
        )
    )]
    pub keys: Vec<Key>,
    /// Salt of the checksums that its clients put on requests; unset: checksums are not checked. Countly only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<Salt>,
    /// Bound and share of its deliveries.
    #[serde(default)]
    pub throttle: ApplicationThrottle,
    /// What it wants otherwise than the gateway's `delivery`; what is unset is as the gateway says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryOverride>,
    /// Where its requests are delivered instead of the gateway's upstreams, at most 32, each with its own name. One
    /// that is written just as one of the gateway's is that one, and shares its limits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub upstreams: Vec<Upstream>,
    /// How long its requests are kept, instead of the gateway's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<ApplicationRetention>,
    /// Active (the default), or Paused: requests are accepted and wait.
    #[serde(default)]
    pub processing: Processing,
}

/// A Gateway.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
pub struct GatewayRef {
    /// Name of the Gateway.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub name: String,
    /// Namespace of the Gateway, which must allow applications of other namespaces; unset: that of the application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub namespace: Option<String>,
}

/// A key: exactly one of the two.
#[derive(Serialize, Deserialize, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.value) != has(self.secretRef)",
    "message": "set exactly one of value and secretRef"
}]))]
pub struct Key {
    /// The key itself, 1 to 256 characters, without white space at its ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), extend("x-kubernetes-validations" = [{
        "rule": "self == self.trim()",
        "message": "must not begin or end with white space"
    }]))]
    pub value: Option<String>,
    /// Key of a Secret that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKey>,
}

/// A salt: exactly one of the two.
#[derive(Serialize, Deserialize, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.value) != has(self.secretRef)",
    "message": "set exactly one of value and secretRef"
}]))]
pub struct Salt {
    /// The salt itself, 1 to 1024 characters, not only white space and without a line break at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), extend("x-kubernetes-validations" = [{
        "rule": "self.trim() != '' && !self.endsWith('\\n')",
        "message": "must not be blank, nor end with a line break"
    }]))]
    pub value: Option<String>,
    /// Key of a Secret that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKey>,
}

/// Bound and share of the deliveries of one application.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationThrottle {
    /// Deliveries per minute: a number from 1 to 1000000000, unset: no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub requests_per_minute: Option<i32>,
    /// Share of the deliveries when there is not enough for all applications: a number from 1 to 1000, default 1.
    #[serde(default = "weight")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: i32,
}

impl Default for ApplicationThrottle {
    fn default() -> Self {
        Self {
            requests_per_minute: None,
            weight: weight(),
        }
    }
}

/// How long the requests of one application are kept.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
pub struct ApplicationRetention {
    /// Age at which a request is dropped that does not wait any more, be it delivered, parked or discarded: a duration
    /// from 1m to 720h. Requests that wait are never dropped.
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1m') && duration(self) <= duration('720h')",
        "message": "must be from 1m to 720h"
    }]))]
    pub time: String,
}

/// Whether requests are delivered.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum Processing {
    #[default]
    Active,
    Paused,
}

fn weight() -> i32 {
    1
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        concealed(f, "Key", self.value.as_deref(), self.secret_ref.as_ref())
    }
}

impl fmt::Debug for Salt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        concealed(f, "Salt", self.value.as_deref(), self.secret_ref.as_ref())
    }
}

/// Shows where a value is, and of a value in place only that it is there.
fn concealed(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    value: Option<&str>,
    secret_ref: Option<&SecretKey>,
) -> fmt::Result {
    let value = value.map(|value| format!("{} bytes", value.len()));
    f.debug_struct(name)
        .field("value", &value)
        .field("secret_ref", &secret_ref)
        .finish()
}

/// The CRD as the API server takes it.
pub fn crd() -> CustomResourceDefinition {
    Application::crd()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_salts_are_not_shown() {
        let spec = serde_json::json!({
            "gatewayRef": {"name": "demo"}, "keys": [{"value": "hidden"}], "salt": {"value": "hidden"}
        });
        let spec: ApplicationSpec = serde_json::from_value(spec).unwrap();
        let shown = format!("{spec:?}");
        assert!(
            shown.contains("6 bytes") && !shown.contains("hidden"),
            "{shown}"
        );
    }
}
