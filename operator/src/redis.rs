//! Managed Redis: one StatefulSet per shard, looked after by a planner.
//!
//! Each pass is `observe` (what the pods and their servers say), `plan` (pure: what is to be done next, or why nothing
//! may be done) and `execute` (carries it out). Nothing is remembered that the next pass could not find out again: a
//! pass may be cut off anywhere and another process may make the next one. `config` says what the pods run.
//!
//! Two rules keep data from being copied over by emptiness. A server's identity (`nodes.conf`) never outlives its
//! data, so that a primary that lost its data comes back as a stranger; and replicas follow addresses, not
//! identities, so a server without data is *sealed*, which is to let nobody replicate from it, until it has been
//! given its place (`Step::Unseal`). The password of replication differs from shard to shard for the same reason:
//! addresses wander between pods.
//!
//! Never decides by ordinals who is primary, never flushes anything, and holds rather than guesses.

pub mod config;
pub mod execute;
mod info;
mod link;
mod nodes;
mod observe;
pub mod plan;
mod probe;
mod topology;

pub use execute::{Executed, Failure, Pods, execute};
pub use link::{Connector, LinkError};
pub use nodes::{Flags, Line, NodeId, SLOTS};
pub use observe::{Answer, Attached, Follow, NodeView, Observation, Pod, Role, Seen, observe};
pub use plan::{Decision, Hold, HoldReason, Memory, Step, Target, plan};
pub use probe::{client_config, probe};
pub use topology::{Shape, Wanted};

#[cfg(test)]
mod tests;
