//! Slots that nobody owns, and servers without a place.
//!
//! Every shard has its fixed part of the slots. It is given to a pod of the shard when all pods of all shards have
//! been asked, none claims any of it and none of the shard's holds a key; that makes a cluster in the first place,
//! goes on where an operator was cut off in the middle of that, and starts a shard anew whose loss the user has
//! taken.

use std::time::Duration;

use super::super::observe::{NodeView, Seen};
use super::super::topology::{self, PodIndex, Shard, is_blank, is_in_sync};
use super::{HoldReason, Planner, Step};

/// A replica of a primary that was replaced, or that moved, turns to it by itself.
const TURN: Duration = Duration::from_secs(10);

impl<'a> Planner<'a> {
    pub(super) fn set_epochs(&mut self) {
        for shard in self.topology.shards.clone() {
            let Some((index, view)) = self.first_primary(&shard) else {
                continue;
            };
            let is_new = view.table.len() == 1 && view.own().is_some_and(|line| line.epoch == 0);
            if let Some(at) = self.target(index, view).filter(|_| is_new) {
                let epoch = u64::from(shard.index) + 1;
                self.step(Step::SetEpoch { at, epoch });
            }
        }
    }

    pub(super) fn assign_slots(&mut self) {
        if let Some(index) = self.stranger_with_keys() {
            let message = format!(
                "{} holds keys, but nobody owns slots; no cluster is made over data: restore nodes.conf, \
                 or save and delete the volume",
                self.name(index)
            );
            self.hold(HoldReason::DataPresent, message);
            return;
        }
        for shard in self.topology.shards.clone() {
            if shard.unclaimed.is_empty() {
                continue;
            }
            if !self.topology.is_complete {
                self.hold(HoldReason::WaitingForPods, self.who_is_away());
                continue;
            }
            let chosen = if shard.owners.is_empty() {
                self.first_primary(&shard)
            } else {
                self.topology.primary(&shard)
            };
            match chosen {
                Some((index, view)) if self.knows_all(view) => self.give(&shard, index, view),
                Some(_) => {
                    let message = "the servers are getting to know each other".to_owned();
                    self.hold(HoldReason::WaitingForSync, message);
                }
                None if shard.owners.is_empty() => {
                    let message = format!(
                        "nobody owns the slots of shard {}, but its pods are not empty",
                        shard.index
                    );
                    self.hold(HoldReason::DataPresent, message);
                }
                None => {}
            }
        }
    }

    fn give(&mut self, shard: &Shard, index: PodIndex, view: &NodeView) {
        let Some(at) = self.target(index, view) else {
            return;
        };
        self.step(Step::AddSlots {
            at: at.clone(),
            ranges: shard.unclaimed.clone(),
        });
        if view.own().is_some_and(|line| line.epoch == 0) {
            self.step(Step::BumpEpoch(at));
        }
    }

    /// In a cluster that was never made.
    fn stranger_with_keys(&self) -> Option<PodIndex> {
        let mut views = self.topology.views();
        let keys = views
            .find(|(_, view)| view.keys > 0)
            .map(|(index, _)| index);
        keys.filter(|_| self.is_unmade())
    }

