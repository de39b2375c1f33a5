//! What a server says of the cluster: the lines of `CLUSTER NODES`.
//!
//! Pure. A line that cannot be read is left out, whatever it holds: the others still count.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Of every Redis Cluster.
pub const SLOTS: u16 = 16_384;

/// Longer names are no node's: they have 40 characters.
const ID_BYTES_MAX: usize = 64;

/// A cluster of ours has nine servers, and names of some that are no more; more is no cluster of ours.
const LINES_MAX: usize = 200;

/// The name of a server within its cluster. It lives in `nodes.conf`, beside the data.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    pub myself: bool,
    pub primary: bool,
    /// This server does not reach it.
    pub suspected: bool,
    /// A majority of the primaries did not reach it.
    pub failed: bool,
    /// Known by an address only; its name is not its own yet.
    pub handshake: bool,
    /// Another server was found at its address.
    pub no_address: bool,
}

/// What one server knows of another, or of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub id: NodeId,
    pub ip: Option<IpAddr>,
    pub hostname: Option<String>,
    pub flags: Flags,
    pub primary: Option<NodeId>,
    /// When it was last heard of, by the clock of the server that says so; 0: never, or just now.
    pub pong_ms: u64,
    pub epoch: u64,
    pub linked: bool,
    pub slots: Vec<(u16, u16)>,
    /// Slots are being moved by hand.
    pub moving: bool,
}

/// `<id> <ip:port@bus[,hostname[,key=value]]> <flags> <primary> <ping> <pong> <epoch> <link> <slot> ...` per line.
pub(super) fn parse(text: &str) -> Vec<Line> {
    let lines = text.lines().take(LINES_MAX);
    lines.filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let mut words = line.split_ascii_whitespace();
    let id = words.next().filter(|id| id.len() <= ID_BYTES_MAX)?;
    let (ip, hostname) = parse_place(words.next()?)?;
    let flags = parse_flags(words.next()?);
    let primary = words.next().filter(|id| *id != "-").map(NodeId::new);
    let _ping = words.next()?;
    let pong_ms = words.next()?.parse().ok()?;
    let epoch = words.next()?.parse().ok()?;
    let linked = words.next()? == "connected";
    let rest: Vec<&str> = words.collect();
    Some(Line {
        id: NodeId::new(id),
        ip,
        hostname,
        flags,
        primary,
        pong_ms,
        epoch,
        linked,
        slots: rest.iter().filter_map(|word| parse_range(word)).collect(),
        moving: rest.iter().any(|word| word.starts_with('[')),
    })
}

fn parse_place(place: &str) -> Option<(Option<IpAddr>, Option<String>)> {
    let mut parts = place.split(',');
    let (address, _bus) = parts.next()?.split_once('@')?;
    let (ip, _port) = address.rsplit_once(':')?;
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    let hostname = parts.next().filter(|name| !name.is_empty());
    let hostname = hostname.filter(|name| *name != "?" && !name.contains('='));
    Some((ip.parse().ok(), hostname.map(str::to_owned)))
}

fn parse_flags(text: &str) -> Flags {
    let mut flags = Flags::default();
    for flag in text.split(',') {
        match flag {
            "myself" => flags.myself = true,
            "master" => flags.primary = true,
            "fail?" => flags.suspected = true,
            "fail" => flags.failed = true,
            "handshake" => flags.handshake = true,
            "noaddr" => flags.no_address = true,
            _ => {}
        }
    }
    flags
}

/// `5` or `0-5460`. What stands in brackets is on the move and is still its owner's.
fn parse_range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = (first.parse().ok()?, last.parse().ok()?);
    (range.0 <= range.1 && range.1 < SLOTS).then_some(range)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &str =
        "07c37df 10.0.0.4:6379@16379,gw-redis-s0-1.gw slave e7d1eec 0 1426238317239 4 connected";
    const OWN: &str = "e7d1eec 10.0.0.1:6379@16379,gw-redis-s0-0.gw,shard-id=69bc myself,master - 0 0 1 connected 0-5460 7000 [93-<-292f]";

    #[test]
    fn lines_of_redis_and_of_valkey_are_read() {
        let lines = parse(&format!("{OLD}\n{OWN}\n\n"));
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].hostname.as_deref(), Some("gw-redis-s0-1.gw"));
        assert_eq!(lines[0].primary, Some(NodeId::new("e7d1eec")));
        assert_eq!(lines[0].pong_ms, 1_426_238_317_239);
        assert!(!lines[0].flags.primary && lines[0].linked);
        assert_eq!(lines[1].hostname.as_deref(), Some("gw-redis-s0-0.gw"));
        assert_eq!(lines[1].slots, [(0, 5460), (7000, 7000)]);
        assert!(lines[1].flags.myself && lines[1].flags.primary && lines[1].moving);
    }

    #[test]
    fn addresses_may_be_unknown_or_of_the_sixth_version() {
        let text = "a :0@0,,shard-id=x master,noaddr - 1 2 0 disconnected\n\
                    b fd00::7:6379@16379 master,fail? - 1 2 0 disconnected\n\
                    c fd00::8:6379@16379, handshake - 1 2 0 disconnected";
        let lines = parse(text);
        assert_eq!((lines[0].ip, &lines[0].hostname), (None, &None));
        assert!(lines[0].flags.no_address);
        assert_eq!(lines[1].ip, "fd00::7".parse().ok());
        assert!(lines[1].flags.suspected && !lines[1].flags.failed && !lines[1].linked);
        assert!(lines[2].flags.handshake);
    }

    #[test]
    fn what_cannot_be_read_is_left_out() {
        for line in [
            "a 10.0.0.1:1@2 master - 0 x 1 connected",
            "a nowhere master - 0 0 1 connected",
            "a",
        ] {
            assert_eq!(parse(line), [], "{line}");
        }
        let far = "a 10.0.0.1:1@2 master - 0 0 1 connected 9-3 16383 16384 0-70000 -";
        assert_eq!(parse(far)[0].slots, [(16_383, 16_383)]);
    }

    proptest! {
        #[test]
        fn any_text_is_taken(text in "[ -~\\n]{0,400}") {
            parse(&text);
        }

        #[test]
        fn lines_with_holes_are_taken(line in 0..OWN.len(), cut in 0..OWN.len(), with in "\\PC{0,4}") {
            let (from, to) = (line.min(cut), line.max(cut));
            for line in parse(&format!("{}{with}{}", &OWN[..from], &OWN[to..])) {
                prop_assert!(line.slots.iter().all(|(first, last)| first <= last && *last < SLOTS));
            }
        }
    }
}
