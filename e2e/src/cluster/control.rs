//! The control plane: the certificates and files it needs, and its machine.

use anyhow::Result;

use super::addresses::Addresses;
use super::components::Programs;
use super::folders::{Home, write};
use super::network;
use super::pki::Pki;
use super::process::Process;
use super::record::Record;
use super::space::Space;

const SCRIPT: &str = include_str!("../../cluster/control.sh");
const AUDIT_POLICY: &str = include_str!("../../cluster/manifests/audit-policy.yaml");
const MASTERS: Option<&str> = Some("system:masters");

pub(super) fn space(home: &Home, addresses: Addresses) -> Space {
    Space::new(home.control(), format!("{}/control", addresses.cgroup()))
}

/// Starts it and connects it to the bridge.
pub(super) fn start(home: &Home, record: &Record, programs: &Programs) -> Result<Process> {
    let addresses = record.addresses();
    let space = space(home, addresses);
    prepare(home, addresses, &space)?;
    let servers = 1..=record.api_servers;
    let announced: Vec<String> = servers
        .map(|server| addresses.api_server(server).to_string())
        .collect();
    space.stop()?;
    let init = space.start(
        SCRIPT,
        &[
            ("API_ADDRESSES", &announced.join(" ")),
            ("SERVICES", &addresses.services()),
            ("PODS", &addresses.pods()),
            ("PKI", &home.pki()),
            ("NODES", &home.nodes()),
            ("PROGRAMS", &programs.folder()),
        ],
    )?;
    network::attach_control(addresses, init)?;
    // For webhooks and extensions of the API that run as pods.
    network::route_to_pods(addresses, init, record.nodes.iter().copied())?;
    space.tell_network()?;
    Ok(init)
}

fn prepare(home: &Home, addresses: Addresses, space: &Space) -> Result<()> {
    let pki = Pki::open(home.pki())?;
    let mut names = vec![
        "kubernetes".to_owned(),
        "kubernetes.default".to_owned(),
        "kubernetes.default.svc".to_owned(),
        "kubernetes.default.svc.cluster.local".to_owned(),
        "localhost".to_owned(),
        addresses.api_service().to_string(),
    ];
    names.extend(addresses.api_servers().map(|address| address.to_string()));
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
