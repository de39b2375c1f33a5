//! The stores of processes that share their state: Redis, or a Redis Cluster.
//!
//! `cluster` carries calls to the right server, whatever happens to the servers; `link` is the only file that knows the
//! client library, `lua/` holds what must happen atomically. Contracts are built on these: nothing else in the data plane
//! knows that it is Redis.

pub mod broker;
mod client_info;
pub mod cluster;
pub mod lanes;
pub mod limits;
pub mod link;
pub mod metrics;
mod node;
pub mod peers;
pub mod presence;
pub mod pubsub;
pub mod queue;
pub mod reply;
pub mod script;
pub mod settings;
pub mod slots;
#[cfg(test)]
mod tests;
pub mod topology;
