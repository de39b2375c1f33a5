//! What a cluster is called on this machine and which addresses it has, all derived from one small number. Pure.

use std::net::Ipv4Addr;

/// Clusters that can be up side by side.
pub(super) const CLUSTERS_MAX: u8 = 16;
/// A node takes about 150 MB before it runs a pod.
pub const NODES_MAX: u8 = 32;
/// One takes about 300 MB; two show what is different when there is more than one.
pub const API_SERVERS_MAX: u8 = 2;

const NODE_NETWORKS: u8 = 200;
const POD_NETWORKS: u8 = 208;
const SERVICE_NETWORKS: u8 = 224;
/// The nodes' addresses come after those of the machine and the control plane.
const FIRST_NODE: u8 = 10;

/// The names and addresses of the cluster with this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Addresses {
    pub(super) index: u8,
}

impl Addresses {
    /// The machine's own link to the cluster.
    pub(super) fn link(self) -> String {
        format!("sluice{}", self.index)
    }

    /// The control group over everything that belongs to the cluster.
    pub(super) fn cgroup(self) -> String {
        format!("sluice{}", self.index)
    }

    /// The machine's own address in the cluster.
    pub(super) fn machine(self) -> Ipv4Addr {
        Ipv4Addr::new(10, NODE_NETWORKS, self.index, 1)
    }

    pub(super) fn control(self) -> Ipv4Addr {
        Ipv4Addr::new(10, NODE_NETWORKS, self.index, 2)
    }

    /// What an API server announces as its own address; the first one's is that of the control plane.
    pub(super) fn api_server(self, server: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, NODE_NETWORKS, self.index, 1 + server)
    }

    /// All addresses of the control plane.
    pub(super) fn api_servers(self) -> impl Iterator<Item = Ipv4Addr> {
        (1..=API_SERVERS_MAX).map(move |server| self.api_server(server))
    }

    pub(super) fn node(self, node: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, NODE_NETWORKS, self.index, FIRST_NODE + node)
    }

    pub(super) fn node_network(self) -> String {
        format!("10.{NODE_NETWORKS}.{}.0/24", self.index)
    }

    pub(super) fn pods(self) -> String {
        format!("10.{}.0.0/16", POD_NETWORKS + self.index)
    }

    pub(super) fn pods_of(self, node: u8) -> String {
        format!("10.{}.{node}.0/24", POD_NETWORKS + self.index)
    }

    pub(super) fn services(self) -> String {
        format!("10.{}.0.0/16", SERVICE_NETWORKS + self.index)
    }

    /// The Service `kubernetes`, which is the API server.
    pub(super) fn api_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, SERVICE_NETWORKS + self.index, 0, 1)
    }

    pub(super) fn dns_service(self) -> Ipv4Addr {
        Ipv4Addr::new(10, SERVICE_NETWORKS + self.index, 0, 10)
    }

    /// How the API server is reached, from the machine and from nodes.
    pub(super) fn api(self) -> String {
        format!("https://{}:6443", self.control())
    }
}

/// The name of a node.
#[must_use]
pub fn node_name(node: u8) -> String {
    format!("node{node}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clusters_have_nothing_in_common() {
        let (a, b) = (Addresses { index: 0 }, Addresses { index: 15 });
        assert_ne!(a.link(), b.link());
        assert_eq!(a.pods(), "10.208.0.0/16");
        assert_eq!(b.pods(), "10.223.0.0/16");
        assert_eq!(a.services(), "10.224.0.0/16");
        assert_eq!(b.services(), "10.239.0.0/16");
        assert_eq!(a.control(), a.api_server(1));
        assert!(a.api_server(API_SERVERS_MAX) < a.node(1));
        assert_eq!(b.node(NODES_MAX), Ipv4Addr::new(10, 200, 15, 42));
    }
}
