//! A Redis Cluster in memory, second by second: what the servers do by themselves, as far as the planner has to reckon
//! with it, and what they refuse. Of keys it knows numbers only.
//!
//! It keeps account of what clients were told is safe (`acknowledged`), and notes whatever a step must not do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use crate::redis::*;

pub(super) type Id = u32;
pub(super) type Ip = u32;

const NODE_TIMEOUT: u64 = 5;
/// Of servers with a volume, and of others; a replica that never was in sync is never elected.
const VALIDITY: [u64; 2] = [60, 5000];
const BLACKLIST: u64 = 60;
const START: u64 = 3;
/// Seconds; more would only make sets that are slow to copy.
const WRITE_EVERY: u64 = 3;

/// What one server knows of another.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) ip: Ip,
    pub(super) host: usize,
    pub(super) epoch: u64,
    pub(super) claims: Option<u32>,
    pub(super) primary: Option<Id>,
    pub(super) no_address: bool,
    pub(super) unreached_since: Option<u64>,
    pub(super) failed: bool,
    pub(super) heard: u64,
}

#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) id: Id,
    pub(super) epoch: u64,
    pub(super) claims: Option<u32>,
    pub(super) primary: Option<Id>,
    pub(super) data: BTreeSet<u32>,
    pub(super) offset: u64,
    pub(super) is_sealed: bool,
    pub(super) table: BTreeMap<Id, Entry>,
    pub(super) banned: BTreeMap<Id, u64>,
    pub(super) is_linked: bool,
    /// `None`: never was since the start.
    pub(super) link_lost: Option<u64>,
    pub(super) syncing_until: Option<u64>,
    pub(super) started: u64,
    pub(super) failed_seen: Option<u64>,
}

/// A pod, its process and its volume.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) shard: u32,
    pub(super) ordinal: u32,
    pub(super) uid: u32,
    pub(super) ip: Ip,
    pub(super) revision: u32,
    pub(super) server: Option<Server>,
    pub(super) volume: Option<Server>,
    pub(super) up_at: Option<u64>,
    pub(super) deleted_at: Option<u64>,
    /// Until when neither servers nor the operator nor clients reach it; the kubelet does.
    pub(super) isolated_until: u64,
    pub(super) hidden_until: u64,
    pub(super) new_ip: bool,
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) wanted: Wanted,
    pub(super) places: Vec<Place>,
    pub(super) revision: u32,
    pub(super) acknowledged: BTreeMap<u32, BTreeSet<u32>>,
    pub(super) sync_s: u64,
    pub(super) wrongs: Vec<String>,
    next: u32,
}

impl World {
    pub(super) fn new(wanted: Wanted) -> Self {
        let mut world = Self {
            now: 1000,
            places: Vec::new(),
            revision: 0,
            acknowledged: BTreeMap::new(),
            sync_s: 2,
            wrongs: Vec::new(),
            next: 100,
            wanted,
        };
        let shape = world.wanted.shape;
        for (shard, ordinal) in
            (0..shape.shards()).flat_map(|s| (0..shape.pods()).map(move |o| (s, o)))
        {
            let (uid, ip) = (world.fresh(), world.fresh());
            world.places.push(Place {
                shard,
                ordinal,
                uid,
                ip,
                revision: 0,
                server: None,
                volume: None,
                up_at: Some(world.now + u64::from(ordinal)),
                deleted_at: None,
                isolated_until: 0,
                hidden_until: 0,
                new_ip: false,
            });
        }
        world
    }

    fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    pub(super) fn alive(&self) -> Vec<usize> {
        (0..self.places.len())
            .filter(|p| self.places[*p].server.is_some())
            .collect()
    }

    fn server(&self, place: usize) -> &Server {
        self.places[place]
            .server
            .as_ref()
            .expect("asked of the living only")
    }

    pub(super) fn server_mut(&mut self, place: usize) -> &mut Server {
        self.places[place]
            .server
            .as_mut()
            .expect("asked of the living only")
    }

    fn by_id(&self, id: Id) -> Option<usize> {
        self.alive().into_iter().find(|p| self.server(*p).id == id)
    }

    fn at_ip(&self, ip: Ip) -> Option<usize> {
        self.alive().into_iter().find(|p| self.places[*p].ip == ip)
    }

