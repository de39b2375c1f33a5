//! Decides for the data planes of one gateway: who takes new connections, who moves or drains, what share of each limit a
//! pod may use, how many pods there should be. Knows neither Kubernetes nor Redis.

mod facts;
mod fleet;
pub mod grpc;
mod limits;
pub mod monitor;
mod plan;
mod planner;
mod policy;
mod view;

pub use facts::{Facts, PodFacts, PodName};
pub use fleet::Fleet;
pub use limits::{LEASE, TICK};
pub use plan::{PlanSummary, PodPlan, PodState, ScaleDecision, ScaleLimit, ScaleReason};
pub use planner::{Planner, Tick};
pub use policy::{Policy, Rebalance, Scaling, ScalingMode};
pub use sluice_proto::fleet::CapKey;
