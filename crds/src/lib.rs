//! What users write and what it means.
//!
//! `gateway` and `application` hold the Kubernetes types, `manifest` reads them from YAML files, and `resolve` turns
//! them into one [`config::GatewayConfig`], or into the list of everything that is wrong. The rest of Sluice sees only
//! the resolved configuration, never the raw objects.

pub mod application;
pub mod conditions;
pub mod config;
pub mod config_file;
pub mod gateway;
pub mod manifest;
pub mod objects;
pub mod problem;
pub mod resolve;
pub mod yaml;
