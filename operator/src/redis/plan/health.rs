//! Whether all is in order, and what is told about it.

use super::super::observe::{Answer, NodeView};
use super::super::topology::{Shape, Shard, is_in_sync};
use super::{Hold, HoldReason, Planner};

/// Names in a message; a cluster has nine pods at most.
const NAMES_MAX: usize = 9;

/// For the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Every pod is where it should be, in sync, and owns what it should own.
    pub is_healthy: bool,
    pub shards: Vec<ShardSummary>,
    /// Whose owner serves them; all 16,384, also without a cluster.
    pub slots_covered: u16,
    /// Pods that are made from the wanted revision, of all there should be.
    pub pods_updated: u32,
    pub pods_wanted: u32,
    /// What the servers say they are; differs during a rollout.
    pub versions: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardSummary {
    /// The pod.
    pub primary: Option<String>,
    pub replicas_in_sync: u32,
}

impl Summary {
    #[must_use]
    pub fn is_updated(&self) -> bool {
        self.pods_updated >= self.pods_wanted
    }
}

impl Planner<'_> {
    pub(super) fn summary(&self, is_healthy: bool) -> Summary {
        let topology = &self.topology;
        let shards = topology.shards.iter().map(|shard| match self.wanted.shape {
            Shape::Standalone => ShardSummary {
                primary: topology
                    .views()
                    .next()
                    .map(|(index, _)| self.name(index).to_owned()),
                replicas_in_sync: 0,
            },
            Shape::Cluster { .. } => self.shard_summary(shard),
        });
        let pods = topology.pods.iter();
        let updated = pods.filter(|seen| !seen.pod.is_outdated && !seen.pod.is_deleting);
        let mut versions: Vec<String> = topology
            .views()
            .map(|(_, view)| view.version.clone())
            .collect();
        versions.sort();
        versions.dedup();
        Summary {
            is_healthy,
            shards: shards.collect(),
            slots_covered: match self.wanted.shape {
                Shape::Standalone if topology.views().next().is_some() => {
                    super::super::nodes::SLOTS
                }
                Shape::Standalone => 0,
                Shape::Cluster { .. } => topology.slots_covered(),
            },
            pods_updated: u32::try_from(updated.count()).unwrap_or(u32::MAX),
            pods_wanted: self.wanted.shape.shards() * self.wanted.shape.pods(),
            versions,
        }
    }

    fn shard_summary(&self, shard: &Shard) -> ShardSummary {
        let primary = self.topology.primary(shard);
        let in_sync = primary.map_or(0, |(_, view)| self.topology.in_sync(view).len());
        ShardSummary {
            primary: primary.map(|(index, _)| self.name(index).to_owned()),
            replicas_in_sync: u32::try_from(in_sync).unwrap_or(u32::MAX),
        }
    }

    /// What is not as it should be; nothing is rolled meanwhile.
    pub(super) fn trouble(&self) -> Option<Hold> {
        let waits = |reason, message| Some(Hold { reason, message });
        let pods = self.topology.pods;
        let is_away = |seen: &&super::super::observe::Seen| {
            seen.view().is_none() || seen.pod.is_deleting || !seen.pod.is_ready
        };
        if !self.topology.is_complete || pods.iter().any(|seen| is_away(&seen)) {
            return waits(HoldReason::WaitingForPods, self.who_is_away());
        }
        if self.wanted.shape == Shape::Standalone {
            return None;
        }
        for shard in &self.topology.shards {
            let primary = self.topology.primary(shard);
            let Some((owner, primary)) = primary.filter(|_| shard.unclaimed.is_empty()) else {
                let message = format!("not all slots of shard {} have an owner", shard.index);
                return waits(HoldReason::WaitingForFailover, message);
            };
            for (index, seen) in self.topology.of_shard(shard.index) {
                let Some(view) = seen.view().filter(|_| index != owner) else {
                    continue;
                };
                let follows = view.primary() == Some(&primary.id) && is_in_sync(view, primary);
                if !follows || view.is_sealed || primary.is_sealed {
                    let message =
                        format!("{} is not in sync with its primary yet", self.name(index));
                    return waits(HoldReason::WaitingForSync, message);
                }
            }
        }
        let mut views = self.topology.views();
        let (index, _) = views.find(|(_, view)| !view.is_state_ok || !self.agrees(view))?;
        let message = format!("{} does not reach all others yet", self.name(index));
        waits(HoldReason::WaitingForSync, message)
    }

    /// It knows all others and finds nothing wrong with any.
    fn agrees(&self, view: &NodeView) -> bool {
        let fine = |id| {
            let line = view.line(id).filter(|line| !line.flags.handshake);
            line.is_some_and(|line| {
                !line.flags.failed && !line.flags.suspected && !line.flags.no_address
            })
        };
        self.topology.by_id.keys().all(|id| fine(id))
    }

    pub(super) fn who_is_away(&self) -> String {
        let mut parts = Vec::new();
        for seen in self.topology.pods {
            let name = &seen.pod.name;
            match &seen.answer {
                Answer::Down(why) => parts.push(format!("{name}: {why}")),
                Answer::Loading => parts.push(format!("{name} loads its data")),
                Answer::Up(_) if seen.pod.is_deleting => {
                    parts.push(format!("{name} is being deleted"))
                }
                Answer::Up(_) if !seen.pod.is_ready => parts.push(format!("{name} is not ready")),
                Answer::Up(_) => {}
            }
        }
        let wanted = usize::try_from(self.wanted.shape.shards() * self.wanted.shape.pods());
        let missing = wanted
            .unwrap_or_default()
            .saturating_sub(self.topology.pods.len());
        if missing > 0 {
            parts.push(format!("{missing} pods do not exist yet"));
        }
        parts.truncate(NAMES_MAX);
        format!("not all pods are there ({})", parts.join("; "))
    }
}