    fn reaches(&self, a: usize, b: usize) -> bool {
        let open = |p: usize| self.places[p].isolated_until <= self.now;
        a == b || (open(a) && open(b))
    }

    /// Kills a process. With a volume its state stays.
    pub(super) fn kill(&mut self, place: usize, down: u64, new_ip: bool) {
        let persistent = self.wanted.is_persistent;
        let pod = &mut self.places[place];
        if let Some(server) = pod.server.take() {
            let is_placed = server.claims.is_some() || server.primary.is_some();
            pod.volume = (persistent && is_placed).then_some(server);
        }
        pod.up_at = Some(self.now + down.max(1));
        pod.new_ip = new_ip;
    }

    /// Who may be lost without loss: another one has all that was acknowledged, and is no worse placed.
    pub(super) fn is_safe_without(&self, place: usize) -> bool {
        let shard = self.places[place].shard;
        let Some(acknowledged) = self.acknowledged.get(&shard) else {
            return self.places[place].server.is_some();
        };
        self.alive().into_iter().any(|p| {
            let other = &self.places[p];
            let server = self.server(p);
            p != place
                && other.shard == shard
                && other.isolated_until <= self.now
                && (server.is_linked || server.claims.is_some())
                && server.data.is_superset(acknowledged)
        })
    }

    pub(super) fn tick(&mut self) {
        self.now += 1;
        self.start_pods();
        self.talk();
        self.elect();
        self.replicate();
        if self.now.is_multiple_of(WRITE_EVERY) {
            self.write();
        }
    }

    fn start_pods(&mut self) {
        for place in 0..self.places.len() {
            if self.places[place]
                .deleted_at
                .is_some_and(|at| at <= self.now)
            {
                self.kill(place, START, true);
                let uid = self.fresh();
                let revision = self.revision;
                let pod = &mut self.places[place];
                (pod.uid, pod.revision, pod.deleted_at) = (uid, revision, None);
            }
            if self.places[place].up_at.is_some_and(|at| at <= self.now) {
                let (id, ip, now) = (self.fresh(), self.fresh(), self.now);
                let pod = &mut self.places[place];
                pod.up_at = None;
                if std::mem::take(&mut pod.new_ip) {
                    pod.ip = ip;
                }
                let own = pod.volume.take().unwrap_or_else(|| Server::blank(id));
                pod.server = Some(Server {
                    is_linked: false,
                    link_lost: None,
                    syncing_until: None,
                    started: now,
                    failed_seen: None,
                    offset: 0,
                    ..own
                });
                for entry in self.server_mut(place).table.values_mut() {
                    entry.unreached_since = Some(now);
                    entry.heard = now;
                }
            }
        }
    }

    /// Pings, gossip, claims and suspicion.
    fn talk(&mut self) {
        for a in self.alive() {
            for (id, known) in self.server(a).table.clone() {
                let there = self.at_ip(known.ip).filter(|b| self.reaches(a, *b));
                let (now, timeout) = (self.now, NODE_TIMEOUT);
                match there {
                    Some(b) if self.server(b).id == id && !known.no_address => self.exchange(a, b),
                    Some(b) if self.server(b).id != id => {
                        let entry = self.server_mut(a).table.get_mut(&id).expect("just read");
                        entry.no_address = true;
                    }
                    _ if known.no_address => {}
                    _ => {
                        let voters = self.owners_that_suspect(id);
                        let owners = self.claims_known(a);
                        let entry = self.server_mut(a).table.get_mut(&id).expect("just read");
                        let since = *entry.unreached_since.get_or_insert(now);
                        entry.failed |= now - since >= timeout && voters * 2 > owners;
                    }
                }
            }
            let now = self.now;
            self.server_mut(a).banned.retain(|_, until| *until > now);
        }
    }

    fn claims_known(&self, a: usize) -> usize {
        let server = self.server(a);
        let others = server.table.values().filter(|entry| entry.claims.is_some());
        others.count() + usize::from(server.claims.is_some())
    }