    /// Who gets a shard that nobody has: only if none of its pods has, or may have, anything.
    fn first_primary(&self, shard: &Shard) -> Option<(PodIndex, &'a NodeView)> {
        let pods: Vec<(PodIndex, &'a Seen)> = self.topology.of_shard(shard.index).collect();
        let is_empty = |seen: &Seen| {
            seen.view()
                .is_some_and(|v| v.keys == 0 && (is_blank(v) || v.follow().is_some()))
        };
        if !pods.iter().all(|(_, seen)| is_empty(seen)) {
            return None;
        }
        let wanted = self.wanted.shape.pods();
        let fit = pods
            .iter()
            .filter(|(_, seen)| seen.pod.ordinal < wanted && !seen.pod.is_deleting);
        let blank =
            fit.filter_map(|(index, seen)| Some((*index, seen.view().filter(|v| is_blank(v))?)));
        blank.min_by_key(|(index, _)| {
            let pod = &self.topology.pods[*index].pod;
            (pod.is_outdated, pod.ordinal)
        })
    }

    fn knows_all(&self, view: &NodeView) -> bool {
        let known = |id| view.line(id).is_some_and(|line| !line.flags.handshake);
        self.topology.by_id.keys().all(|id| known(id))
    }

    /// Servers that follow nobody, or the wrong one, and the seals of those that have their place.
    pub(super) fn place_replicas(&mut self) {
        for shard in self.topology.shards.clone() {
            let Some((owner, primary)) = self.topology.primary(&shard) else {
                continue;
            };
            if primary.is_sealed {
                self.unseal(owner, primary);
            }
            let pods: Vec<(PodIndex, &'a Seen)> = self.topology.of_shard(shard.index).collect();
            for (index, seen) in pods {
                let wanted = seen.pod.ordinal < self.wanted.shape.pods() && !seen.pod.is_deleting;
                match seen.view().filter(|_| wanted && index != owner) {
                    Some(view) if view.primary() != Some(&primary.id) => {
                        self.place(index, view, primary);
                    }
                    Some(view) if self.seeks_elsewhere(view, owner, primary) => {
                        self.point_to_primary(index, view, primary);
                    }
                    Some(view) if view.is_sealed && is_in_sync(view, primary) => {
                        self.unseal(index, view);
                    }
                    Some(_) | None => {}
                }
            }
        }
    }

    /// It knows where its primary is, and looks for it where it was: a server that learns of an address by gossip does
    /// not tell its own link, and never finds its primary then.
    fn seeks_elsewhere(&self, view: &NodeView, owner: PodIndex, primary: &NodeView) -> bool {
        let address = self.topology.pods[owner].pod.ip;
        let known = view.line(&primary.id).and_then(|line| line.ip);
        let sought = view.follow().filter(|follow| !follow.is_link_up);
        sought.is_some_and(|follow| {
            follow.host.is_some() && follow.host != address && known == address
        })
    }

    fn point_to_primary(&mut self, index: PodIndex, view: &NodeView, primary: &NodeView) {
        let fact = format!("{} seeks {} elsewhere", view.id, primary.id);
        if self.memory.lasting(fact) >= TURN
            && let Some(at) = self.target(index, view)
        {
            let primary = primary.id.clone();
            self.step(Step::Replicate { at, primary });
        }
    }

    fn unseal(&mut self, index: PodIndex, view: &NodeView) {
        if let Some(at) = self.target(index, view) {
            self.step(Step::Unseal(at));
        }
    }

    fn place(&mut self, index: PodIndex, view: &NodeView, primary: &NodeView) {
        let knows = view
            .line(&primary.id)
            .is_some_and(|line| !line.flags.handshake);
        let claims = view.own().is_some_and(|line| !line.slots.is_empty());
        if !knows || claims {
            // It is being introduced, and will hear who has its slots now.
            return;
        }
        let is_follower = view.follow().is_some();
        // The servers' own refusal is the same for a primary with keys. A follower would drop what it has.
        let is_safe =
            view.keys == 0 || (is_follower && topology::has_data(primary) && primary.keys > 0);
        if !is_safe {
            let message = format!(
                "{} holds keys and is no replica of its shard; save or delete its volume",
                self.name(index)
            );
            self.hold(HoldReason::DataPresent, message);
            return;
        }
        if is_follower {
            let fact = format!("{} follows another than {}", view.id, primary.id);
            if self.memory.lasting(fact) < TURN {
                return;
            }
        }
        if let Some(at) = self.target(index, view) {
            let primary = primary.id.clone();
            self.step(Step::Replicate { at, primary });
        }
    }
}
