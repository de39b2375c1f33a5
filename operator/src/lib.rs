//! Makes Kubernetes look like the plan.

pub mod redis;
