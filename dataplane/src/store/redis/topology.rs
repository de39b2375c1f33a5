//! Which server owns which slots, as learned from `CLUSTER NODES`.
//!
//! Several nodes are asked, and each may be behind. An owner's claim to a slot carries its config epoch, which every
//! failover and every planned move raises, so the claim with the highest epoch wins, slot by slot. A view never goes
//! back: an answer with older claims changes nothing. Only an owner that nobody has named for a while loses its claim to
//! anyone: the cluster has forgotten it, or is another one. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use super::slots::SLOTS;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub host: Arc<str>,
    pub port: u16,
}

impl Address {
    pub fn new(host: &str, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A primary and its replicas, with the part of the slots that is theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    pub primary: Address,
    /// Known to the cluster; alive or not.
    pub replicas: Vec<Address>,
    /// Raised by every failover: who sees it change knows that writes may have been lost.
    pub epoch: u64,
}

/// What is known of the servers at one time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Topology {
    pub shards: Vec<Shard>,
    /// Index of the shard that owns each slot; empty: nothing is known yet.
    owners: Vec<Option<u16>>,
    /// All servers that the cluster knows, for asking them.
    pub known: BTreeSet<Address>,
}

impl Topology {
    /// One server without cluster mode.
    pub fn single(address: Address) -> Self {
        Self {
            known: BTreeSet::from([address.clone()]),
            shards: vec![Shard {
                primary: address,
                replicas: Vec::new(),
                epoch: 0,
            }],
            owners: vec![Some(0); usize::from(SLOTS)],
        }
    }

    pub fn shard(&self, slot: u16) -> Option<&Shard> {
        let index = self.shard_index(slot)?;
        self.shards.get(index)
    }

    pub fn shard_index(&self, slot: u16) -> Option<usize> {
        let owner = self.owners.get(usize::from(slot)).copied().flatten()?;
        Some(usize::from(owner))
    }

    /// Slots that no shard owns.
    pub fn uncovered(&self) -> usize {
        if self.owners.is_empty() {
            return usize::from(SLOTS);
        }
        self.owners.iter().filter(|owner| owner.is_none()).count()
    }
}

/// One server's line of `CLUSTER NODES`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    id: String,
    address: Address,
    primary: Option<String>,
    is_usable: bool,
    epoch: u64,
    ranges: Vec<(u16, u16)>,
}

/// Answers in a row that do not name a server: by then each living one has been asked some times.
const FORGOTTEN_AFTER: u64 = 30;

/// What all answers so far came to.
#[derive(Debug, Default)]
pub struct View {
    /// Per slot: the owner's id and the epoch of its claim.
    claims: Vec<Option<(Arc<str>, u64)>>,
    nodes: HashMap<String, Node>,
    /// Counts answers.
    answers: u64,
    /// The last answer that named each server.
    named: HashMap<String, u64>,
}

impl View {
    /// Takes one server's answer in. `asked` is how that server was reached: a server that does not know its own address
    /// is meant by it.
    pub fn learn(&mut self, answer: &str, asked: &Address) {
        let nodes: Vec<Node> = answer
            .lines()
            .filter_map(|line| parse_line(line, asked))
            .collect();
        if nodes.is_empty() {
            return;
        }
        self.claims.resize(usize::from(SLOTS), None);
        self.answers += 1;
        for node in &nodes {
            self.named.insert(node.id.clone(), self.answers);
        }
        self.named
            .retain(|_, named| self.answers - *named <= FORGOTTEN_AFTER);
        // Who the newest answer does not know has been forgotten by the cluster, unless slots still name it.
        let owners: BTreeSet<&str> = self.claims.iter().flatten().map(|(id, _)| &**id).collect();
        let listed: BTreeSet<&str> = nodes.iter().map(|node| &*node.id).collect();
        let gone: Vec<String> = self
            .nodes
            .keys()
            .filter(|id| !listed.contains(&***id) && !owners.contains(&***id))
            .cloned()
            .collect();
        for id in gone {
            self.nodes.remove(&id);
        }
        for node in nodes {
            let id: Arc<str> = node.id.as_str().into();
            for slot in node.ranges.iter().flat_map(|(first, last)| *first..=*last) {
                let claim = &mut self.claims[usize::from(slot)];
                let yields = claim.as_ref().is_none_or(|(owner, epoch)| {
                    node.epoch >= *epoch || !self.named.contains_key(&**owner)
                });
                if yields {
                    *claim = Some((Arc::clone(&id), node.epoch));
                }
            }
            let is_stale = self
                .nodes
                .get(&node.id)
                .is_some_and(|known| node.epoch < known.epoch);
            if !is_stale {
                self.nodes.insert(node.id.clone(), node);
            }
        }
    }

