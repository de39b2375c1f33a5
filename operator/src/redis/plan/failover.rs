//! Shards whose primary does not answer.
//!
//! Where a majority of the primaries lives, the servers elect a successor by themselves, and know better than anyone
//! outside whether one is needed. Three cases are left: the majority is gone as well; it was, and by now the replicas
//! find themselves too old; and a primary that came back without its data, as another server: the others may then not
//! notice that the one they knew is no more.
//!
//! Never while anything speaks for the old primary being alive: its kubelet, its replicas, any server that is connected
//! to it. What it may still acknowledge would be lost.

use std::time::Duration;

use super::super::nodes::NodeId;
use super::super::observe::NodeView;
use super::super::topology::{self, PodIndex, Shard, is_loading};
use super::{HoldReason, Planner, Step};

/// The servers' own election first: node timeout, votes, and some time for slow machines.
const ELECTION: Duration = Duration::from_secs(8);
/// A primary that does not answer, of which nobody knows that it is gone, may be about to come back.
const PATIENCE: Duration = Duration::from_secs(30);
/// When its replica has just been started too, everything has been; then it is likely to come back, with its data.
const PATIENCE_AFTER_START: Duration = Duration::from_secs(120);
const JUST_STARTED_S: u64 = 300;
/// How far a replica may have been behind when its primary was last heard of; the servers' own rule at their elections.
const DATA_AGE_S_MAX: u64 = 60;

