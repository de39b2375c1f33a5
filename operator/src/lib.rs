//! Makes Kubernetes look like what users wrote: Gateways become pods, Services and endpoints, and say truly how they are.
//!
//! `world` shows what there is, `queue` says what to look at, `gateway` looks at one Gateway in five steps, `cluster`
//! writes, and only while `leader` permits it. `fleet` has the managers, which data planes report to,
//! and `monitor` shows them to people. Everything that decides is a pure function; `app` puts it together.

pub mod admin;
pub mod app;
pub mod application;
pub mod args;
pub mod cluster;
pub mod digest;
pub mod events;
pub mod external;
pub mod fleet;
pub mod gateway;
pub mod kinds;
pub mod leader;
pub mod limits;
pub mod managed;
pub mod metrics;
pub mod monitor;
pub mod object;
pub mod packed;
pub mod pods;
pub mod queue;
pub mod redis;
pub mod shelf;
pub mod telemetry;
pub mod trial;
pub mod web;
pub mod work;
pub mod world;

#[cfg(test)]
mod fixtures;