    fn owners_that_suspect(&self, id: Id) -> usize {
        let suspects = |p: &usize| {
            let server = self.server(*p);
            let entry = server
                .table
                .get(&id)
                .and_then(|entry| entry.unreached_since);
            server.claims.is_some() && entry.is_some_and(|since| self.now - since >= NODE_TIMEOUT)
        };
        let open = |p: &usize| self.places[*p].isolated_until <= self.now;
        self.alive()
            .into_iter()
            .filter(open)
            .filter(suspects)
            .count()
    }

    /// `a` reaches `b` and hears from it; `b` learns where `a` is.
    fn exchange(&mut self, a: usize, b: usize) {
        let (from, told) = (self.server(b).id, self.about(b));
        let gossip = self.server(b).table.clone();
        let (own_id, own) = (self.server(a).id, self.about(a));
        if let Some(entry) = self.server_mut(b).table.get_mut(&own_id) {
            (entry.ip, entry.no_address) = (own.ip, false);
        }
        let listener = self.server_mut(a);
        listener.table.insert(from, told.clone());
        for (id, entry) in &gossip {
            if *id == listener.id || listener.banned.contains_key(id) {
                continue;
            }
            let known = listener.table.entry(*id).or_insert_with(|| Entry {
                claims: None,
                ..entry.clone()
            });
            if known.unreached_since.is_some()
                && entry.unreached_since.is_none()
                && !entry.no_address
            {
                (known.ip, known.no_address) = (entry.ip, false);
            }
        }
        // The epoch decides whose slots they are.
        if let Some(shard) = told.claims {
            let mut is_true = true;
            for (id, entry) in &mut listener.table {
                if *id != from && entry.claims == Some(shard) {
                    if entry.epoch > told.epoch {
                        is_true = false;
                    } else {
                        entry.claims = None;
                        if listener.primary == Some(*id) {
                            listener.primary = Some(from);
                        }
                    }
                }
            }
            if listener.claims == Some(shard) {
                if listener.epoch < told.epoch {
                    (listener.claims, listener.primary) = (None, Some(from));
                    (listener.is_linked, listener.link_lost) = (false, None);
                } else {
                    is_true = false;
                }
            }
            if !is_true {
                listener.table.get_mut(&from).expect("just put").claims = None;
            }
        }
    }

    fn about(&self, place: usize) -> Entry {
        let server = self.server(place);
        Entry {
            ip: self.places[place].ip,
            host: place,
            epoch: server.epoch,
            claims: server.claims,
            primary: server.primary,
            no_address: false,
            unreached_since: None,
            failed: false,
            heard: self.now,
        }
    }

    /// Replicas whose primary the others have given up; the one with the most goes first.
    fn elect(&mut self) {
        let validity = VALIDITY[usize::from(!self.wanted.is_persistent)];
        let mut ready: Vec<usize> = self.alive();
        ready.retain(|r| {
            let server = self.server(*r);
            let failed = server
                .primary
                .and_then(|id| server.table.get(&id))
                .is_some_and(|entry| entry.failed);
            let linked = server
                .link_lost
                .is_some_and(|lost| self.now - lost <= validity);
            failed && linked && self.places[*r].isolated_until <= self.now
        });
        ready.sort_by_key(|r| std::cmp::Reverse(self.server(*r).offset));
        for r in ready {
            let now = self.now;
            let seen = *self.server_mut(r).failed_seen.get_or_insert(now);
            if now - seen >= 1 && self.has_votes(r) {
                self.take_slots(r);
                return;
            }
        }
    }

    fn has_votes(&self, r: usize) -> bool {
        let live = self.alive().into_iter().filter(|p| {
            self.server(*p).claims.is_some()
                && self.reaches(r, *p)
                && self.server(r).table.contains_key(&self.server(*p).id)
        });
        live.count() * 2 > self.claims_known(r)
    }

    fn highest_epoch(&self, r: usize) -> u64 {
        let server = self.server(r);
        let others = server.table.values().map(|entry| entry.epoch);
        others.max().unwrap_or(0).max(server.epoch)
    }

    pub(super) fn take_slots(&mut self, r: usize) {
        let epoch = self.highest_epoch(r) + 1;
        let server = self.server_mut(r);
        let Some(old) = server.primary.take() else {
            return;
        };
        let shard = server
            .table
            .get_mut(&old)
            .and_then(|entry| entry.claims.take());
        (server.claims, server.epoch, server.failed_seen) = (shard, epoch, None);
        (server.is_linked, server.syncing_until) = (false, None);
    }

