//! Primaries on different nodes: a node that takes two of three with it takes the majority, without which the others elect
//! no successors.
//!
//! Only when all is in order and nothing else is to be done, one planned failover at a time, and only where it makes two
//! nodes more even than they were, so that it comes to an end.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::observe::NodeView;
use super::super::topology::PodIndex;
use super::{Planner, Step};

/// Nodes that have just come back get their primaries back only after they have stayed for a while.
const SETTLED: Duration = Duration::from_secs(20);

impl<'a> Planner<'a> {
    pub(super) fn spread(&mut self) {
        let in_order = self.steps.is_empty() && self.holds.is_empty() && self.trouble().is_none();
        if !in_order {
            return;
        }
        let Some((index, view)) = self.evener() else {
            return;
        };
        self.is_uneven = true;
        let fact = format!("{} would be more even", self.name(index));
        if self.memory.lasting(fact) >= SETTLED
            && let Some(target) = self.target(index, view)
        {
            self.step(Step::HandOver(target));
        }
    }

    /// A replica in sync whose node has at least two primaries less than the node of its own primary.
    fn evener(&self) -> Option<(PodIndex, &'a NodeView)> {
        let mut primaries: BTreeMap<&str, usize> = BTreeMap::new();
        for shard in &self.topology.shards {
            let (index, _) = self.topology.primary(shard)?;
            *primaries.entry(self.node(index)?).or_default() += 1;
        }
        let count = |node: &str| primaries.get(node).copied().unwrap_or(0);
        let mut best = None;
        for shard in &self.topology.shards {
            let (owner, primary) = self.topology.primary(shard)?;
            let there = count(self.node(owner)?);
            for (index, view) in self.topology.in_sync(primary) {
                let Some(here) = self.node(index).map(count) else {
                    continue;
                };
                let pod = &self.topology.pods[index].pod;
                let gain = there.saturating_sub(here);
                if gain >= 2 && !pod.is_deleting && best.is_none_or(|(most, _)| gain > most) {
                    best = Some((gain, (index, view)));
                }
            }
        }
        best.map(|(_, replica)| replica)
    }

    fn node(&self, index: PodIndex) -> Option<&'a str> {
        self.topology.pods[index].pod.node.as_deref()
    }
}
