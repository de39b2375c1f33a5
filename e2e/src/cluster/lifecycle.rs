//! Brings a cluster up, changes it, and takes it down; every step may be done again after one that was broken off.
//!
//! What is to be made is recorded before it is made. Its callers hold the cluster's lock.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::addresses::node_name;
use super::components::Programs;
use super::folders::{Home, clusters, locked};
use super::kubectl::Kubectl;
use super::record::{End, Record};
use super::{api_servers, cgroup, control, images, machine, network, node};

const READY_TIMEOUT: Duration = Duration::from_secs(240);

const STORAGE: &str = include_str!("../../cluster/manifests/storage.yaml");
const DNS: &str = include_str!("../../cluster/manifests/dns.yaml");

/// Makes sure that the cluster is up with these nodes and perhaps more, ready to be used.
pub(super) fn up(
    home: &Home,
    programs: &Programs,
    nodes: u8,
    api_servers: Option<u8>,
) -> Result<()> {
    let record = match Record::load(home)? {
        Some(record) if is_current(home, &record, programs) => record,
        Some(_) => {
            eprintln!("what is left of an earlier cluster is removed");
            down(home)?;
            claim(home, programs, api_servers)?
        }
        None => {
            // A run that was broken off while it removed the cluster may have left files.
            down(home)?;
            claim(home, programs, api_servers)?
        }
    };
    ensure!(
        api_servers.is_none_or(|wanted| wanted == record.api_servers),
        "the cluster is up with {} API servers: take it down first",
        record.api_servers
    );
    let record = with_nodes(home, record, nodes)?;
    images::prepare(home, programs)?;
    let addresses = record.addresses();
    let control = control::space(home, addresses);
    if !control.is_started() {
        control::start(home, &record, programs)?;
    }
    api_servers::release(home)?;
    for number in &record.nodes {
        if !node::space(home, addresses, *number).is_started() {
            node::start(home, &record, programs, *number)?;
        }
    }
    connect(home, &record)?;
    let kubectl = Kubectl::new(programs, home);
    api_servers::wait_ready(home, &record, &kubectl)?;
    control.tell("api")?;
    for number in &record.nodes {
        node::space(home, addresses, *number).tell("api")?;
    }
    let dns = DNS.replace("DNS_ADDRESS", &addresses.dns_service().to_string());
    kubectl.apply(&format!("{STORAGE}\n---\n{dns}"))?;
    for number in &record.nodes {
        wait_node(home, &record, &kubectl, *number)?;
    }
    let seconds = READY_TIMEOUT.as_secs();
    kubectl
        .run(&[
            "--namespace=kube-system",
            "rollout",
            "status",
            "deployment/coredns",
            &format!("--timeout={seconds}s"),
        ])
        .map(drop)
}

/// Whether what is recorded can be gone on with.
fn is_current(home: &Home, record: &Record, programs: &Programs) -> bool {
    let control = control::space(home, record.addresses());
    record.programs == programs.fingerprint() && control.is_started()
}

/// Records a new cluster, with a number of its own.
fn claim(home: &Home, programs: &Programs, api_servers: Option<u8>) -> Result<Record> {
    let _lock = locked(&clusters()?.join("clusters.lock"))?;
    let record = Record {
        index: network::free_index(&Record::indexes()?)?,
        programs: programs.fingerprint(),
        nodes: Vec::new(),
        api_servers: api_servers.unwrap_or(1),
        cuts: Vec::new(),
    };
    machine::remember()?;
    std::fs::create_dir_all(home.path())?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(home.path(), mode)?;
    std::fs::create_dir_all(home.bin())?;
    symlink(programs.program("kubectl"), home.bin().join("kubectl"))?;
    record.save(home)?;
    Ok(record)
}

fn with_nodes(home: &Home, mut record: Record, nodes: u8) -> Result<Record> {
    record.nodes.extend(1..=nodes);
    record.nodes.sort_unstable();
    record.nodes.dedup();
    record.save(home)?;
    if !record.cuts.is_empty() {
        set_cuts(home, record.clone(), Vec::new())?;
        record.cuts.clear();
    }
    Ok(record)
}

/// Everybody knows the way to the pods of everybody else, those added later too.
fn connect(home: &Home, record: &Record) -> Result<()> {
    let addresses = record.addresses();
    if let Some(init) = control::space(home, addresses).init() {
        network::route_to_pods(addresses, init, record.nodes.iter().copied())?;
    }
    for number in &record.nodes {
        if let Some(init) = node::space(home, addresses, *number).init() {
            let others = record.nodes.iter().copied().filter(|o| o != number);
            network::route_to_pods(addresses, init, others)?;
        }
    }
    Ok(())
}

