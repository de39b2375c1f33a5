//! A measurement: what the monitor costs with 100 pods and 1,000 applications, all of them busy.
//! `cargo test --release --package sluice-manager --test monitor_scale -- --ignored --nocapture`

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panic")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_manager::monitor::api::json_answer;
use sluice_manager::{Fleet, Policy, Rebalance, Scaling};
use sluice_proto::fleet::{Application, Report};

const PODS: usize = 100;
const APPLICATIONS: usize = 1_000;
const SECONDS: u64 = 30;

fn names() -> Vec<Arc<str>> {
    let names = 0..APPLICATIONS;
    names
        .map(|n| format!("application-{n:04}").into())
        .collect()
}

fn report(pod: usize, second: u64, names: &[Arc<str>]) -> Report {
    let applications = names.iter().map(|name| Application {
        name: Arc::clone(name),
        arrived_total: second * 10,
        delivered_total: second * 9,
        waiting: second,
        held: "Cap".into(),
        ..Application::default()
    });
    Report {
        gateway: "n/g".into(),
        pod: format!("pod-{pod:03}").into(),
        instance: "i".into(),
        sequence: second + 1,
        applications: applications.collect(),
        ..Report::default()
    }
}

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn memory_mb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<f64>()
        .unwrap()
        / 1024.0
}

#[expect(clippy::disallowed_methods, reason = "a measurement")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test]
#[ignore = "a measurement"]
async fn a_hundred_pods_with_a_thousand_applications() {
    let names = names();
    let policy = Policy {
        caps: BTreeMap::new(),
        applications: names.iter().cloned().collect(),
        scaling: Scaling::default(),
        rebalance: Rebalance::Off,
        moves_per_second: None,
        fence_delay: Duration::ZERO,
        steering: true,
    };
    let (fleet, run) = Fleet::start(1, policy);
    tokio::spawn(run);
    let (mut feeding, began, before) = (0.0, now(), cpu_seconds());
    let mut asked = Vec::new();
    for second in 0..SECONDS {
        let due = began + Duration::from_secs(second);
        tokio::time::sleep(due.saturating_duration_since(now())).await;
        let at = cpu_seconds();
        let reports: Vec<Report> = (0..PODS).map(|pod| report(pod, second, &names)).collect();
        feeding += cpu_seconds() - at;
        for report in reports {
            fleet.report(report).await;
        }
        let at = now();
        let snapshot = fleet.look(|fleet| Some(fleet.snapshot())).await.unwrap();
        let applications = fleet
            .look(|fleet| Some(fleet.applications()))
            .await
            .unwrap();
        let bytes = json_answer(http::StatusCode::OK, &snapshot)
            .into_body()
            .len()
            + json_answer(http::StatusCode::OK, &applications)
                .into_body()
                .len();
        asked.push((at.elapsed(), bytes));
    }
    let used = (cpu_seconds() - before - feeding) / began.elapsed().as_secs_f64();
    asked.sort();
    let (worst, bytes) = asked[asked.len() - 1];
    println!(
        "{PODS} pods, {APPLICATIONS} applications: {:.1} % of a core, {:.0} MB; everything asked for: {:?} at the median, {worst:?} at worst, {bytes} bytes",
        used * 100.0,
        memory_mb(),
        asked[asked.len() / 2].0
    );
}
