//! What a Gateway asks of its manager.

use std::time::Duration;

use kube::api::DynamicObject;
use sluice_crds::gateway::{RebalanceMode, Steering};
use sluice_manager::{Policy, Rebalance, Scaling, ScalingMode};

use crate::gateway::build::Validated;
use crate::pods::REQUESTED;

/// `kubectl sluice rebalance` asks for moves by it, where they are not made all the time.
pub(super) const REBALANCE: &str = "sluice.dev/rebalance";

/// Until what carries new connections has learnt of an endpoint's change.
const FENCE_DELAY: Duration = Duration::from_secs(15);
/// What a pod is meant to carry.
const CONNECTIONS_PER_REPLICA: u64 = 20_000;

pub fn policy(valid: &Validated, gateway: &DynamicObject) -> Policy {
    let rebalance = &valid.spec.data_plane.rebalance;
    let annotations = gateway.metadata.annotations.as_ref();
    let asked = annotations.and_then(|all| all.get(REBALANCE));
    let is_asked = asked.is_some_and(|asked| asked == REQUESTED);
    Policy {
        caps: Policy::caps_of(&valid.config),
        scaling: Scaling {
            mode: ScalingMode::Fixed,
            min: 0,
            // As data planes reckon it, from their configuration.
            max: valid.config.data_planes_max,
            connections_per_replica: CONNECTIONS_PER_REPLICA,
            connections_target: 0.7,
            cpu_target: 0.6,
            queue_delay_target: Duration::from_millis(250),
            scale_down_window: Duration::from_secs(900),
            paused: false,
        },
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
