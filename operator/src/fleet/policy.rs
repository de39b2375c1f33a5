//! What a Gateway asks of its manager.

use std::time::Duration;

use kube::api::DynamicObject;
use sluice_crds::gateway::{self, RebalanceMode, ScalingOperation, Steering};
use sluice_manager::{Policy, Rebalance, Scaling, ScalingMode};

use crate::gateway::build::Validated;
use crate::gateway::scaling;
use crate::pods::REQUESTED;

/// `kubectl sluice rebalance` asks for moves by it, where they are not made all the time.
pub(super) const REBALANCE: &str = "sluice.dev/rebalance";

/// Until what carries new connections has learnt of an endpoint's change.
const FENCE_DELAY: Duration = Duration::from_secs(15);

pub fn policy(valid: &Validated, gateway: &DynamicObject) -> Policy {
    let rebalance = &valid.spec.data_plane.rebalance;
    let annotations = gateway.metadata.annotations.as_ref();
    let asked = annotations.and_then(|all| all.get(REBALANCE));
    let is_asked = asked.is_some_and(|asked| asked == REQUESTED);
    Policy {
        caps: Policy::caps_of(&valid.config),
        applications: Policy::applications_of(&valid.config),
        scaling: scaling(valid),
        rebalance: match rebalance.mode {
            _ if is_asked => Rebalance::Move,
            RebalanceMode::Steer => Rebalance::Steer,
            RebalanceMode::Move => Rebalance::Move,
            RebalanceMode::Disabled => Rebalance::Off,
        },
        moves_per_second: rebalance.moves_per_second.map(f64::from),
        fence_delay: FENCE_DELAY,
        steering: valid.spec.service.steering != Steering::Disabled,
    }
}

fn scaling(valid: &Validated) -> Scaling {
    let spec = &valid.spec.data_plane.scaling;
    let has_redis = valid.config.redis.is_some();
    let bounded = |asked| u32::try_from(scaling::bounded(asked, has_redis).0).unwrap_or(0);
    // Above its limit a pod takes nobody, whatever it could carry.
    let limit = valid.config.relay.limits.connections;
    let limit = limit.map_or(u64::MAX, |limit| limit as u64);
    Scaling {
        mode: match spec.mode {
            gateway::ScalingMode::Managed => ScalingMode::Managed,
            gateway::ScalingMode::External | gateway::ScalingMode::Fixed => {
                ScalingMode::Given(bounded(spec.replicas))
            }
        },
        min: bounded(spec.min()),
        max: match spec.mode {
            gateway::ScalingMode::Managed => bounded(spec.max()),
            // As data planes reckon it, from their configuration.
            gateway::ScalingMode::External | gateway::ScalingMode::Fixed => {
                valid.config.data_planes_max
            }
        },
        connections_per_replica: spec.connections_per_replica().min(limit),
        connections_target: spec.target_connections(),
        cpu_target: spec.target_cpu(),
        queue_delay_target: spec.target_queue_delay(),
        scale_down_window: spec.scale_down_window(),
        paused: valid.spec.operation.scaling == ScalingOperation::Paused,
    }
}
