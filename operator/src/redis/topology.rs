//! From what was seen to what is true: who owns which slots, who is gone, who can be counted on.
//!
//! Every server's table is one opinion and may be old. A claim to a slot carries the claimant's configuration epoch,
//! which every change of owner raises, so of several claims the newest is true. Pure; decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::nodes::{Line, NodeId, SLOTS};
use super::observe::{Answer, NodeView, Observation, Seen};

/// A replica that is behind by less is in sync: about what one burst of writes leaves under way.
pub(super) const LAG_BYTES_MAX: u64 = 1024 * 1024;

/// What the user wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub shape: Shape,
    /// Data is on volumes that outlive pods.
    pub is_persistent: bool,
    /// The user takes the loss of what no server has any more, rather than standing still.
    pub may_lose_data: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Standalone,
    Cluster { shards: u32, replicas: u32 },
}

impl Shape {
    #[must_use]
    pub fn shards(self) -> u32 {
        match self {
            Self::Standalone => 1,
            Self::Cluster { shards, .. } => shards,
        }
    }

    /// Pods of each shard.
    #[must_use]
    pub fn pods(self) -> u32 {
        match self {
            Self::Standalone => 1,
            Self::Cluster { replicas, .. } => replicas.saturating_add(1),
        }
    }

    /// The part of the slots that is always this shard's.
    #[must_use]
    pub fn range(self, shard: u32) -> (u16, u16) {
        let count = u64::from(self.shards().max(1));
        let bound = |n: u64| u16::try_from(n * u64::from(SLOTS) / count).unwrap_or(SLOTS);
        let (first, next) = (bound(u64::from(shard)), bound(u64::from(shard) + 1));
        (first, next.saturating_sub(1).max(first))
    }
}

/// Index into the observed pods.
pub(super) type PodIndex = usize;

pub(super) struct Topology<'a> {
    pub(super) pods: &'a [Seen],
    pub(super) shards: Vec<Shard>,
    /// Servers that answer.
    pub(super) by_id: BTreeMap<&'a NodeId, PodIndex>,
    /// The same name twice: somebody copied a volume.
    pub(super) doubles: Vec<PodIndex>,
    /// Every wanted pod is there and every server answers, so that who is not among them is nowhere.
    pub(super) is_complete: bool,
}

/// One part of the slots and who claims it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shard {
    pub(super) index: u32,
    pub(super) owners: BTreeMap<NodeId, Vec<(u16, u16)>>,
    pub(super) unclaimed: Vec<(u16, u16)>,
}

impl Shard {
    /// The only claimant.
    pub(super) fn owner(&self) -> Option<&NodeId> {
        let mut owners = self.owners.keys();
        owners.next().filter(|_| owners.next().is_none())
    }
}

impl<'a> Topology<'a> {
    pub(super) fn read(seen: &'a Observation, shape: Shape) -> Self {
        let pods = &seen.pods[..];
        let mut by_id = BTreeMap::new();
        let mut doubles = Vec::new();
        for (index, view) in views(pods) {
            if by_id.insert(&view.id, index).is_some() {
                doubles.push(index);
            }
        }
        let claims = claims(pods);
        let shards = (0..shape.shards()).map(|index| shard(index, shape.range(index), &claims));
        let answers = |shard, ordinal| {
            let place = |seen: &&Seen| (seen.pod.shard, seen.pod.ordinal) == (shard, ordinal);
            pods.iter()
                .find(place)
                .is_some_and(|seen| seen.view().is_some())
        };
        let mut places =
            (0..shape.shards()).flat_map(|shard| (0..shape.pods()).map(move |o| (shard, o)));
        let is_complete = places.all(|(shard, ordinal)| answers(shard, ordinal))
            && pods.iter().all(|seen| seen.view().is_some());
        Self {
            pods,
            shards: shards.collect(),
            by_id,
            doubles,
            is_complete,
        }
    }

