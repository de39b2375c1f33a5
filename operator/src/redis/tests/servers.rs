//! Pods without Kubernetes: real servers, started by the entry script, each on a loopback address of its own.
//!
//! Never skips: without `redis-server` in the path, starting fails. Everything ends when the fleet is dropped.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::redis::config::{Passwords, Paths, Settings, files, secret_files};
use crate::redis::*;

const PASS: Duration = Duration::from_millis(400);
/// More than one write: of one alone no transaction is made.
const SCRIPT: &str = "redis.call('SET', KEYS[1], '') return redis.call('APPEND', KEYS[1], ARGV[1])";
const GRACE: Duration = Duration::from_secs(15);

/// A pod and the process in it.
struct Place {
    pod: Pod,
    revision: u32,
    child: Option<Child>,
}

pub(super) struct Fleet {
    dir: TempDir,
    pub(super) wanted: Mutex<Wanted>,
    pub(super) redis: Connector,
    settings: Settings,
    network: [u8; 2],
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    places: BTreeMap<String, Place>,
    addresses: u8,
    uids: u32,
    /// Of the StatefulSets; pods of an older one are outdated.
    revision: u32,
    deleted: Vec<String>,
}

pub(super) struct Tls {
    pub(super) files: [(&'static str, String); 3],
    pub(super) client: Arc<rustls::ClientConfig>,
}

impl Fleet {
    /// All pods are started, none knows another.
    pub(super) fn start(wanted: Wanted, tls: Option<Tls>) -> Result<Arc<Self>> {
        let port = fastrand_port();
        let passwords = passwords();
        let redis = Connector {
            port,
            username: Some("operator".to_owned()),
            password: Some(passwords.operator.clone()),
            tls: tls.as_ref().map(|tls| Arc::clone(&tls.client)),
            server_name: tls.as_ref().map(|_| "redis.test".to_owned()),
        };
        let settings = Settings {
            shape: wanted.shape,
            is_persistent: wanted.is_persistent,
            memory_limit_bytes: Some(256 << 20),
            is_tls: tls.is_some(),
            needs_replica_to_write: false,
            port,
            host_suffix: ".gw-redis.test.svc".to_owned(),
            paths: Paths::default(),
        };
        let [a, b, ..] = std::process::id()
            .to_be_bytes()
            .map(|byte| byte.wrapping_add(port.to_be_bytes()[1]));
        let fleet = Arc::new(Self {
            dir: tempfile::tempdir()?,
            redis,
            settings,
            network: [a % 200 + 1, b ^ port.to_be_bytes()[0]],
            state: Mutex::default(),
            wanted: Mutex::new(wanted.clone()),
        });
        for shard in 0..wanted.shape.shards() {
            for ordinal in 0..wanted.shape.pods() {
                let name = format!("gw-redis-s{shard}-{ordinal}");
                fleet.write_files(&name, shard, &passwords, tls.as_ref())?;
                let pod = Pod {
                    name: name.clone(),
                    uid: String::new(),
                    shard,
                    ordinal,
                    node: Some("node".to_owned()),
                    ip: None,
                    is_ready: false,
                    is_outdated: false,
                    is_deleting: false,
                };
                let place = Place {
                    pod,
                    revision: 0,
                    child: None,
                };
                fleet.state().places.insert(name.clone(), place);
                fleet.start_pod(&name, None)?;
            }
        }
        Ok(fleet)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.state().places.keys().cloned().collect()
    }

    fn path(&self, name: &str, what: &str) -> PathBuf {
        self.dir.path().join(name).join(what)
    }

    fn write_files(
        &self,
        name: &str,
        shard: u32,
        passwords: &Passwords,
        tls: Option<&Tls>,
    ) -> Result<()> {
        let path = |what: &str| self.path(name, what).display().to_string();
        let settings = Settings {
            paths: Paths {
                config: path("config"),
                secret: path("secret"),
                tls: path("tls"),
                data: path("data"),
            },
            ..self.settings.clone()
        };
        let all = [
            ("config", files(&settings)),
            ("secret", secret_files(passwords, shard)),
            (
                "tls",
                tls.map(|tls| tls.files.iter().cloned().collect())
                    .unwrap_or_default(),
            ),
            ("data", BTreeMap::new()),
        ];
        for (folder, files) in all {
            std::fs::create_dir_all(self.path(name, folder))?;
            for (file, text) in files {
                std::fs::write(self.path(name, folder).join(file), text)?;
            }
        }
        Ok(())
    }

    /// On this address, or one that nobody has had.
    pub(super) fn start_pod(&self, name: &str, ip: Option<IpAddr>) -> Result<()> {
        let mut state = self.state();
        state.addresses += 1;
        state.uids += 1;
        let fresh = IpAddr::from(Ipv4Addr::new(
            127,
            self.network[0],
            self.network[1],
            state.addresses,
        ));
        let (uid, revision) = (format!("uid-{}", state.uids), state.revision);
        let place = state.places.get_mut(name).context("no such pod")?;
        let ip = ip.unwrap_or(fresh);
        place.pod.ip = Some(ip);
        place.pod.uid = uid;
        place.pod.is_deleting = false;
        place.revision = revision;
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(name, "log"))?;
        let child = Command::new("sh")
            .arg(self.path(name, "config").join("entry.sh"))
            .args(["--bind", &ip.to_string()])
            .env("POD_IP", ip.to_string())
            .env("POD_NAME", name)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        place.child = Some(child);
        Ok(())
    }

    pub(super) fn ip(&self, name: &str) -> Option<IpAddr> {
        self.state().places.get(name).and_then(|place| place.pod.ip)
    }

    /// As `kill -9` does.
    pub(super) fn kill(&self, name: &str) {
        let child = self
            .state()
            .places
            .get_mut(name)
            .and_then(|place| place.child.take());
        if let Some(mut child) = child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub(super) fn wipe(&self, name: &str) -> Result<()> {
        let data = self.path(name, "data");
        std::fs::remove_dir_all(&data)?;
        Ok(std::fs::create_dir_all(&data)?)
    }

    pub(super) fn forget_identity(&self, name: &str) -> Result<()> {
        Ok(std::fs::remove_file(
            self.path(name, "data").join("nodes.conf"),
        )?)
    }

    /// As the kubelet does: the stop script, the signal, the end.
    fn stop(&self, name: &str) {
        let ip = self.ip(name).map(|ip| ip.to_string()).unwrap_or_default();
        let _ = self.script(name, "pre-stop.sh", &ip);
        let child = self
            .state()
            .places
            .get_mut(name)
            .and_then(|place| place.child.take());
        if let Some(mut child) = child {
            let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
            let _ = pid.map(|pid| kill_process(pid, Signal::TERM));
            let deadline = Instant::now() + GRACE;
            while child.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < deadline
            {
                std::thread::sleep(Duration::from_millis(20));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Whether the script ended well.
    pub(super) fn script(&self, name: &str, script: &str, ip: &str) -> bool {
        let mut command = Command::new("sh");
        command.arg(self.path(name, "config").join(script));
        command.env("POD_IP", ip).env("POD_NAME", name);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    }

    /// From now on all pods are outdated.
    pub(super) fn new_revision(&self) {
        self.state().revision += 1;
    }

    pub(super) fn deleted(&self) -> Vec<String> {
        self.state().deleted.clone()
    }

    pub(super) fn log(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.path(name, "log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }

    /// As the API server has them, readiness by the readiness script.
    async fn pods(self: &Arc<Self>) -> Result<Vec<Pod>> {
        let pods: Vec<Pod> = {
            let state = self.state();
            let places = state.places.values();
            let pod = |place: &Place| Pod {
                is_outdated: place.revision != state.revision,
                is_ready: place.child.is_some(),
                ..place.pod.clone()
            };
            places.map(pod).collect()
        };
        let probes = pods.into_iter().map(|mut pod| {
            let fleet = Arc::clone(self);
            spawn_blocking(move || {
                let ip = pod.ip.map(|ip| ip.to_string()).unwrap_or_default();
                pod.is_ready = pod.is_ready && fleet.script(&pod.name, "readiness.sh", &ip);
                pod
            })
        });
        Ok(futures_util::future::try_join_all(probes).await?)
    }

    /// One pass of an operator that remembers what the one before it did, or nothing.
    pub(super) async fn pass(self: &Arc<Self>, memory: Memory) -> Result<(Observation, Decision)> {
        let wanted = self
            .wanted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let seen = observe(self.pods().await?, wanted.shape, &self.redis).await;
        let decision = plan(&seen, &wanted, memory, Instant::now());
        let executed = execute(&decision.steps, &self.redis, &Kubelet(Arc::clone(self))).await;
        for failure in &executed.failed {
            println!("failed: {failure}");
        }
        for step in &executed.done {
            println!(
                "{:?} {step}",
                std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs() % 1000
            );
        }
        Ok((seen, decision))
    }

    /// Passes until the decision is as it should be.
    pub(super) async fn until(
        self: &Arc<Self>,
        what: &str,
        within: Duration,
        is_so: impl Fn(&Decision) -> bool,
    ) -> Result<(Observation, Decision)> {
        let deadline = Instant::now() + within;
        let mut memory = Memory::default();
        loop {
            let (seen, decision) = self.pass(memory).await?;
            if is_so(&decision) {
                println!(
                    "{what} after {:?}",
                    within.saturating_sub(deadline - Instant::now())
                );
                return Ok((seen, decision));
            }
            if Instant::now() > deadline {
                let logs: Vec<String> = self
                    .names()
                    .iter()
                    .map(|n| format!("{n}\n{}", self.log(n)))
                    .collect();
                bail!(
                    "not {what} after {within:?}: {decision:?}\n{}",
                    logs.join("\n")
                );
            }
            memory = decision.memory;
            sleep(PASS).await;
        }
    }

    pub(super) async fn until_whole(self: &Arc<Self>, within: Duration) -> Result<Observation> {
        let whole = |decision: &Decision| {
            let summary = &decision.summary;
            summary.is_healthy
                && summary.is_updated()
                && decision.steps.is_empty()
                && decision.hold.is_none()
        };
        Ok(self.until("whole", within, whole).await?.0)
    }

    /// The pod that is the primary of the shard.
    pub(super) async fn primary(self: &Arc<Self>, shard: usize) -> Result<String> {
        let (_, decision) = self.pass(Memory::default()).await?;
        decision.summary.shards[shard]
            .primary
            .clone()
            .context("no primary")
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for name in self.names() {
            self.kill(&name);
        }
    }
}

/// Deletes pods and starts their successors.
struct Kubelet(Arc<Fleet>);

#[async_trait]
impl Pods for Kubelet {
    async fn delete(&self, name: &str, uid: &str) -> Result<(), String> {
        {
            let mut state = self.0.state();
            let place = state.places.get_mut(name).ok_or("no such pod")?;
            if place.pod.uid != uid || place.pod.is_deleting {
                return Ok(());
            }
            place.pod.is_deleting = true;
            state.deleted.push(name.to_owned());
        }
        let (fleet, name) = (Arc::clone(&self.0), name.to_owned());
        // Ends with the pod; the fleet lives as long.
        drop(spawn_blocking(move || {
            fleet.stop(&name);
            if !fleet.settings.is_persistent {
                let _ = fleet.wipe(&name);
            }
            let _ = fleet.start_pod(&name, None);
        }));
        Ok(())
    }
}

pub(super) fn passwords() -> Passwords {
    Passwords {
        operator: "operator-secret".to_owned(),
        data_plane: "data-plane-secret".to_owned(),
        replication: "replication-secret".to_owned(),
    }
}

/// Apart from the ports of other tests' servers, and with the bus below the kernel's for outgoing connections.
fn fastrand_port() -> u16 {
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    *next += 1;
    12_000 + u16::try_from(std::process::id() % 100).unwrap_or(0) * 40 + *next
}

/// Client of the data: follows the cluster's redirections, and counts what was acknowledged by a replica as well.
pub(super) struct Writer {
    redis: Connector,
    seeds: Vec<IpAddr>,
    pub(super) acknowledged: BTreeSet<u32>,
}

impl Writer {
    pub(super) fn new(fleet: &Fleet) -> Self {
        let seeds = fleet
            .names()
            .iter()
            .filter_map(|name| fleet.ip(name))
            .collect();
        let redis = Connector {
            username: Some("dataplane".to_owned()),
            password: Some(passwords().data_plane),
            ..fleet.redis.clone()
        };
        Self {
            redis,
            seeds,
            acknowledged: BTreeSet::new(),
        }
    }

    pub(super) fn reseed(&mut self, fleet: &Fleet) {
        self.seeds = Self::new(fleet).seeds;
    }

    /// On the server that owns the key's slot, whoever that is.
    async fn call(&self, words: &[&str], wait: Option<&str>) -> Result<String> {
        let mut to = None;
        for attempt in 0..30 {
            let ip = to.take().unwrap_or(self.seeds[attempt % self.seeds.len()]);
            let Ok(link) = self.redis.connect(ip).await else {
                continue;
            };
            match link.call(words).await {
                Ok(answer) => {
                    if let Some(replicas) = wait {
                        let acknowledged = link.call(&["WAIT", replicas, "1000"]).await?;
                        if acknowledged != crate::redis::link::Reply::Integer(replicas.parse()?) {
                            bail!("no replica has it");
                        }
                    }
                    return Ok(answer.text().unwrap_or_default().to_owned());
                }
                Err(LinkError::Refused(text)) if text.starts_with("MOVED") => {
                    let place = text.split(' ').nth(2).unwrap_or_default();
                    to = place.rsplit_once(':').and_then(|(ip, _)| ip.parse().ok());
                }
                Err(_) => sleep(Duration::from_millis(100)).await,
            }
        }
        bail!("nobody answers")
    }

    /// By a script, as data planes do: the append-only file has its writes as a transaction.
    pub(super) async fn write(&mut self, key: u32, replicas: &str) {
        let name = format!("sluice:test:{key}");
        if self
            .call(
                &["EVAL", SCRIPT, "1", &name, &key.to_string()],
                Some(replicas),
            )
            .await
            .is_ok()
        {
            self.acknowledged.insert(key);
        }
    }

    pub(super) async fn verify(&self) -> Result<()> {
        let mut missing = Vec::new();
        for key in &self.acknowledged {
            let value = self
                .call(&["GET", &format!("sluice:test:{key}")], None)
                .await?;
            if value != key.to_string() {
                missing.push(*key);
            }
        }
        anyhow::ensure!(
            missing.is_empty(),
            "{} of {} are lost: {missing:?}",
            missing.len(),
            self.acknowledged.len()
        );
        Ok(())
    }
}

/// An authority and a certificate that all servers have, for `redis.test`.
pub(super) fn tls() -> Result<Tls> {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, "authority");
    let key = KeyPair::generate()?;
    let ca = authority.self_signed(&key)?.pem();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate()?;
    let server = CertificateParams::new(vec!["redis.test".to_owned()])?.signed_by(&key, &issuer)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls_pki_types::pem::PemObject::from_pem_slice(
        ca.as_bytes(),
    )?)?;
    let client = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()?
    .with_root_certificates(roots)
    .with_no_client_auth();
    Ok(Tls {
        files: [
            ("tls.crt", server.pem()),
            ("tls.key", key.serialize_pem()),
            ("ca.crt", ca),
        ],
        client: Arc::new(client),
    })
}
