//! What there is of a cluster and whether it runs, as seen from the machine; the API server is not asked.

use std::fmt;

use anyhow::Result;

use super::addresses::node_name;
use super::record::End;
use super::{Inner, api_servers, cgroup, control, node};

/// A cluster at a glance.
#[derive(Debug)]
pub struct Status {
    pub name: String,
    /// Whether the control plane's machine runs.
    pub control: bool,
    pub api_servers: Vec<bool>,
    pub nodes: Vec<NodeStatus>,
    pub cuts: Vec<(End, End)>,
    /// All processes of the cluster, those of pods too.
    pub processes: usize,
    /// What they hold in memory together; pages that several share are counted once, by halves and thirds.
    pub memory_bytes: u64,
}

#[derive(Debug)]
pub struct NodeStatus {
    pub node: u8,
    pub address: std::net::Ipv4Addr,
    /// The first process of its namespaces, by which they can be entered; none when the node is down.
    pub init_pid: Option<u32>,
}

pub(super) fn status(inner: &Inner) -> Result<Status> {
    let record = inner.record()?;
    let addresses = record.addresses();
    let nodes = record.nodes.iter().map(|number| NodeStatus {
        node: *number,
        address: addresses.node(*number),
        init_pid: node::space(&inner.home, addresses, *number)
            .init()
            .map(|init| init.pid),
    });
    let control = control::space(&inner.home, addresses).init().is_some();
    let servers = 1..=record.api_servers;
    let pids = cgroup::processes(&addresses.cgroup())?;
    Ok(Status {
        name: inner.name.clone(),
        control,
        api_servers: servers
            .map(|server| control && api_servers::is_up(&inner.home, server))
            .collect(),
        nodes: nodes.collect(),
        cuts: record.cuts.clone(),
        processes: pids.len(),
        memory_bytes: pids.into_iter().filter_map(memory).sum(),
    })
}

/// A process's share of the memory.
fn memory(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find(|line| line.starts_with("Pss:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = |up: bool| if up { "up" } else { "down" };
        writeln!(f, "cluster {}", self.name)?;
        writeln!(f, "  control plane {}", state(self.control))?;
        for (number, up) in self.api_servers.iter().enumerate() {
            writeln!(f, "  API server {} {}", number + 1, state(*up))?;
        }
        for node in &self.nodes {
            let name = node_name(node.node);
            write!(f, "  {name} {} ", node.address)?;
            match node.init_pid {
                Some(pid) => writeln!(f, "up, init process {pid}")?,
                None => writeln!(f, "down")?,
            }
        }
        for (a, b) in &self.cuts {
            writeln!(f, "  link {a} - {b} is cut")?;
        }
        let mebibytes = self.memory_bytes >> 20;
        write!(f, "  {} processes, {mebibytes} MiB", self.processes)
    }
}