fn wait_node(home: &Home, record: &Record, kubectl: &Kubectl, number: u8) -> Result<()> {
    let (name, deadline) = (node_name(number), Instant::now() + READY_TIMEOUT);
    loop {
        let found = kubectl.run(&[
            "wait",
            "--for=condition=Ready",
            &format!("node/{name}"),
            "--timeout=10s",
        ]);
        let Err(error) = found else { return Ok(()) };
        let space = node::space(home, record.addresses(), number);
        let logs = || {
            let names = ["init", "containerd", "images", "kubelet"];
            names
                .map(|log| format!("{log}: {}", space.log(log)))
                .join("\n")
        };
        ensure!(space.init().is_some(), "{name} ended: {}", logs());
        ensure!(
            Instant::now() < deadline,
            "{name} is not ready after {READY_TIMEOUT:?}: {error:#}\n{}",
            logs()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Removes the cluster and whatever an earlier one left of it.
pub(super) fn down(home: &Home) -> Result<()> {
    if let Some(record) = Record::load(home)? {
        // The control plane and all nodes with everything they started.
        cgroup::sweep(&record.addresses().cgroup())?;
        network::remove(record.addresses())?;
    }
    let _lock = locked(&clusters()?.join("clusters.lock"))?;
    remove_files(home.path())?;
    if Record::indexes()?.is_empty() {
        machine::restore()?;
    }
    Ok(())
}

/// Mounts are in the nodes' namespaces and went with them; should one be here all the same, nothing below it is removed.
fn remove_files(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let inside = mounts
        .lines()
        .filter_map(|line| line.split_whitespace().nth(4))
        .find(|point| Path::new(point).starts_with(folder));
    if let Some(point) = inside {
        bail!("{point} is mounted: not removing {}", folder.display());
    }
    std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())
}

pub(super) fn kill_node(home: &Home, record: &Record, number: u8) -> Result<()> {
    ensure_node(record, number)?;
    node::kill(home, record.addresses(), number)
}

/// Starts a node again, after killing it if it runs, and waits until it is ready.
pub(super) fn restart_node(
    home: &Home,
    record: &Record,
    programs: &Programs,
    number: u8,
) -> Result<()> {
    ensure_node(record, number)?;
    let addresses = record.addresses();
    node::kill(home, addresses, number)?;
    let kubectl = Kubectl::new(programs, home);
    let before = heartbeat(&kubectl, number)?;
    node::start(home, record, programs, number)?;
    node::space(home, addresses, number).tell("api")?;
    if record.cuts.iter().any(|(a, b)| {
        let ends = [*a, *b];
        ends.contains(&End::Control) && ends.contains(&End::Node(number))
    }) {
        // It cannot report to the control plane.
        return Ok(());
    }
    // What the API server says of it may still be from before it was killed.
    let deadline = Instant::now() + READY_TIMEOUT;
    while heartbeat(&kubectl, number)? == before {
        ensure!(
            Instant::now() < deadline,
            "{} does not report: {}",
            node_name(number),
            node::space(home, addresses, number).log("kubelet")
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    wait_node(home, record, &kubectl, number)
}

/// When a node last said that it is there.
fn heartbeat(kubectl: &Kubectl, number: u8) -> Result<String> {
    kubectl.run(&[
        "--namespace=kube-node-lease",
        "get",
        "lease",
        &node_name(number),
        "--ignore-not-found",
        "--output=jsonpath={.spec.renewTime}",
    ])
}

/// Cuts and heals: everybody's rules are set anew.
pub(super) fn set_cuts(home: &Home, mut record: Record, cuts: Vec<(End, End)>) -> Result<()> {
    for (a, b) in &cuts {
        ensure!(a != b, "{a} has no link to itself");
        for end in [a, b] {
            if let End::Node(number) = end {
                ensure_node(&record, *number)?;
            }
        }
    }
    record.cuts = cuts;
    record.save(home)?;
    let addresses = record.addresses();
    let nodes = record.nodes.iter().map(|number| End::Node(*number));
    for end in nodes.chain([End::Control]) {
        let space = match end {
            End::Control => control::space(home, addresses),
            End::Node(number) => node::space(home, addresses, number),
        };
        // A node that is down gets them when it starts.
        if let Some(init) = space.init() {
            network::set_cuts(init, &record.cut_from(end))?;
        }
    }
    Ok(())
}

/// Loads an archive into every node that runs, and keeps it for the others.
pub(super) fn load_image(
    home: &Home,
    record: &Record,
    programs: &Programs,
    archive: &Path,
) -> Result<()> {
    let Some(kept) = images::load(home, archive)? else {
        return Ok(());
    };
    for number in &record.nodes {
        let space = node::space(home, record.addresses(), *number);
        if let Some(init) = space.init() {
            images::import(programs, init, space.folder(), &kept)
                .with_context(|| node_name(*number))?;
        }
    }
    Ok(())
}

fn ensure_node(record: &Record, number: u8) -> Result<()> {
    ensure!(
        record.nodes.contains(&number),
        "there is no {}; there are {}",
        node_name(number),
        record
            .nodes
            .iter()
            .map(|n| node_name(*n))
            .collect::<Vec<_>>()
            .join(", ")
    );
    Ok(())
}
