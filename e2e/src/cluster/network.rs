//! The links of a cluster: a bridge, a link to it from each node and from the machine, routes to pods, and cut links.
//!
//! The bridge is in the namespaces of the control plane, where no firewall of the machine sees what it carries. Nodes route
//! to each other's pods themselves; the machine forwards nothing. It gets one link and the routes through it, nothing else.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::addresses::{Addresses, CLUSTERS_MAX, node_name};
use super::command::{run, text_with_input};
use super::process::Process;

/// The table in a namespace that holds back what comes over cut links.
const CUTS: &str = "sluice_cuts";
const BRIDGE: &str = "nodes";
/// A bridge that is given no address takes one of its links', and another when that link goes: then nobody who remembers
/// the old one reaches the control plane for half a minute. No two bridges are on one wire, so all have the same.
const BRIDGE_ADDRESS: &str = "02:00:00:00:00:02";

fn ip(line: &str) -> Result<String> {
    run("ip", &line.split_whitespace().collect::<Vec<_>>())
}

fn link_exists(name: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(name).exists()
}

/// Whether the machine has routes or links that a cluster with this number would collide with.
pub(super) fn is_free(addresses: Addresses) -> Result<bool> {
    if link_exists(&addresses.link()) {
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

/// Removes the machine's link, and with it the routes.
pub(super) fn remove(addresses: Addresses) -> Result<()> {
    let link = addresses.link();
    // Its other end's namespace may be going away just now, and the link with it.
    match ip(&format!("link del {link}")) {
        Err(error) if link_exists(&link) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Makes the bridge in the control plane's namespaces and the machine's link to it.
pub(super) fn attach_control(addresses: Addresses, control: Process) -> Result<()> {
    let (link, pid) = (addresses.link(), control.pid);
    remove(addresses)?;
    ip(&format!(
        "link add {link} type veth peer name machine netns {pid}"
    ))?;
    ip(&format!("addr add {}/24 dev {link}", addresses.machine()))?;
    ip(&format!("link set {link} up"))?;
    inside(control, "ip link set lo up")?;
    inside(
        control,
        &format!("ip link add {BRIDGE} address {BRIDGE_ADDRESS} type bridge"),
    )?;
    for address in addresses.api_servers() {
        inside(control, &format!("ip addr add {address}/24 dev {BRIDGE}"))?;
    }
    for line in [
        &format!("ip link set {BRIDGE} up"),
        &format!("ip link set machine master {BRIDGE} up"),
    ] {
        inside(control, line)?;
    }
    default_route(addresses, control)
}

/// Links a node to the bridge.
pub(super) fn attach_node(
    addresses: Addresses,
    control: Process,
    node: Process,
    number: u8,
) -> Result<()> {
    let (name, pid) = (node_name(number), node.pid);
    // The link of its life before goes away with the namespace at the other end, in the kernel's own time.
    let _ = inside(control, &format!("ip link del {name}"));
    inside(
        control,
        &format!("ip link add {name} type veth peer name eth0 netns {pid}"),
    )?;
    inside(control, &format!("ip link set {name} master {BRIDGE} up"))?;
    let address = addresses.node(number);
    inside(node, "ip link set lo up")?;
    inside(node, &format!("ip addr add {address}/24 dev eth0"))?;
    inside(node, "ip link set eth0 up")?;
    default_route(addresses, node)
}

/// The machine does not forward: this is what addresses of Services are looked up by before they are translated.
fn default_route(addresses: Addresses, process: Process) -> Result<()> {
    let via = addresses.machine();
    inside(process, &format!("ip route add default via {via}")).map(drop)
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
