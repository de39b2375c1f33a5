//! What publishing costs this process and the server. A measurement: it runs when asked for, and judges nothing.
//!
//! `cargo test --release -p sluice-dataplane --lib redis::tests::costs -- --ignored --nocapture`
//!
//! Prints a line each for publishing with history, without (`plain`), and for a bare `SPUBLISH` of the same size: how
//! many were published within four seconds, and per publication the CPU time of this process and of the server, and the
//! commands that the server ran, those in scripts too. The machine should be quiet.

use std::time::Instant;

use futures_util::future::join_all;
use sluice_e2e::redis::{Options, RedisServer};

use super::*;
use crate::relay::channel::Channel;
use crate::store::redis::cluster::Again;
use crate::store::redis::slots::slot_of_key;
use crate::store::{Broker, Event, NewPublication, PublishOptions, Retention};

const PER_SECOND: usize = 5_000;
const SECONDS: usize = 4;
/// Publications that are given out at the same moment.
const AT_ONCE: usize = 50;

struct Nobody;

impl EventSink for Nobody {
    fn deliver(&self, _: &Channel, _: Event) {}
}

fn own_cpu_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks * 10
}

async fn server_figures(server: &RedisServer) -> (f64, f64) {
    let info = server
        .call(&["INFO", "everything"])
        .await
        .unwrap()
        .to_string();
    let field = |name: &str| -> f64 {
        let line = info.lines().find(|line| line.starts_with(name)).unwrap();
        line.split(':').nth(1).unwrap().trim().parse().unwrap()
    };
    let cpu = field("used_cpu_user:") + field("used_cpu_sys:");
    (cpu * 1_000.0, field("total_commands_processed:"))
}

async fn measure<F: Future<Output = ()>>(
    name: &str,
    server: &RedisServer,
    one: impl Fn(usize) -> F,
) {
    let (own, before) = (own_cpu_ms(), server_figures(server).await);
    let mut ticks =
        tokio::time::interval(Duration::from_millis((1_000 * AT_ONCE / PER_SECOND) as u64));
    let since = Instant::now();
    let mut done = 0;
    while since.elapsed() < Duration::from_secs(SECONDS as u64) {
        ticks.tick().await;
        join_all((0..AT_ONCE).map(|index| one(done + index))).await;
        done += AT_ONCE;
    }
    let after = server_figures(server).await;
    let each = |sum: f64| 1_000.0 * sum / done as f64;
    println!(
        "{name}: {done} published; per publication: client {:.1} us, server {:.1} us, {:.2} commands (inner ones too)",
        each((own_cpu_ms() - own) as f64),
        each(after.0 - before.0),
        (after.1 - before.1) / done as f64,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn costs() {
    let server = RedisServer::start(Options::default()).await.unwrap();
    let settings = settings(seeds([&server]), &fresh_gateway());
    let cluster = connect(settings.clone());
    let process = Process::start(settings, Arc::new(Nobody)).await;
    let channels: Vec<Channel> = (0..100)
        .map(|index| Channel::new("a", &index.to_string()))
        .collect();
    let retention = Retention {
        size: 100,
        ttl: Duration::from_secs(300),
    };
    tokio::time::sleep(Duration::from_secs(1)).await;
    for history in [Some(retention), None] {
        let publish = |index: usize| {
            let (broker, channel) = (Arc::clone(&process.broker), channels[index % 100].clone());
            async move {
                let publication = NewPublication {
                    data: vec![b'x'; 100].into(),
                    ..NewPublication::default()
                };
                let options = PublishOptions {
                    history,
                    ..PublishOptions::default()
                };
                broker
                    .publish(&channel, publication, options)
                    .await
                    .unwrap();
            }
        };
        let name = if history.is_some() {
            "history"
        } else {
            "plain"
        };
        measure(name, &server, publish).await;
    }
    let bare = |index: usize| {
        let (cluster, key) = (Arc::clone(&cluster), format!("bare-{}", index % 100));
        async move {
            let args = vec![key.clone().into(), vec![b'x'; 130].into()];
            let slot = slot_of_key(key.as_bytes());
            cluster
                .command(slot, "SPUBLISH", args, Again::Safe)
                .await
                .unwrap();
        }
    };
    measure("bare SPUBLISH", &server, bare).await;
}