    pub(super) fn views(&self) -> impl Iterator<Item = (PodIndex, &'a NodeView)> + use<'a> {
        views(self.pods)
    }

    pub(super) fn view(&self, id: &NodeId) -> Option<(PodIndex, &'a NodeView)> {
        let index = *self.by_id.get(id)?;
        Some((index, self.pods[index].view()?))
    }

    pub(super) fn of_shard(
        &self,
        shard: u32,
    ) -> impl Iterator<Item = (PodIndex, &'a Seen)> + use<'a> {
        let pods = self.pods.iter().enumerate();
        pods.filter(move |(_, seen)| seen.pod.shard == shard)
    }

    /// The server that owns the whole shard, if it answers and is one of the shard's own pods.
    pub(super) fn primary(&self, shard: &Shard) -> Option<(PodIndex, &'a NodeView)> {
        let (index, view) = self.view(shard.owner()?)?;
        (self.pods[index].pod.shard == shard.index).then_some((index, view))
    }

    /// Servers that follow this one, whether it lives or not.
    pub(super) fn followers<'b>(
        &self,
        id: &'b NodeId,
    ) -> impl Iterator<Item = (PodIndex, &'a NodeView)> + use<'a, 'b> {
        self.views()
            .filter(move |(_, view)| view.primary() == Some(id))
    }

    /// Followers that could take over now without loss.
    pub(super) fn in_sync(&self, primary: &'a NodeView) -> Vec<(PodIndex, &'a NodeView)> {
        let followers = self.followers(&primary.id);
        followers
            .filter(|(_, view)| is_in_sync(view, primary))
            .collect()
    }

    /// All that owns slots counts in the cluster's votes.
    pub(super) fn has_majority(&self) -> bool {
        let owners: BTreeSet<&NodeId> = self.shards.iter().flat_map(|s| s.owners.keys()).collect();
        let alive = owners.iter().filter(|id| self.by_id.contains_key(**id));
        alive.count() * 2 > owners.len()
    }

    /// Whether it is connected to most of the primaries, itself included.
    fn hears_most(&self, view: &NodeView) -> bool {
        let owners: BTreeSet<&NodeId> = self.shards.iter().flat_map(|s| s.owners.keys()).collect();
        let hears = |id: &&&NodeId| {
            let linked = view.line(id).is_some_and(|line| line.linked);
            ***id == view.id || linked
        };
        owners.iter().filter(hears).count() * 2 > owners.len()
    }

    /// The lines of all tables that are about this server.
    pub(super) fn lines<'b>(
        &self,
        id: &'b NodeId,
    ) -> impl Iterator<Item = (PodIndex, &'a Line)> + use<'a, 'b> {
        let views = self.views();
        views.filter_map(move |(index, view)| Some((index, view.line(id)?)))
    }

    /// Whether what had this name is certainly no more: the pod that it was in has another name now, or all pods
    /// have been asked and none has it.
    pub(super) fn is_gone(&self, id: &NodeId) -> bool {
        if self.by_id.contains_key(id) {
            return false;
        }
        self.is_complete
            || self
                .last_pod(id)
                .is_some_and(|pod| self.pods[pod].view().is_some())
    }

    /// The pod that bore this name, as far as anyone remembers.
    pub(super) fn last_pod(&self, id: &NodeId) -> Option<PodIndex> {
        let mut hosts = self
            .lines(id)
            .filter_map(|(_, line)| line.hostname.as_deref());
        let name = hosts.next()?.split('.').next()?;
        self.pods.iter().position(|seen| seen.pod.name == name)
    }

