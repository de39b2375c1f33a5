//! Who knows whom: introductions, and names to be forgotten.
//!
//! The servers know each other by address. When one comes back elsewhere it tells the others, if it still finds one;
//! when all do at once nobody finds anybody, and each has to be introduced again (`CLUSTER MEET`, which corrects
//! addresses of known names too). Never introduces a server whose data the cluster does not know of: it would be told
//! to drop it.

use std::net::IpAddr;
use std::time::Duration;

use super::super::nodes::Line;
use super::super::observe::NodeView;
use super::super::topology::{PodIndex, is_blank};
use super::{HoldReason, Planner, Step};

/// What one server knows, gossip tells all others within this time.
const GOSSIP: Duration = Duration::from_secs(10);

impl<'a> Planner<'a> {
    pub(super) fn introduce(&mut self) {
        if self.is_unmade() {
            if !self.topology.is_complete {
                self.hold(HoldReason::WaitingForPods, self.who_is_away());
                return;
            }
            self.set_epochs();
        }
        let Some((hub, at)) = self.hub() else { return };
        let views: Vec<(PodIndex, &NodeView)> = self.topology.views().collect();
        for &(index, view) in &views {
            for &(peer, other) in views.iter().filter(|(peer, _)| *peer != index) {
                let line = view.line(&other.id).filter(|line| !line.flags.handshake);
                let is_due = match (line, self.topology.pods[peer].pod.ip) {
                    (Some(line), Some(ip)) => is_moved(line, ip),
                    (Some(_), None) => false,
                    (None, _) if index == hub => self.may_join(peer, other),
                    (None, _) => {
                        let known = |id| at.line(id).is_some();
                        known(&other.id) && known(&view.id) && {
                            let fact = format!("{} does not know {}", view.id, other.id);
                            self.memory.lasting(fact) >= GOSSIP
                        }
                    }
                };
                if is_due
                    && let (Some(at), Some(peer)) =
                        (self.target(index, view), self.target(peer, other))
                {
                    self.step(Step::Meet { at, peer });
                }
            }
        }
    }

    /// Names of servers that are certainly no more, on all that know them, so that gossip does not bring them back.
    pub(super) fn forget(&mut self) {
        for id in self.topology.absent() {
            let owns = self
                .topology
                .shards
                .iter()
                .any(|shard| shard.owners.contains_key(id));
            let is_needed =
                (owns && !self.lost.contains(id)) || self.topology.followers(id).next().is_some();
            if is_needed || !self.topology.is_gone(id) {
                continue;
            }
            let views: Vec<_> = self
                .topology
                .views()
                .filter(|(_, view)| view.line(id).is_some())
                .collect();
            for (index, view) in views {
                if let Some(at) = self.target(index, view) {
                    let id = id.clone();
                    self.step(Step::Forget { at, id });
                }
            }
        }
    }

    /// Whom the others are introduced to: a primary, or, before there is one, any server.
    fn hub(&self) -> Option<(PodIndex, &'a NodeView)> {
        let mut primaries = self
            .topology
            .shards
            .iter()
            .filter_map(|shard| self.topology.primary(shard));
        if self.is_unmade() {
            return self.topology.views().find(|(_, view)| is_blank(view));
        }
        primaries.next().or_else(|| self.topology.views().next())
    }

    /// A stranger brings nothing, or what is its own beyond doubt.
    fn may_join(&mut self, index: PodIndex, view: &NodeView) -> bool {
        if is_blank(view) || (view.follow().is_some() && view.keys == 0) {
            return true;
        }
        let shard = self.topology.pods[index].pod.shard;
        let owner = self
            .topology
            .shards
            .iter()
            .find(|s| s.index == shard)
            .and_then(|s| s.owner());
        let is_owner = owner == Some(&view.id) && !self.is_disputed(view);
        if is_owner || (view.follow().is_some() && view.primary() == owner) {
            return true;
        }
        let message = format!(
            "{} holds keys and is not part of the cluster; save or delete its volume",
            self.name(index)
        );
        self.hold(HoldReason::DataPresent, message);
        false
    }

    /// Whether anyone names another owner for a slot that this server claims.
    fn is_disputed(&self, view: &NodeView) -> bool {
        let own = view
            .own()
            .map(|line| line.slots.as_slice())
            .unwrap_or_default();
        let others = self.topology.views().flat_map(|(_, other)| &other.table);
        let mut others = others
            .filter(|line| line.id != view.id)
            .flat_map(|line| &line.slots);
        others.any(|theirs| {
            own.iter()
                .any(|ours| ours.0 <= theirs.1 && theirs.0 <= ours.1)
        })
    }
}

fn is_moved(line: &Line, ip: IpAddr) -> bool {
    let is_cut = !line.linked || line.flags.suspected || line.flags.failed;
    line.flags.no_address || (line.ip != Some(ip) && is_cut)
}