    /// Replicas follow an address: whoever is there, if it lets them.
    fn replicate(&mut self) {
        for r in self.alive() {
            let Some(primary) = self.server(r).primary else {
                continue;
            };
            let address = self.server(r).table.get(&primary).map(|entry| entry.ip);
            let source = address
                .and_then(|ip| self.at_ip(ip))
                .filter(|q| self.reaches(r, *q) && *q != r);
            let open = source.filter(|q| {
                let other = self.server(*q);
                self.places[*q].shard == self.places[r].shard
                    && !other.is_sealed
                    && (other.primary.is_none() || other.is_linked)
            });
            let now = self.now;
            let Some(q) = open else {
                let server = self.server_mut(r);
                if server.is_linked {
                    server.link_lost = Some(now);
                }
                (server.is_linked, server.syncing_until) = (false, None);
                continue;
            };
            if self.server(r).is_linked && self.server(q).data.len() == self.server(r).data.len() {
                continue;
            }
            let (data, offset, sync_s) = (
                self.server(q).data.clone(),
                self.server(q).offset,
                self.sync_s,
            );
            let server = self.server_mut(r);
            let is_partial =
                server.is_linked || (server.data.is_subset(&data) && server.offset > 1);
            let until =
                *server
                    .syncing_until
                    .get_or_insert(if is_partial { now } else { now + sync_s });
            if until <= now {
                (server.data, server.offset, server.is_linked) = (data, offset, true);
                (server.syncing_until, server.link_lost) = (None, None);
            }
        }
    }

    fn write(&mut self) {
        for shard in 0..self.wanted.shape.shards() {
            let owners: Vec<usize> = self
                .alive()
                .into_iter()
                .filter(|p| self.server(*p).claims == Some(shard))
                .collect();
            for owner in owners {
                let key = self.fresh();
                let id = self.server(owner).id;
                let server = self.server_mut(owner);
                server.data.insert(key);
                server.offset += 10;
                let mut copies = 0;
                for r in self.alive() {
                    let server = self.server_mut(r);
                    if server.primary == Some(id) && server.is_linked && self.reaches(owner, r) {
                        let server = self.server_mut(r);
                        server.data.insert(key);
                        server.offset += 10;
                        copies += 1;
                    }
                }
                let is_alone = self.wanted.shape.pods() == 1 && self.wanted.is_persistent;
                if copies > 0 || is_alone {
                    self.acknowledged.entry(shard).or_default().insert(key);
                }
            }
        }
    }

    pub(super) fn wrong(&mut self, what: String) {
        self.wrongs.push(format!("{}: {what}", self.now));
    }
}

impl Server {
    fn blank(id: Id) -> Self {
        Self {
            id,
            epoch: 0,
            claims: None,
            primary: None,
            data: BTreeSet::new(),
            offset: 0,
            is_sealed: true,
            table: BTreeMap::new(),
            banned: BTreeMap::new(),
            is_linked: false,
            link_lost: None,
            syncing_until: None,
            started: 0,
            failed_seen: None,
        }
    }
}

pub(super) fn ip(ip: Ip) -> IpAddr {
    IpAddr::from(Ipv4Addr::from(0x0a00_0000 + ip))
}

pub(super) fn id(id: Id) -> NodeId {
    NodeId::new(&format!("id{id}"))
}

/// What an operator sees of it.
impl World {
    pub(super) fn observe(&self) -> Observation {
        let pods = self.places.iter().enumerate().map(|(index, place)| {
            let hidden = place.hidden_until > self.now || place.isolated_until > self.now;
            let answer = match &place.server {
                Some(server) if !hidden => Answer::Up(Box::new(self.view(index, server))),
                Some(_) | None => Answer::Down("not reached".to_owned()),
            };
            let is_ready = place
                .server
                .as_ref()
                .is_some_and(|s| s.claims.is_some() || s.is_linked);
            let pod = Pod {
                name: self.name(index),
                uid: place.uid.to_string(),
                shard: place.shard,
                ordinal: place.ordinal,
                node: None,
                ip: Some(ip(place.ip)),
                is_ready,
                is_outdated: place.revision != self.revision,
                is_deleting: place.deleted_at.is_some(),
            };
            Seen { pod, answer }
        });
        Observation {
            pods: pods.collect(),
        }
    }

