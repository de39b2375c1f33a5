//! What is to be done next, or why nothing may be done.
//!
//! Pure, and level-based: it looks at what is, not at what it did. The order of a pass is that of the damage which
//! waiting does: primaries that are missing, servers that lost sight of each other, names of servers that are no more,
//! slots that nobody owns, replicas, and, when all of that is in order, at most one action of a rollout. `Memory` only
//! paces: forgetting it makes things slower or repeats a harmless step, never wrong.

mod failover;
mod health;
mod members;
mod memory;
mod roll;
mod slots;
mod spread;

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub use self::health::{ShardSummary, Summary};
pub use self::memory::Memory;
use super::nodes::NodeId;
use super::observe::{NodeView, Observation};
use super::topology::{PodIndex, Shape, Topology, Wanted};

/// When there is work, or something is awaited.
const AGAIN_BUSY: Duration = Duration::from_secs(2);
/// When all is in order; changes of pods start a pass besides.
const AGAIN_IDLE: Duration = Duration::from_secs(30);

/// A server, so that nothing is done to another one that has its address by now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    pub pod: String,
    pub id: NodeId,
    pub ip: IpAddr,
}

/// One thing to do. Each may be repeated, and may turn out to be done already.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Replicas whose primary is gone: one takes its place, with the votes of the other primaries.
    Force(Target),
    /// The same without votes, when too few primaries live to give them.
    TakeOver(Target),
    /// Distinct epochs from the start spare the servers settling them.
    SetEpoch {
        at: Target,
        epoch: u64,
    },
    Meet {
        at: Target,
        peer: Target,
    },
    Forget {
        at: Target,
        id: NodeId,
    },
    AddSlots {
        at: Target,
        ranges: Vec<(u16, u16)>,
    },
    BumpEpoch(Target),
    /// Others may replicate from it from now on.
    Unseal(Target),
    Replicate {
        at: Target,
        primary: NodeId,
    },
    /// Planned: the primary stops writes until this replica has them all, then hands over.
    HandOver(Target),
    DeletePod {
        name: String,
        uid: String,
    },
}

/// Why nothing, or not everything, is done.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hold {
    pub reason: HoldReason,
    /// What is the matter and what to do about it.
    pub message: String,
}

/// The gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HoldReason {
    DataLost,
    DataPresent,
    DuplicateIdentity,
    UnexpectedLayout,
    QuorumLost,
    NoReplicaInSync,
    DataLossNotAllowed,
    WaitingForFailover,
    WaitingForPods,
    WaitingForSync,
}

impl fmt::Display for HoldReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[derive(Debug, Clone)]
pub struct Decision {
    /// In this order; one that fails does not keep the others from being tried.
    pub steps: Vec<Step>,
    /// The gravest of what stands in the way.
    pub hold: Option<Hold>,
    pub summary: Summary,
    /// How many pods each shard's StatefulSet may have now: more than wanted while one too many holds a primary.
    pub pods: Vec<u32>,
    pub again: Duration,
    pub memory: Memory,
}

/// The next steps. `now` is any clock that does not go back.
#[must_use]
pub fn plan(seen: &Observation, wanted: &Wanted, memory: Memory, now: Instant) -> Decision {
    let mut planner = Planner {
        topology: Topology::read(seen, wanted.shape),
        wanted,
        memory: memory.begin(now),
        steps: Vec::new(),
        holds: Vec::new(),
        lost: BTreeSet::new(),
        is_uneven: false,
    };
    match wanted.shape {
        Shape::Standalone => planner.roll(),
        Shape::Cluster { .. } => planner.plan_cluster(),
    }
    planner.decide()
}

struct Planner<'a> {
    topology: Topology<'a>,
    wanted: &'a Wanted,
    memory: Memory,
    steps: Vec<Step>,
    holds: Vec<Hold>,
    /// Owners that are gone with all their data, which the user takes.
    lost: BTreeSet<NodeId>,
    /// A primary is to move once all has been in order for a while.
    is_uneven: bool,
}

impl<'a> Planner<'a> {
    fn plan_cluster(&mut self) {
        if let Some(index) = self.topology.doubles.first() {
            let pod = &self.topology.pods[*index].pod.name;
            let message = format!(
                "{pod} has the same name within the cluster as another pod: its volume is a copy; delete the copy"
            );
            self.hold(HoldReason::DuplicateIdentity, message);
            return;
        }
        self.replace_primaries();
        self.introduce();
        self.forget();
        self.assign_slots();
        self.place_replicas();
        self.roll();
        self.spread();
    }

    fn decide(mut self) -> Decision {
        let trouble = self.trouble();
        let summary = self.summary(trouble.is_none() && self.holds.is_empty());
        self.holds.extend(trouble);
        let pods = self.pods_allowed();
        let is_idle = self.steps.is_empty()
            && self.holds.is_empty()
            && summary.is_updated()
            && !self.is_uneven;
        Decision {
            steps: self.steps,
            hold: self.holds.into_iter().min(),
            summary,
            pods,
            again: if is_idle { AGAIN_IDLE } else { AGAIN_BUSY },
            memory: self.memory.end(),
        }
    }

    fn hold(&mut self, reason: HoldReason, message: String) {
        self.holds.push(Hold { reason, message });
    }

    /// Unless it was done so recently that its effect may not show yet.
    fn step(&mut self, step: Step) {
        if self.memory.may(&step) {
            self.steps.push(step);
        }
    }

    fn target(&self, index: PodIndex, view: &NodeView) -> Option<Target> {
        let pod = &self.topology.pods[index].pod;
        Some(Target {
            pod: pod.name.clone(),
            id: view.id.clone(),
            ip: pod.ip?,
        })
    }

    fn name(&self, index: PodIndex) -> &'a str {
        &self.topology.pods[index].pod.name
    }

    /// Nobody owns a slot: the cluster was never made, or all of it is lost.
    fn is_unmade(&self) -> bool {
        self.topology
            .shards
            .iter()
            .all(|shard| shard.owners.is_empty())
    }

    /// What no server has any more may be given up.
    fn may_give_up(&self) -> bool {
        self.wanted.may_lose_data || !self.wanted.is_persistent
    }
}
