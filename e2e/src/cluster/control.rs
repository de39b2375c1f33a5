//! The control plane: the certificates and files it needs, and its machine.

use anyhow::Result;

use super::addresses::Addresses;
use super::components::Programs;
use super::folders::{Home, write};
use super::network;
use super::pki::Pki;
use super::process::Process;
use super::space::Space;

const SCRIPT: &str = include_str!("../../cluster/control.sh");
const AUDIT_POLICY: &str = include_str!("../../cluster/manifests/audit-policy.yaml");
const MASTERS: Option<&str> = Some("system:masters");

pub(super) fn space(home: &Home, addresses: Addresses) -> Space {
    Space::new(home.control(), format!("{}/control", addresses.cgroup()))
}

/// Starts it and connects it to the bridge.
pub(super) fn start(
    home: &Home,
    addresses: Addresses,
    programs: &Programs,
    nodes: &[u8],
) -> Result<Process> {
    let space = space(home, addresses);
    prepare(home, addresses, &space)?;
    let init = space.start(
        SCRIPT,
        &[
            ("ADDRESS", &addresses.control().to_string()),
            ("SERVICES", &addresses.services()),
            ("PODS", &addresses.pods()),
            ("PKI", &home.pki()),
            ("NODES", &home.nodes()),
            ("ETCD", &programs.etcd),
            ("KUBERNETES", &programs.kubernetes),
        ],
    )?;
    network::attach_control(addresses, init)?;
    // For webhooks and extensions of the API that run as pods.
    network::route_to_pods(addresses, init, nodes.iter().copied())?;
    space.tell("network")?;
    Ok(init)
}

fn prepare(home: &Home, addresses: Addresses, space: &Space) -> Result<()> {
    let pki = Pki::open(home.pki())?;
    let names = [
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        "kubernetes.default.svc.cluster.local".to_owned(),
        "localhost".to_owned(),
        addresses.control().to_string(),
        addresses.api_service().to_string(),
    ];
    pki.identity("apiserver", "kube-apiserver", None, &names)?;
    pki.identity("apiserver-kubelet", "kube-apiserver-kubelet", MASTERS, &[])?;
    pki.front_proxy()?;
    let api = addresses.api();
    let admin = pki.identity("admin", "admin", MASTERS, &[])?;
    pki.kubeconfig(&home.kubeconfig(), &api, &admin)?;
    for (file, user) in [
        ("controller-manager", "system:kube-controller-manager"),
        ("scheduler", "system:kube-scheduler"),
        ("volumes", "sluice:local-volumes"),
    ] {
        let identity = pki.identity(file, user, None, &[])?;
        let path = space.folder().join(format!("{file}.conf"));
        pki.kubeconfig(&path, &api, &identity)?;
    }
    write(&space.folder().join("audit-policy.yaml"), AUDIT_POLICY)
}
