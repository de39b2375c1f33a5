//! The API servers of a cluster: killed and started one by one, as one of several is in an upgrade or a crash.
//!
//! They have one store, and listen on the same port of the same addresses: the kernel gives each new connection to one
//! of those that live, as a load balancer would. Each announces an address of its own, and the Service `kubernetes`
//! leads to those that live.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::addresses::API_SERVERS_MAX;
use super::command::run;
use super::control;
use super::folders::{Home, write};
use super::kubectl::Kubectl;
use super::network;
use super::process::Process;
use super::record::Record;

/// A server that is held back is told so within a second.
const KILL_TIMEOUT: Duration = Duration::from_secs(30);
/// It starts in 5 s, and in a minute on a machine that is busy with everything else.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(180);

/// Nobody says which server a connection gets; of two, one is missed by so many connections once in four thousand times.
const ANSWERS: usize = 12;

/// What the control plane's script calls a server; also the name of its log.
pub(super) fn name(server: u8) -> String {
    match server {
        1 => "kube-apiserver".to_owned(),
        other => format!("kube-apiserver-{other}"),
    }
}

/// While this is there, the server is not started.
fn held(home: &Home, server: u8) -> PathBuf {
    home.control().join("held").join(name(server))
}

/// Names the server's process in the control plane's namespaces while there is one.
fn running(home: &Home, server: u8) -> PathBuf {
    home.control().join("running").join(name(server))
}

/// Whether it is meant to run, and does or is about to.
pub(super) fn is_up(home: &Home, server: u8) -> bool {
    running(home, server).exists() && !held(home, server).exists()
}

fn ensure_server(record: &Record, server: u8) -> Result<()> {
    let all = record.api_servers;
    ensure!(
        (1..=all).contains(&server),
        "there is no API server {server}; there are {all}"
    );
    Ok(())
}

/// Kills a server and keeps it from being started again.
pub(super) fn kill(home: &Home, record: &Record, server: u8) -> Result<()> {
    ensure_server(record, server)?;
    let init = control::space(home, record.addresses()).init();
    let init = init.context("the control plane does not run")?;
    write(&held(home, server), "")?;
    let deadline = Instant::now() + KILL_TIMEOUT;
    // Gone once the script has seen that it is held.
    while let Ok(text) = fs::read_to_string(running(home, server)) {
        let pid = text.trim().parse::<u32>().unwrap_or(0);
        if pid > 0 {
            let (target, kill) = (init.pid.to_string(), format!("kill -9 {pid}"));
            // It may have ended already.
            let _ = run(
                "nsenter",
                &["--target", &target, "--pid", "sh", "-c", &kill],
            );
        }
        ensure!(
            Instant::now() < deadline,
            "API server {server} does not end"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Starts a server again, after killing it if it runs; returns when the Service leads to it.
pub(super) fn restart(home: &Home, record: &Record, kubectl: &Kubectl, server: u8) -> Result<()> {
    kill(home, record, server)?;
    fs::remove_file(held(home, server))?;
    wait_ready(home, record, kubectl)
}

/// All of them are meant to run again.
pub(super) fn release(home: &Home) -> Result<()> {
    for server in 1..=API_SERVERS_MAX {
        let held = held(home, server);
        if held.exists() {
            fs::remove_file(held)?;
        }
    }
    Ok(())
}

/// Waits until all that are meant to run answer.
pub(super) fn wait_ready(home: &Home, record: &Record, kubectl: &Kubectl) -> Result<()> {
    let servers = (1..=record.api_servers).filter(|server| !held(home, *server).exists());
    let addresses = record.addresses();
    let expected: BTreeSet<String> = servers
        .map(|server| addresses.api_server(server).to_string())
        .collect();
    if expected.is_empty() {
        return Ok(());
    }
    let control = control::space(home, addresses);
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let init = control.init();
        let init =
            init.with_context(|| format!("the control plane ended: {}", control.log("init")))?;
        let error = match answering(kubectl, init, expected.len()) {
            Ok(found) if found.is_superset(&expected) => return Ok(()),
            Ok(found) => anyhow::anyhow!("there are {found:?} of {expected:?}"),
            Err(error) => error,
        };
        if Instant::now() >= deadline {
            let servers = 1..=record.api_servers;
            let logs: Vec<String> = servers.map(|server| control.log(&name(server))).collect();
            bail!(
                "API servers not ready after {START_TIMEOUT:?}: {error:#}\n{}\n{}",
                control.log("etcd"),
                logs.join("\n")
            );
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The addresses of those that have announced themselves; an error unless all that listen are ready.
fn answering(kubectl: &Kubectl, init: Process, servers: usize) -> Result<BTreeSet<String>> {
    let listeners = network::inside(init, "ss -Hltn sport = :6443")?;
    let listeners = listeners.lines().count();
    ensure!(listeners >= servers, "{listeners} of {servers} listen");
    let answers = if servers == 1 { 1 } else { ANSWERS };
    for _ in 0..answers {
        kubectl.run(&["get", "--raw", "/readyz"])?;
    }
    let found = kubectl.run(&[
        "--namespace=default",
        "get",
        "endpointslice",
        "kubernetes",
        "--output=jsonpath={.endpoints[*].addresses[*]}",
    ])?;
    Ok(found.split_whitespace().map(ToOwned::to_owned).collect())
}
