//! What a cluster has to remember from one command to the next: its number, its nodes, what is cut.

use std::io::ErrorKind;
use std::str::FromStr;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::addresses::{Addresses, NODES_MAX, node_name};
use super::folders::{Home, clusters, write};

/// Written before anything is made, so that whatever was made can be found and removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) index: u8,
    /// The programs it was started with.
    pub(super) programs: String,
    pub(super) nodes: Vec<u8>,
    /// Records of older harnesses do not say, and mean one.
    #[serde(default = "one")]
    pub(super) api_servers: u8,
    pub(super) cuts: Vec<(End, End)>,
}

fn one() -> u8 {
    1
}

/// One end of a link that can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum End {
    /// The control plane.
    Control,
    Node(u8),
}

impl Record {
    pub(super) fn load(home: &Home) -> Result<Option<Self>> {
        let path = home.record();
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(
                serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?,
            )),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    pub(super) fn save(&self, home: &Home) -> Result<()> {
        write(&home.record(), serde_json::to_vec_pretty(self)?)
    }

    /// The numbers that clusters of this user have.
    pub(super) fn indexes() -> Result<Vec<u8>> {
        let mut indexes = Vec::new();
        for entry in std::fs::read_dir(clusters()?)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                let home = Home::of(&entry.file_name().to_string_lossy())?;
                indexes.extend(Self::load(&home)?.map(|record| record.index));
            }
        }
        Ok(indexes)
    }

    pub(super) fn addresses(&self) -> Addresses {
        Addresses { index: self.index }
    }

    /// The networks whose packets an end does not get, because of cuts.
    pub(super) fn cut_from(&self, end: End) -> Vec<String> {
        let mut networks = Vec::new();
        for (a, b) in &self.cuts {
            if *a == end {
                networks.extend(b.networks(self.addresses()));
            } else if *b == end {
                networks.extend(a.networks(self.addresses()));
            }
        }
        networks.sort();
        networks.dedup();
        networks
    }
}

impl End {
    fn networks(self, addresses: Addresses) -> Vec<String> {
        match self {
            Self::Control => addresses.api_servers().map(|a| a.to_string()).collect(),
            Self::Node(node) => vec![addresses.node(node).to_string(), addresses.pods_of(node)],
        }
    }
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "control" {
            return Ok(Self::Control);
        }
        parse_node(text).map(Self::Node)
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Control => f.write_str("control"),
            Self::Node(node) => f.write_str(&node_name(*node)),
        }
    }
}

/// `node2` or `2`.
pub fn parse_node(text: &str) -> Result<u8, String> {
    let number = text.strip_prefix("node").unwrap_or(text).parse().ok();
    number
        .filter(|number| (1..=NODES_MAX).contains(number))
        .ok_or_else(|| format!("{text:?} is neither `control` nor `node1` to `node{NODES_MAX}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_works_both_ways() {
        let record = Record {
            index: 0,
            programs: String::new(),
            nodes: vec![1, 2],
            api_servers: 1,
            cuts: vec![(End::Control, End::Node(2))],
        };
        assert_eq!(
            record.cut_from(End::Control),
            ["10.200.0.12", "10.208.2.0/24"]
        );
        assert_eq!(record.cut_from(End::Node(2)), ["10.200.0.2", "10.200.0.3"]);
        assert!(record.cut_from(End::Node(1)).is_empty());
    }

    #[test]
    fn ends_are_named_as_nodes_are() {
        assert_eq!("node2".parse(), Ok(End::Node(2)));
        assert_eq!("2".parse(), Ok(End::Node(2)));
        assert_eq!("control".parse(), Ok(End::Control));
        for wrong in ["", "node", "node0", "node999", "-1", "Control"] {
            assert!(wrong.parse::<End>().is_err(), "{wrong}");
        }
    }
}
