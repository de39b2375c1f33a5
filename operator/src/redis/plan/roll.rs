//! Pods made from an outdated revision, and pods too many: one action at a time, and only when all is in order.
//!
//! Replicas go first. A primary never goes: it hands over to a replica in sync, and goes as a replica then; only
//! where the user has no replicas a primary goes itself, if its data is on a volume. A pod that is outdated *and*
//! does not come up is deleted whatever else is wrong, or a bad image could not be taken back.

use std::cmp::Reverse;
use std::time::Duration;

use super::super::observe::{NodeView, Pod};
use super::super::topology::{PodIndex, Shape, Shard};
use super::{HoldReason, Planner, Step};

/// Longer than a start takes, loading not counted: then it answers that it loads.
const BROKEN: Duration = Duration::from_secs(60);

impl<'a> Planner<'a> {
    pub(super) fn roll(&mut self) {
        if self.delete_broken()
            || !self.steps.is_empty()
            || !self.holds.is_empty()
            || self.trouble().is_some()
        {
            return;
        }
        if self.wanted.shape == Shape::Standalone {
            self.roll_standalone();
            return;
        }
        for shard in self.topology.shards.clone() {
            let Some((owner, primary)) = self.topology.primary(&shard) else {
                return;
            };
            if self.roll_shard(&shard, owner, primary) {
                return;
            }
        }
    }

    /// Whether something of this shard has to be done before the next one's turn.
    fn roll_shard(&mut self, shard: &Shard, owner: PodIndex, primary: &NodeView) -> bool {
        let pods: Vec<_> = self.topology.of_shard(shard.index).collect();
        let outdated = pods
            .iter()
            .filter(|(index, seen)| *index != owner && seen.pod.is_outdated);
        let replica = outdated.max_by_key(|(_, seen)| seen.pod.ordinal);
        if let Some((_, seen)) = replica {
            self.delete(&seen.pod);
            return true;
        }
        let pod = &self.topology.pods[owner].pod;
        let is_surplus = pod.ordinal >= self.wanted.shape.pods();
        if !pod.is_outdated && !is_surplus {
            return false;
        }
        let number = shard.index;
        if let Some(successor) = self.heir(primary) {
            let (index, view) = successor;
            if let Some(target) = self.target(index, view) {
                self.step(Step::HandOver(target));
            }
        } else if pods.len() > 1 || is_surplus {
            let message = format!(
                "{} has to go, but no replica of shard {number} is in sync",
                pod.name
            );
            self.hold(HoldReason::NoReplicaInSync, message);
        } else {
            self.delete_holder(pod, primary);
        }
        true
    }

    /// The replica to hand over to: one that stays, with the most data.
    fn heir(&self, primary: &'a NodeView) -> Option<(PodIndex, &'a NodeView)> {
        let in_sync = self.topology.in_sync(primary).into_iter();
        let stays = in_sync.filter(|(index, _)| {
            let pod = &self.topology.pods[*index].pod;
            pod.ordinal < self.wanted.shape.pods() && !pod.is_deleting && !pod.is_outdated
        });
        stays.max_by_key(|(index, view)| (view.offset, Reverse(*index)))
    }

    /// The only server with this data.
    fn delete_holder(&mut self, pod: &'a Pod, view: &NodeView) {
        let keeps = self.wanted.is_persistent && view.is_persisting;
        if keeps || self.wanted.may_lose_data {
            self.delete(pod);
        } else {
            let message = format!(
                "{} is outdated, has no replica and keeps its data in memory only; add replicas or persistence, \
                 or allow data loss",
                pod.name
            );
            self.hold(HoldReason::DataLossNotAllowed, message);
        }
    }

    fn roll_standalone(&mut self) {
        let pods = self.topology.pods.iter();
        let outdated: Vec<_> = pods.filter(|seen| seen.pod.is_outdated).collect();
        for seen in outdated {
            if let Some(view) = seen.view() {
                self.delete_holder(&seen.pod, view);
            }
        }
    }

    /// Whether one is being deleted.
    fn delete_broken(&mut self) -> bool {
        let pods = self.topology.pods;
        let broken = |seen: &&super::super::observe::Seen| {
            let is_down = matches!(seen.answer, super::super::observe::Answer::Down(_));
            seen.pod.is_outdated && is_down && !seen.pod.is_ready && !seen.pod.is_deleting
        };
        let broken: Vec<&Pod> = pods.iter().filter(broken).map(|seen| &seen.pod).collect();
        let mut ripe = Vec::new();
        for pod in broken {
            if self.memory.lasting(format!("{} broken", pod.uid)) >= BROKEN {
                ripe.push(pod);
            }
        }
        // Replacements come one after the other as well.
        let is_busy = pods.iter().any(|seen| seen.pod.is_deleting);
        match ripe.first().filter(|_| !is_busy) {
            Some(pod) => {
                self.delete(pod);
                true
            }
            None => false,
        }
    }

    fn delete(&mut self, pod: &Pod) {
        self.step(Step::DeletePod {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
        });
    }

    /// Shrinking takes the highest pods away: not before none of them is a primary, or may be one.
    pub(super) fn pods_allowed(&self) -> Vec<u32> {
        let wanted = self.wanted.shape.pods();
        let shards = self.topology.shards.iter().map(|shard| {
            let pods = self
                .topology
                .of_shard(shard.index)
                .map(|(_, seen)| &seen.pod);
            let existing = pods.map(|pod| pod.ordinal + 1).max().unwrap_or(0);
            let primary = self.topology.primary(shard);
            let stays =
                primary.is_some_and(|(index, _)| self.topology.pods[index].pod.ordinal < wanted);
            if existing <= wanted || stays {
                wanted
            } else {
                existing
            }
        });
        shards.collect()
    }
}
