//! A node: its files and its machine. What it stores survives being killed and started again.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::addresses::{Addresses, node_name};
use super::cgroup;
use super::components::Programs;
use super::control;
use super::folders::{Home, write};
use super::images::PAUSE;
use super::network;
use super::pki::Pki;
use super::process::Process;
use super::record::{End, Record};
use super::space::Space;

const SCRIPT: &str = include_str!("../../cluster/node.sh");
/// Where Debian has the plugins of the pod network.
pub(super) const CNI_PLUGINS: &str = "/usr/lib/cni";

pub(super) fn space(home: &Home, addresses: Addresses, node: u8) -> Space {
    let cgroup = format!("{}/{}", addresses.cgroup(), node_name(node));
    Space::new(home.node(node), cgroup)
}

/// Starts a node and connects it to the others; with cuts as they are recorded.
pub(super) fn start(
    home: &Home,
    record: &Record,
    programs: &Programs,
    node: u8,
) -> Result<Process> {
    let addresses = record.addresses();
    let space = space(home, addresses, node);
    prepare(home, addresses, &space, node)?;
    // What ran before it is gone, with its groups.
    space.stop()?;
    cgroup::create_in_all(&pods_cgroup(addresses, node))?;
    let init = space.start(
        SCRIPT,
        &[
            ("NODE", &node_name(node)),
            ("ADDRESS", &addresses.node(node).to_string()),
            ("PODS", &addresses.pods()),
            ("IMAGES", &home.images()),
            ("PROGRAMS", &programs.folder()),
        ],
    )?;
    let control = control::space(home, addresses).init();
    let control = control.context("the control plane does not run")?;
    network::attach_node(addresses, control, init, node)?;
    let others = record.nodes.iter().copied().filter(|other| *other != node);
    network::route_to_pods(addresses, init, others)?;
    network::route_from_machine(addresses, node)?;
    network::set_cuts(init, &record.cut_from(End::Node(node)))?;
    space.tell_network()?;
    Ok(init)
}

/// Kills a node as a power failure would.
pub(super) fn kill(home: &Home, addresses: Addresses, node: u8) -> Result<()> {
    space(home, addresses, node).stop()
}

fn pods_cgroup(addresses: Addresses, node: u8) -> String {
    format!("{}/{}/pods", addresses.cgroup(), node_name(node))
}

fn prepare(home: &Home, addresses: Addresses, space: &Space, node: u8) -> Result<()> {
    let (name, pki) = (node_name(node), Pki::open(home.pki())?);
    let names = [name.clone(), addresses.node(node).to_string()];
    let user = format!("system:node:{name}");
    let file = format!("kubelet-{name}");
    let kubelet = pki.identity(&file, &user, Some("system:nodes"), &names)?;
    let proxy = pki.identity("proxy", "system:kube-proxy", None, &[])?;
    let etc = space.folder().join("etc");
    pki.kubeconfig(&etc.join("kubelet.conf"), &addresses.api(), &kubelet)?;
    pki.kubeconfig(&etc.join("proxy.conf"), &addresses.api(), &proxy)?;
    let cni = etc.join("cni");
    let pretty = |value: &Value| serde_json::to_vec_pretty(value);
    write(
        &cni.join("10-pods.conflist"),
        pretty(&pod_network(addresses, node))?,
    )?;
    let cni = cni.to_str().context("the cache's path is not text")?;
    write(&etc.join("containerd.toml"), containerd(cni))?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": pki.ca()},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": kubelet.certificate,
        "tlsPrivateKeyFile": kubelet.key,
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "clusterDNS": [addresses.dns_service()],
        "clusterDomain": "cluster.local",
        // Names outside of the cluster are nobody's here.
        "resolvConf": "",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", pods_cgroup(addresses, node)),
        // Else containers would be in groups that nobody removes after a node that was killed.
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [],
        "failCgroupV1": false,
        "failSwapOn": false,
        "oomScoreAdj": 0,
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // The nodes share one disk and one memory, whose owner is not the cluster.
        "localStorageCapacityIsolation": false,
        "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%", "memory.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": 20,
    });
    write(&etc.join("kubelet.json"), pretty(&config)?)
}

/// A link per pod, without a bridge: every packet is routed by the node, and so seen by its rules for Services.
fn pod_network(addresses: Addresses, node: u8) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "dataDir": "/run/cni",
                    "ranges": [[{"subnet": addresses.pods_of(node)}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

fn containerd(cni: &str) -> String {
    // Without the right to lower the score by which the kernel kills, no pod would start.
    format!(
        r#"version = 3

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE}"

[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{CNI_PLUGINS}"]
    conf_dir = "{cni}"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      SystemdCgroup = false
"#
    )
}
