//! How many pods there are: the `dataPlane.scaling` part.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::DURATION;
use crate::resolve::duration;

const MIN: i32 = 2;
const MAX: i32 = 10;
const CONNECTIONS_PER_REPLICA: i32 = 20_000;
const TARGET_CONNECTIONS_PERCENT: i32 = 70;
const TARGET_CPU_PERCENT: i32 = 60;
const TARGET_QUEUE_DELAY: Duration = Duration::from_millis(250);
const SCALE_DOWN_WINDOW: Duration = Duration::from_secs(900);

/// How many pods there are.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(has(self.min) ? self.min : 2) <= (has(self.max) ? self.max : 10)",
    "message": "min (2 if unset) must not be above max (10 if unset)"
}]))]
pub struct Scaling {
    /// Fixed (the default): `replicas`. External: `replicas`, which an autoscaler changes through the scale subresource. Managed: as the
    /// load asks for, from `min` to `max`. Pods that are too many are drained before they go.
    #[serde(default)]
    pub mode: ScalingMode,
    /// Number of pods where the mode is Fixed or External, from 0 to 1000, default 2. Without redis there is never more than one.
    #[serde(default = "replicas")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// Managed: the fewest pods, from 1 to 1000; unset: 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub min: Option<i32>,
    /// Managed: the most pods, from 1 to 1000; unset: 10.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max: Option<i32>,
    /// Managed: clients that a pod can carry, from 10 to 1000000; unset: 20000. Steering uses it in all modes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 1000000))]
    pub connections_per_replica: Option<i32>,
    /// Managed: how much of `connectionsPerReplica` to plan for, from 10 to 100 percent; unset: 70.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 100))]
    pub target_connections_percent: Option<i32>,
    /// Managed: how much of the CPU that it requests a pod is to use, from 10 to 1000 percent; unset: 60.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 1000))]
    pub target_cpu_percent: Option<i32>,
    /// Managed: how long requests may wait because pods are busy, not because of upstreams or limits, before pods are added: a
    /// duration from 10ms to 1h; unset: 250ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('10ms') && duration(self) <= duration('1h')",
        "message": "must be from 10ms to 1h"
    }]))]
    pub target_queue_delay: Option<String>,
    /// Managed: pods go when this is how long fewer were enough: a duration from 10s to 24h; unset: 15m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('10s') && duration(self) <= duration('24h')",
        "message": "must be from 10s to 24h"
    }]))]
    pub scale_down_window: Option<String>,
}

impl Default for Scaling {
    fn default() -> Self {
        Self {
            mode: ScalingMode::default(),
            replicas: replicas(),
            min: None,
            max: None,
            connections_per_replica: None,
            target_connections_percent: None,
            target_cpu_percent: None,
            target_queue_delay: None,
            scale_down_window: None,
        }
    }
}

impl Scaling {
    pub fn min(&self) -> i32 {
        self.min.unwrap_or(MIN)
    }

    pub fn max(&self) -> i32 {
        self.max.unwrap_or(MAX)
    }

    pub fn connections_per_replica(&self) -> u64 {
        let connections = self.connections_per_replica;
        connections
            .unwrap_or(CONNECTIONS_PER_REPLICA)
            .unsigned_abs()
            .into()
    }

    /// Parts of 1.
    pub fn target_connections(&self) -> f64 {
        let percent = self.target_connections_percent;
        f64::from(percent.unwrap_or(TARGET_CONNECTIONS_PERCENT)) / 100.0
    }

    pub fn target_cpu(&self) -> f64 {
        f64::from(self.target_cpu_percent.unwrap_or(TARGET_CPU_PERCENT)) / 100.0
    }

    pub fn target_queue_delay(&self) -> Duration {
        let delay = self.target_queue_delay.as_deref();
        delay
            .and_then(duration::parse)
            .unwrap_or(TARGET_QUEUE_DELAY)
    }

    pub fn scale_down_window(&self) -> Duration {
        let window = self.scale_down_window.as_deref();
        window
            .and_then(duration::parse)
            .unwrap_or(SCALE_DOWN_WINDOW)
    }

    /// The most pods that there will be while nobody changes this.
    pub fn most(&self) -> i32 {
        match self.mode {
            ScalingMode::Managed => self.max(),
            ScalingMode::External | ScalingMode::Fixed => self.replicas,
        }
    }
}

/// Who decides how many pods there are.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum ScalingMode {
    #[default]
    Fixed,
    External,
    Managed,
}

fn replicas() -> i32 {
    2
}