    pub fn topology(&self) -> Topology {
        let mut owner_index: BTreeMap<&str, u16> = BTreeMap::new();
        let mut shards = Vec::new();
        let mut owners = vec![None; self.claims.len()];
        for (slot, claim) in self.claims.iter().enumerate() {
            let Some((id, epoch)) = claim else { continue };
            let Some(node) = self.nodes.get(&**id) else {
                continue;
            };
            let index = *owner_index.entry(id).or_insert_with(|| {
                let mut replicas: Vec<_> = self.replicas_of(id).collect();
                replicas.sort();
                shards.push(Shard {
                    primary: node.address.clone(),
                    replicas,
                    epoch: *epoch,
                });
                (shards.len() - 1) as u16
            });
            owners[slot] = Some(index);
        }
        Topology {
            shards,
            owners,
            known: self
                .nodes
                .values()
                .map(|node| node.address.clone())
                .collect(),
        }
    }

    fn replicas_of<'a>(&'a self, primary: &'a str) -> impl Iterator<Item = Address> + 'a {
        self.nodes
            .values()
            .filter(move |node| node.is_usable && node.primary.as_deref() == Some(primary))
            .map(|node| node.address.clone())
    }
}

/// `id ip:port@busport[,hostname] flags primary ping pong epoch link slot...`; `None` for lines that tell nothing of use.
fn parse_line(line: &str, asked: &Address) -> Option<Node> {
    let mut fields = line.split_ascii_whitespace();
    let id = fields.next()?;
    let place = fields.next()?;
    let flags: Vec<&str> = fields.next()?.split(',').collect();
    let primary = fields.next().filter(|primary| *primary != "-");
    let epoch = fields.nth(2)?.parse().ok()?;
    let _link = fields.next()?;
    let is_usable = !flags
        .iter()
        .any(|flag| ["noaddr", "handshake", "fail"].contains(flag));
    let is_self = flags.contains(&"myself");
    let address = parse_place(place, is_self.then_some(asked))?;
    Some(Node {
        id: id.to_owned(),
        address,
        primary: primary.map(str::to_owned),
        is_usable,
        epoch,
        ranges: fields.filter_map(parse_range).collect(),
    })
}

/// `ip:port@busport,hostname,...`. The host name, where there is one, is what certificates name.
fn parse_place(place: &str, asked: Option<&Address>) -> Option<Address> {
    let mut parts = place.split(',');
    let (address, _bus) = parts.next()?.split_once('@')?;
    let hostname = parts
        .next()
        .filter(|name| !name.is_empty() && !name.contains('='));
    let (ip, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    match (hostname, ip, asked) {
        (Some(name), _, _) => Some(Address::new(name, port)),
        (None, "" | "?", Some(asked)) => Some(Address {
            host: Arc::clone(&asked.host),
            port,
        }),
        (None, "" | "?", None) => None,
        (None, ip, _) => Some(Address::new(ip, port)),
    }
}

/// `5` or `0-5460`; slots on the move (`[93-<-id]`) are their owner's until they have moved.
fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = (first.parse().ok()?, last.parse().ok()?);
    (range.0 <= range.1 && range.1 < SLOTS).then_some(range)
}

#[cfg(test)]
mod tests;