    pub(super) fn name(&self, index: usize) -> String {
        let place = &self.places[index];
        format!("gw-redis-s{}-{}", place.shard, place.ordinal)
    }

    fn view(&self, index: usize, server: &Server) -> NodeView {
        let mut table: Vec<Line> = server
            .table
            .iter()
            .map(|(id, entry)| self.line(*id, entry, false))
            .collect();
        table.push(self.line(server.id, &self.about(index), true));
        let follow = Follow {
            host: None,
            is_link_up: server.is_linked,
            is_syncing: server.syncing_until.is_some(),
            link_down_s: server.link_lost.map(|lost| self.now - lost),
        };
        NodeView {
            id: id(server.id),
            table,
            role: match server.primary {
                Some(_) => Role::Replica(follow),
                None => Role::Primary(Vec::new()),
            },
            offset: server.offset,
            keys: server.data.len() as u64,
            is_state_ok: true,
            is_persisting: self.wanted.is_persistent,
            uptime_s: self.now - server.started,
            clock_ms: self.now * 1000,
            is_sealed: server.is_sealed,
            version: "7.0.15".to_owned(),
        }
    }

    fn line(&self, of: Id, entry: &Entry, myself: bool) -> Line {
        let away = entry.unreached_since.map_or(0, |since| self.now - since);
        let range = |shard| self.wanted.shape.range(shard);
        Line {
            id: id(of),
            ip: Some(ip(entry.ip)).filter(|_| !entry.no_address),
            hostname: Some(format!("{}.gw.test", self.name(entry.host))),
            flags: Flags {
                myself,
                primary: entry.primary.is_none(),
                suspected: away >= NODE_TIMEOUT,
                failed: entry.failed,
                handshake: false,
                no_address: entry.no_address,
            },
            primary: entry.primary.map(id),
            pong_ms: if myself { 0 } else { entry.heard * 1000 },
            epoch: entry.epoch,
            linked: myself || (away == 0 && !entry.no_address),
            slots: entry.claims.map(range).into_iter().collect(),
            moving: false,
        }
    }
}

/// What steps do to it.
impl World {
    fn place_of(&self, target: &Target) -> Option<usize> {
        let place = self
            .alive()
            .into_iter()
            .find(|p| ip(self.places[*p].ip) == target.ip && id(self.server(*p).id) == target.id);
        place.filter(|p| {
            self.places[*p].hidden_until <= self.now && self.places[*p].isolated_until <= self.now
        })
    }

    pub(super) fn apply(&mut self, step: &Step) {
        match step {
            Step::DeletePod { name, uid } => self.delete(name, uid),
            Step::SetEpoch { at, epoch } => {
                if let Some(p) = self
                    .place_of(at)
                    .filter(|p| self.server(*p).table.is_empty())
                {
                    self.server_mut(p).epoch = *epoch;
                }
            }
            Step::Meet { at, peer } => {
                if let (Some(a), Some(b)) = (self.place_of(at), self.place_of(peer)) {
                    let (a_id, b_id) = (self.server(a).id, self.server(b).id);
                    let (of_a, of_b) = (self.about(a), self.about(b));
                    let known = |old: Option<&Entry>, new: Entry| Entry {
                        claims: old.and_then(|old| old.claims),
                        ..new
                    };
                    let entry = known(self.server(a).table.get(&b_id), of_b);
                    self.server_mut(a).table.insert(b_id, entry);
                    let entry = known(self.server(b).table.get(&a_id), of_a);
                    self.server_mut(b).table.insert(a_id, entry);
                }
            }
            Step::Forget { at, id: gone } => self.forget(at, gone),
            Step::AddSlots { at, .. } => self.add_slots(at),
            Step::BumpEpoch(at) => {
                if let Some(p) = self.place_of(at) {
                    self.server_mut(p).epoch = self.highest_epoch(p) + 1;
                }
            }
            Step::Unseal(at) => {
                if let Some(p) = self.place_of(at) {
                    self.server_mut(p).is_sealed = false;
                }
            }
            Step::Replicate { at, primary } => self.follow(at, primary),
            Step::HandOver(at) => {
                if let Some(p) = self.place_of(at).filter(|p| self.server(*p).is_linked) {
                    self.take_slots(p);
                }
            }
            Step::Force(at) => {
                if let Some(p) = self.place_of(at).filter(|p| self.has_votes(*p)) {
                    self.check_primary_is_dead(p, "forced");
                    self.take_slots(p);
                }
            }
            Step::TakeOver(at) => {
                if let Some(p) = self.place_of(at) {
                    self.check_primary_is_dead(p, "took over");
                    self.take_slots(p);
                }
            }
        }
    }

