//! Decides for the data planes of one gateway: who takes new connections, who moves or drains, what share of each limit a
//! pod may use, how many pods there should be. Knows neither Kubernetes nor Redis.

mod facts;
mod plan;
mod policy;

pub use facts::{PodFacts, PodName};
pub use plan::{PlanSummary, PodPlan, PodState, ScaleDecision, ScaleReason};
pub use policy::{Policy, Rebalance, Scaling, ScalingMode};
