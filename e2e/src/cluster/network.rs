//! The links of a cluster: a bridge on the machine, a link to each set of namespaces, routes to pods, and cut links.
//!
//! Nodes reach each other over the bridge and route to each other's pods themselves; the machine forwards nothing. What
//! is made on the machine are the bridge, the ends of links and routes through them, nothing else.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::addresses::{Addresses, CLUSTERS_MAX};
use super::command::{run, text_with_input};
use super::process::Process;

/// The table in a namespace that holds back what comes over cut links.
const CUTS: &str = "sluice_cuts";

fn ip(line: &str) -> Result<String> {
    run("ip", &line.split_whitespace().collect::<Vec<_>>())
}

fn link_exists(name: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(name).exists()
}

/// Whether the machine has routes or links that a cluster with this number would collide with.
pub(super) fn is_free(addresses: Addresses) -> Result<bool> {
    if link_exists(&addresses.bridge()) {
        return Ok(false);
    }
    let routes: Vec<Value> = serde_json::from_str(&run("ip", &["-json", "-4", "route"])?)?;
    let ours = [
        addresses.node_network(),
        addresses.pods(),
        addresses.services(),
    ];
    let taken = routes
        .iter()
        .filter_map(|route| route["dst"].as_str())
        .filter_map(Network::parse)
        .any(|route| {
            ours.iter()
                .filter_map(|network| Network::parse(network))
                .any(|own| own.overlaps(route))
        });
    Ok(!taken)
}

/// The first number nobody uses.
pub(super) fn free_index(taken: &[u8]) -> Result<u8> {
    for index in (0..CLUSTERS_MAX).filter(|index| !taken.contains(index)) {
        if is_free(Addresses { index })? {
            return Ok(index);
        }
    }
    anyhow::bail!("all {CLUSTERS_MAX} address ranges for clusters are in use on this machine")
}

/// An IPv4 network.
#[derive(Clone, Copy)]
struct Network {
    address: u32,
    length: u32,
}

impl Network {
    /// `default` is no network in this sense: more specific routes go before it.
    fn parse(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/').unwrap_or((text, "32"));
        let address: std::net::Ipv4Addr = address.parse().ok()?;
        Some(Self {
            address: address.into(),
            length: length.parse().ok().filter(|length| *length <= 32)?,
        })
    }

    fn overlaps(self, other: Self) -> bool {
        let shorter = self.length.min(other.length);
        let mask = u32::MAX.checked_shl(32 - shorter).unwrap_or(0);
        (self.address ^ other.address) & mask == 0
    }
}

pub(super) fn make_bridge(addresses: Addresses) -> Result<()> {
    let bridge = addresses.bridge();
    if !link_exists(&bridge) {
        ip(&format!("link add {bridge} type bridge"))?;
    }
    ip(&format!(
        "addr replace {}/24 dev {bridge}",
        addresses.machine()
    ))?;
    ip(&format!("link set {bridge} up")).map(drop)
}

/// Removes the machine's ends, and with them the routes.
pub(super) fn remove(addresses: Addresses) -> Result<()> {
    let bridge = addresses.bridge();
    let own = |name: &str| {
        let rest = name.strip_prefix(&bridge)?;
        matches!(rest.chars().next(), None | Some('c' | 'n')).then_some(())
    };
    for entry in std::fs::read_dir("/sys/class/net")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if own(&name).is_some() && link_exists(&name) {
            delete(&name)?;
        }
    }
    Ok(())
}

/// The other end's namespace may be going away just now, and the link with it.
pub(super) fn delete(link: &str) -> Result<()> {
    match ip(&format!("link del {link}")) {
        Err(error) if link_exists(link) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Gives the namespaces of `process` a link to the bridge, with this address.
pub(super) fn attach(
    addresses: Addresses,
    process: Process,
    link: &str,
    address: std::net::Ipv4Addr,
) -> Result<()> {
    let (bridge, pid) = (addresses.bridge(), process.pid);
    delete(link)?;
    ip(&format!(
        "link add {link} type veth peer name eth0 netns {pid}"
    ))?;
    ip(&format!("link set {link} master {bridge} up"))?;
    inside(process, "ip link set lo up")?;
    inside(process, &format!("ip addr add {address}/24 dev eth0"))?;
    inside(process, "ip link set eth0 up")?;
    // The machine does not forward: this is what addresses of Services are looked up by before they are translated.
    inside(
        process,
        &format!("ip route add default via {}", addresses.machine()),
    )?;
    Ok(())
}

/// Routes to the pods of `nodes`, in the namespaces of `process`, except to its own.
pub(super) fn route_to_pods(
    addresses: Addresses,
    process: Process,
    nodes: impl Iterator<Item = u8>,
) -> Result<()> {
    for node in nodes {
        let (pods, via) = (addresses.pods_of(node), addresses.node(node));
        inside(process, &format!("ip route replace {pods} via {via}"))?;
    }
    Ok(())
}

/// The same on the machine, so that its programs reach pods.
pub(super) fn route_from_machine(addresses: Addresses, node: u8) -> Result<()> {
    let (pods, via) = (addresses.pods_of(node), addresses.node(node));
    ip(&format!("route replace {pods} via {via}")).map(drop)
}

/// Runs a program in the network namespace of `process`.
pub(super) fn inside(process: Process, line: &str) -> Result<String> {
    let pid = process.pid.to_string();
    let mut words = vec!["--target", &pid, "--net"];
    words.extend(line.split_whitespace());
    run("nsenter", &words)
}

/// Drops in the namespaces of `process` whatever comes from these networks; earlier cuts are forgotten.
pub(super) fn set_cuts(process: Process, from: &[String]) -> Result<()> {
    ensure!(process.is_alive(), "its namespaces are gone");
    let rule = if from.is_empty() {
        String::new()
    } else {
        // Before connection tracking, so that open connections are cut as well.
        format!(
            "table inet {CUTS} {{\n  chain before {{\n    type filter hook prerouting priority raw; policy accept;\n    \
             ip saddr {{ {} }} drop\n  }}\n}}\n",
            from.join(", ")
        )
    };
    let script = format!("table inet {CUTS}\ndelete table inet {CUTS}\n{rule}");
    let mut command = Command::new("nsenter");
    command.args(["--target", &process.pid.to_string(), "--net"]);
    command.args(["nft", "-f", "-"]);
    text_with_input(&mut command, &script)
        .map(drop)
        .context("cutting links")
}

#[cfg(test)]
mod tests {
    use super::Network;

    #[test]
    fn networks_overlap_when_one_holds_the_other() {
        let overlap = |a: &str, b: &str| {
            Network::parse(a)
                .unwrap()
                .overlaps(Network::parse(b).unwrap())
        };
        assert!(overlap("10.0.0.0/8", "10.200.3.0/24"));
        assert!(overlap("10.200.3.7", "10.200.3.0/24"));
        assert!(overlap("0.0.0.0/0", "10.200.3.0/24"));
        assert!(!overlap("10.200.2.0/24", "10.200.3.0/24"));
        assert!(Network::parse("default").is_none());
    }
}
