//! One process from manifest to end: starts, says how it is, follows its manifest, refuses a bad one.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use sluice_dataplane::app;
use sluice_dataplane::args::{CheckArgs, ManagerArgs, RunArgs, ServeArgs, StandaloneArgs};
use sluice_dataplane::check::check;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

const WAIT: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(50);

/// Free at the moment; the tests of this file run on loopback only.
fn free_port() -> u16 {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.local_addr().expect("a bound socket").port()
}

fn manifest(port: u16, drain: &str) -> String {
    format!(
        "apiVersion: sluice.dev/v1alpha1
kind: Gateway
metadata:
  name: game
spec:
  listeners:
    - name: web
      port: {port}
  relay:
    authentication:
      anonymous: Allowed
  dataPlane:
    drain:
      timeout: {drain}
"
    )
}

fn on_loopback() -> ServeArgs {
    ServeArgs {
        bind: Some(std::net::Ipv4Addr::LOCALHOST.into()),
        admin: SocketAddr::from(([127, 0, 0, 1], 0)),
        workers: std::num::NonZeroUsize::new(1),
        ..ServeArgs::default()
    }
}

fn arguments(path: &Path, serve: ServeArgs) -> StandaloneArgs {
    StandaloneArgs {
        serve,
        ..StandaloneArgs::new([path.to_owned()])
    }
}

/// Status 0 while nobody listens.
async fn get(admin: SocketAddr, path: &str) -> (u16, String) {
    let Ok(mut stream) = TcpStream::connect(admin).await else {
        return (0, String::new());
    };
    let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\n\r\n");
    let mut answer = String::new();
    if stream.write_all(request.as_bytes()).await.is_err()
        || stream.read_to_string(&mut answer).await.is_err()
    {
        return (0, String::new());
    }
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.unwrap_or(0), answer)
}

async fn eventually(admin: SocketAddr, path: &str, what: impl Fn(u16, &str) -> bool) {
    let start = Instant::now();
    loop {
        let (status, body) = get(admin, path).await;
        if what(status, &body) {
            return;
        }
        assert!(start.elapsed() < WAIT, "{path} stays {status}:\n{body}");
        sleep(PAUSE).await;
    }
}

#[tokio::test]
async fn the_manifest_is_followed_and_a_bad_one_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateway.yaml");
    let port = free_port();
    std::fs::write(&path, manifest(port, "30s")).unwrap();
    let data_dir = dir.path().join("data");
    let serve = ServeArgs {
        data_dir: Some(data_dir.clone()),
        ..on_loopback()
    };
    let running = app::standalone(arguments(&path, serve)).await;
    let running = running.expect("the process starts");
    let admin = running.admin;
    assert!(data_dir.is_dir());
    eventually(admin, "/readyz", |status, _| status == 200).await;
    eventually(admin, "/config", |_, body| body.contains("timeout: 30s")).await;

    std::fs::write(&path, manifest(port, "7s")).unwrap();
    eventually(admin, "/config", |_, body| body.contains("timeout: 7s")).await;
    std::fs::write(&path, "kind: [").unwrap();
    let refused = "sluice_config_reloads_total{result=\"refused\"} 1\n";
    eventually(admin, "/metrics", |_, body| body.contains(refused)).await;
    assert!(get(admin, "/config").await.1.contains("timeout: 7s"));
    assert_eq!(get(admin, "/readyz").await.0, 200);
}

#[tokio::test]
async fn a_configuration_file_is_followed_and_a_bad_one_refused() {
    let dir = tempfile::tempdir().unwrap();
    let manifests = dir.path().join("gateway.yaml");
    let port = free_port();
    let write = |text: &str| {
        std::fs::write(&manifests, text).unwrap();
        let args = CheckArgs {
            manifests: vec![manifests.clone()],
            secrets_dir: None,
            write: Some(dir.path().join("pod")),
        };
        // It makes a runtime of its own, which is not possible on this thread.
        let checked = std::thread::spawn(move || check(args, &mut Vec::new()));
        assert!(checked.join().unwrap().unwrap());
    };
    write(&manifest(port, "30s"));
    let path = dir.path().join("pod/config.json");
    let args = RunArgs {
        manager: ManagerArgs::default(),
        config: path.clone(),
        secrets_dir: None,
        serve: on_loopback(),
    };
    let running = app::run(args).await.expect("the process starts");
    let admin = running.admin;
    eventually(admin, "/readyz", |status, _| status == 200).await;
    eventually(admin, "/config", |_, body| body.contains("timeout: 30s")).await;
    write(&manifest(port, "7s"));
    eventually(admin, "/config", |_, body| body.contains("timeout: 7s")).await;
    let good = std::fs::read_to_string(&path).unwrap();
    let bad = good.replace(&format!("\"port\": {port}"), "\"port\": 0");
    assert_ne!(good, bad);
    std::fs::write(&path, bad).unwrap();
    let refused = "sluice_config_reloads_total{result=\"refused\"} 1\n";
    eventually(admin, "/metrics", |_, body| body.contains(refused)).await;
    assert!(get(admin, "/config").await.1.contains("timeout: 7s"));
}

#[tokio::test]
async fn what_stops_a_start_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gateway.yaml");
    std::fs::write(&path, manifest(free_port(), "1s")).unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let cases = [
        (
            arguments(
                &path,
                ServeArgs {
                    data_dir: Some(path.clone()),
                    ..on_loopback()
                },
            ),
            "gateway.yaml",
        ),
        (
            arguments(
                &path,
                ServeArgs {
                    admin: taken.local_addr().unwrap(),
                    ..on_loopback()
                },
            ),
            "admin port 127.0.0.1:",
        ),
        (
            arguments(&dir.path().join("none.yaml"), on_loopback()),
            "none.yaml",
        ),
    ];
    for (args, part) in cases {
        let error = app::standalone(args)
            .await
            .err()
            .expect("a start that fails");
        assert!(
            format!("{error:#}").contains(part),
            "{part} is not in: {error:#}"
        );
    }
}

/// Ends with the test, however the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).expect("the process is there");
    }

    async fn ended(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("a child of this process") {
                return status;
            }
            assert!(start.elapsed() < WAIT, "the process does not end");
            sleep(PAUSE).await;
        }
    }
}

async fn process(dir: &Path) -> (Process, SocketAddr) {
    let path = dir.join("gateway.yaml");
    std::fs::write(&path, manifest(free_port(), "10s")).expect("a writable directory");
    let admin = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let child = Command::new(env!("CARGO_BIN_EXE_sluice"))
        .arg("standalone")
        .arg(&path)
        .args([
            "--admin",
            &admin.to_string(),
            "--bind",
            "127.0.0.1",
            "--workers",
            "1",
        ])
        .stderr(Stdio::null())
        .spawn()
        .expect("sluice starts");
    eventually(admin, "/readyz", |status, _| status == 200).await;
    (Process(child), admin)
}

#[tokio::test]
async fn without_clients_a_signal_ends_the_process_well() {
    let dir = tempfile::tempdir().unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let (mut process, _) = process(dir.path()).await;
        let start = Instant::now();
        process.signal(signal);
        assert_eq!(process.ended().await.code(), Some(0), "{signal:?}");
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "nobody is here to wait for"
        );
    }
}
