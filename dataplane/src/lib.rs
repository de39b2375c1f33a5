//! The data plane: one process of the fleet, serving clients.
//!
//! `app` is the composition root; `relay` holds long-lived client connections; `store` has the contracts for
//! their shared state; `fleet` speaks with the manager. Nothing here calls Kubernetes.

pub mod admin;
mod admin_client;
pub mod app;
pub mod args;
pub mod auth;
pub mod check;
pub mod clock;
pub mod config;
pub mod drain;
pub mod fleet;
pub mod ingest;
pub mod limits;
pub mod listener;
pub mod outbound;
pub mod pressure;
pub mod relay;
pub mod requests_cli;
pub mod resources;
pub mod standalone;
pub mod store;
pub mod telemetry;
mod terminal;
pub mod tls;
pub mod top;
