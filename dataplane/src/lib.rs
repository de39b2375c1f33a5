//! The data plane: one process of the fleet, serving clients.
//!
//! `app` is the composition root; `relay` holds long-lived client connections; `store` has the contracts for
//! their shared state. Nothing here calls Kubernetes.

pub mod auth;
pub mod relay;
pub mod store;
pub mod tls;