impl Planner<'_> {
    pub(super) fn replace_primaries(&mut self) {
        for shard in self.topology.shards.clone() {
            let names: Vec<String> = shard.owners.keys().map(ToString::to_string).collect();
            let Some(owner) = shard.owner() else {
                if names.len() > 1 {
                    let message = format!(
                        "the slots of shard {} belong to several servers",
                        shard.index
                    );
                    self.hold(HoldReason::UnexpectedLayout, message);
                }
                continue;
            };
            match self.topology.view(owner) {
                None => self.replace(&shard, owner),
                Some((index, _)) if self.topology.pods[index].pod.shard != shard.index => {
                    let message = format!(
                        "the slots of shard {} belong to {}",
                        shard.index,
                        self.name(index)
                    );
                    self.hold(HoldReason::UnexpectedLayout, message);
                }
                Some(_) => {}
            }
        }
    }

    fn replace(&mut self, shard: &Shard, owner: &NodeId) {
        let is_gone = self.topology.is_gone(owner);
        let down = self
            .memory
            .lasting(format!("{owner} down, gone: {is_gone}"));
        let has_majority = self.topology.has_majority();
        let Some((index, view)) = self.successor(shard, owner, is_gone) else {
            self.without_successor(shard, owner, is_gone, has_majority);
            return;
        };
        let number = shard.index;
        let needed = match (is_gone, has_majority) {
            (true, _) => ELECTION,
            // They refuse replicas that lost the primary long ago, also if nobody could have elected one before.
            (false, true) => PATIENCE,
            (false, false) if view.uptime_s < JUST_STARTED_S => PATIENCE_AFTER_START,
            (false, false) => PATIENCE,
        };
        if let Some(witness) = self.witness(shard, owner).filter(|_| !is_gone) {
            let message = format!(
                "the primary of shard {number} does not answer the operator, but {witness}"
            );
            self.hold(HoldReason::WaitingForFailover, message);
        } else if down < needed {
            let message = format!(
                "the primary of shard {number} is down; a replica takes its place if it stays away"
            );
            let reason =
                [HoldReason::QuorumLost, HoldReason::WaitingForFailover][usize::from(has_majority)];
            self.hold(reason, message);
        } else {
            self.promote(index, view, has_majority);
        }
    }

    fn promote(&mut self, index: PodIndex, view: &NodeView, has_majority: bool) {
        let Some(target) = self.target(index, view) else {
            return;
        };
        // Of several without votes one at a time: with it back, the others may have their majority again.
        let is_first = !self
            .steps
            .iter()
            .any(|step| matches!(step, Step::TakeOver(_)));
        let (name, step) = if has_majority {
            (target.pod.clone(), Step::Force(target))
        } else {
            (target.pod.clone(), Step::TakeOver(target))
        };
        if is_first {
            self.step(step);
        }
        self.hold(
            HoldReason::WaitingForFailover,
            format!("{name} takes the place of its primary"),
        );
    }

    /// The follower with the most data.
    fn successor<'b>(
        &self,
        shard: &Shard,
        owner: &NodeId,
        is_gone: bool,
    ) -> Option<(PodIndex, &'b NodeView)>
    where
        Self: 'b,
    {
        let followers = self.topology.followers(owner);
        let fit = followers.filter(|(index, view)| {
            // Of a primary that is gone any copy is the best there is.
            let is_fresh = is_gone || data_age_s(view, owner) <= DATA_AGE_S_MAX;
            let has_data = topology::has_data(view) || (is_gone && self.may_give_up());
            self.topology.pods[*index].pod.shard == shard.index
                && view.follow().is_some_and(|follow| !follow.is_syncing)
                && is_fresh
                && has_data
        });
        fit.max_by_key(|(index, view)| (view.offset, view.keys, std::cmp::Reverse(*index)))
    }

    /// Who or what says that the primary lives, or that somebody may come who has more data.
    fn witness(&self, shard: &Shard, owner: &NodeId) -> Option<String> {
        let topology = &self.topology;
        if let Some(index) = topology.last_pod(owner)
            && (topology.pods[index].pod.is_ready || is_loading(&topology.pods[index]))
        {
            return Some(format!("{} runs", self.name(index)));
        }
        let linked = |view: &NodeView| view.follow().is_some_and(|follow| follow.is_link_up);
        if let Some((index, _)) = topology.followers(owner).find(|(_, view)| linked(view)) {
            return Some(format!("{} follows it", self.name(index)));
        }
        let mut seen = topology.lines(owner);
        let near = |line: &super::super::nodes::Line| {
            line.linked && !line.flags.suspected && !line.flags.failed && !line.flags.no_address
        };
        if let Some((index, _)) = seen.find(|(_, line)| near(line)) {
            return Some(format!("{} is connected to it", self.name(index)));
        }
        let mut pods = topology.of_shard(shard.index);
        let silent =
            pods.find(|(_, seen)| seen.view().is_none() && (seen.pod.is_ready || is_loading(seen)));
        silent.map(|(index, _)| format!("{} may have more of its data", self.name(index)))
    }

    fn without_successor(
        &mut self,
        shard: &Shard,
        owner: &NodeId,
        is_gone: bool,
        has_majority: bool,
    ) {
        let number = shard.index;
        let pods = self.topology.of_shard(number);
        let there = pods.filter(|(_, seen)| seen.view().is_some()).count();
        let all = self
            .topology
            .of_shard(number)
            .count()
            .max(self.wanted.shape.pods() as usize);
        let is_away = there < all || !is_gone;
        if is_away {
            let reason =
                [HoldReason::QuorumLost, HoldReason::WaitingForPods][usize::from(has_majority)];
            let message = format!(
                "shard {number} has no primary and no replica that could take over; \
                 bring back the pods that hold its data"
            );
            self.hold(reason, message);
            return;
        }
        let mut pods = self.topology.of_shard(number);
        if let Some((index, _)) =
            pods.find(|(_, seen)| seen.view().is_some_and(|view| view.keys > 0))
        {
            let message = format!(
                "shard {number} has lost its primary, and {} holds keys but was none of its replicas; \
                 save or delete its volume",
                self.name(index)
            );
            self.hold(HoldReason::DataPresent, message);
        } else if self.may_give_up() {
            self.lost.insert(owner.clone());
        } else {
            let message = format!(
                "the volumes of all servers of shard {number} are gone, and its data with them; \
                 restore them, or allow data loss to start the shard empty"
            );
            self.hold(HoldReason::DataLost, message);
        }
    }
}

/// How long before the primary fell silent the replica had lost it. Told by one clock, the replica's. One that was
/// started since and never reached its primary may have missed anything.
fn data_age_s(view: &NodeView, owner: &NodeId) -> u64 {
    let heard_ms = view.line(owner).map_or(0, |line| line.pong_ms);
    match view.follow() {
        Some(follow) if follow.is_link_up => 0,
        Some(follow) => follow.link_down_s.map_or(u64::MAX, |down_s| {
            let silent_ms = view.clock_ms.saturating_sub(heard_ms);
            // Never heard of, or not since the start: the link's age is all there is.
            let silent_s = if heard_ms == 0 { 0 } else { silent_ms / 1000 };
            down_s.saturating_sub(silent_s)
        }),
        None => u64::MAX,
    }
}