    /// Names in tables that no server answers to.
    pub(super) fn absent(&self) -> BTreeSet<&'a NodeId> {
        let lines = self.views().flat_map(|(_, view)| &view.table);
        let names = lines
            .filter(|line| !line.flags.handshake)
            .map(|line| &line.id);
        names.filter(|id| !self.by_id.contains_key(id)).collect()
    }

    /// Those whose owner serves them. One that has just started, or hears too few others, refuses all that it is asked;
    /// one that was started and finds nobody says that all is well until it gives up.
    pub(super) fn slots_covered(&self) -> u16 {
        let serves = |id: &NodeId| {
            let view = self.by_id.get(id).and_then(|pod| self.pods[*pod].view());
            view.is_some_and(|view| view.is_state_ok && self.hears_most(view))
        };
        let live = |shard: &Shard| -> u16 {
            let owners = shard.owners.iter().filter(|(id, _)| serves(id));
            owners
                .flat_map(|(_, ranges)| ranges)
                .map(|(first, last)| last - first + 1)
                .sum()
        };
        self.shards.iter().map(live).sum()
    }
}

/// Whether it is a primary nobody can have stored anything in: no slots, no keys.
pub(super) fn is_blank(view: &NodeView) -> bool {
    let slots = view.own().is_some_and(|line| !line.slots.is_empty());
    view.follow().is_none() && !slots && view.keys == 0
}

/// It has been in sync at least once, or holds what it had when it stopped.
pub(super) fn has_data(view: &NodeView) -> bool {
    // A replica that never was in sync says 0 or 1.
    view.keys > 0 || view.offset > 1
}

pub(super) fn is_in_sync(view: &NodeView, primary: &NodeView) -> bool {
    let linked = view.follow().is_some_and(|f| f.is_link_up && !f.is_syncing);
    linked && primary.offset.saturating_sub(view.offset) < LAG_BYTES_MAX
}

/// Waits to load its data, which may take long; not to be mistaken for one that is dead.
pub(super) fn is_loading(seen: &Seen) -> bool {
    matches!(seen.answer, Answer::Loading)
}

fn views(pods: &[Seen]) -> impl Iterator<Item = (PodIndex, &NodeView)> {
    let pods = pods.iter().enumerate();
    pods.filter_map(|(index, seen)| Some((index, seen.view()?)))
}

/// Per slot the newest claim: epoch, then who says it of itself.
fn claims(pods: &[Seen]) -> Vec<Option<Claim<'_>>> {
    // Most tables agree, so there are few different ones.
    let mut told: BTreeMap<Told<'_>, (u64, bool)> = BTreeMap::new();
    for line in views(pods).flat_map(|(_, view)| &view.table) {
        let newest = told.entry((&line.id, &line.slots)).or_default();
        *newest = (*newest).max((line.epoch, line.flags.myself));
    }
    let mut claims: Vec<Option<Claim<'_>>> = vec![None; usize::from(SLOTS)];
    for ((id, slots), (epoch, is_own)) in told {
        let claim = Some((epoch, is_own, id));
        for (first, last) in slots {
            for known in &mut claims[usize::from(*first)..=usize::from(*last)] {
                if claim > *known {
                    *known = claim;
                }
            }
        }
    }
    claims
}

/// A claimant and what it claims.
type Told<'a> = (&'a NodeId, &'a [(u16, u16)]);

/// Epoch, whether it is the claimant's own word, claimant.
type Claim<'a> = (u64, bool, &'a NodeId);

fn shard(index: u32, range: (u16, u16), claims: &[Option<Claim<'_>>]) -> Shard {
    let mut owners: BTreeMap<NodeId, Vec<(u16, u16)>> = BTreeMap::new();
    let mut unclaimed = Vec::new();
    for slot in range.0..=range.1 {
        match claims[usize::from(slot)] {
            Some((_, _, id)) => match owners.get_mut(id) {
                Some(ranges) => extend(ranges, slot),
                None => drop(owners.insert(id.clone(), vec![(slot, slot)])),
            },
            None => extend(&mut unclaimed, slot),
        }
    }
    Shard {
        index,
        owners,
        unclaimed,
    }
}

fn extend(ranges: &mut Vec<(u16, u16)>, slot: u16) {
    match ranges.last_mut() {
        Some((_, last)) if *last + 1 == slot => *last = slot,
        _ => ranges.push((slot, slot)),
    }
}