    fn check_primary_is_dead(&mut self, p: usize, what: &str) {
        let old = self.server(p).primary;
        let shard = self.places[p].shard;
        if let Some(alive) = old
            .and_then(|old| self.by_id(old))
            .filter(|q| self.server(*q).claims == Some(shard))
        {
            self.wrong(format!(
                "{} {what} while {} lives",
                self.name(p),
                self.name(alive)
            ));
        }
    }

    fn forget(&mut self, at: &Target, gone: &NodeId) {
        let Some(p) = self.place_of(at) else { return };
        let Some(gone) = self
            .server(p)
            .table
            .keys()
            .copied()
            .find(|known| id(*known) == *gone)
        else {
            return;
        };
        if self.by_id(gone).is_some()
            || self
                .places
                .iter()
                .any(|q| q.volume.as_ref().is_some_and(|v| v.id == gone))
        {
            self.wrong(format!("{gone} is forgotten and may be back"));
        }
        let now = self.now;
        let server = self.server_mut(p);
        if server.primary != Some(gone) {
            server.table.remove(&gone);
            server.banned.insert(gone, now + BLACKLIST);
        }
    }

    fn add_slots(&mut self, at: &Target) {
        let Some(p) = self.place_of(at) else { return };
        let shard = self.places[p].shard;
        let server = self.server(p);
        if server.primary.is_some()
            || server
                .table
                .values()
                .any(|entry| entry.claims == Some(shard))
        {
            return;
        }
        let has_data = |place: &Place| {
            let copies = [&place.server, &place.volume];
            place.shard == shard
                && copies
                    .into_iter()
                    .flatten()
                    .any(|server| !server.data.is_empty())
        };
        if self.places.iter().any(has_data) {
            self.wrong(format!("shard {shard} is made anew beside its data"));
        }
        self.server_mut(p).claims = Some(shard);
    }

    fn follow(&mut self, at: &Target, primary: &NodeId) {
        let Some(p) = self.place_of(at) else { return };
        let Some(q) = self
            .alive()
            .into_iter()
            .find(|q| id(self.server(*q).id) == *primary)
        else {
            return;
        };
        let (server, whom) = (self.server(p), self.server(q).id);
        let is_full = server.primary.is_none() && !server.data.is_empty();
        if server.claims.is_some() || is_full || !server.table.contains_key(&whom) {
            return;
        }
        let acknowledged = self
            .acknowledged
            .get(&self.places[p].shard)
            .cloned()
            .unwrap_or_default();
        let dropped = server
            .data
            .difference(&self.server(q).data)
            .any(|key| acknowledged.contains(key));
        if dropped {
            self.wrong(format!(
                "{} drops what {} does not have",
                self.name(p),
                self.name(q)
            ));
        }
        let server = self.server_mut(p);
        (server.primary, server.is_linked, server.link_lost) = (Some(whom), false, None);
    }

    fn delete(&mut self, name: &str, uid: &str) {
        let Some(p) = (0..self.places.len()).find(|p| self.name(*p) == name) else {
            return;
        };
        if self.places[p].uid.to_string() != uid || self.places[p].deleted_at.is_some() {
            return;
        }
        let is_broken = self.places[p].server.is_none();
        let others = self.places.iter().any(|place| place.deleted_at.is_some());
        if others {
            self.wrong(format!("{name} is deleted while another is"));
        }
        let owner = self.places[p]
            .server
            .as_ref()
            .is_some_and(|server| server.claims.is_some());
        let shape = self.wanted.shape;
        if owner && !is_broken && (shape.pods() > 1 || !self.wanted.is_persistent) {
            self.wrong(format!("{name} is deleted and is a primary"));
        }
        self.places[p].deleted_at = Some(self.now + 2);
    }
}
