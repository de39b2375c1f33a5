//! Numbered messages in many channels, and thousands of clients that follow them: who was moved must miss none.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{ACCOUNT, Deployed, TOKENS, api};
use crate::bench::workers::Workers;
use crate::load::clock::now_ns;
use crate::load::dialect::{Dialect, LEADING_ONE};
use crate::load::report::Report;

/// As many as an account has devices.
pub const CLIENTS_PER_CHANNEL: usize = 50;
/// In the namespace with history, of which clients that come back get what they missed.
const PREFIX: &str = "chat:n";
/// A call that takes longer is made again.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(100);
/// Clients of a busy machine see what was done over seconds at once.
const WINDOW: usize = 5;

/// Clients that connect through the Service. `first` keeps the names of several such groups apart.
pub fn follow(deployed: &Deployed, clients: usize, first: usize) -> Result<Workers> {
    let more = [
        ("channels", channels(clients).to_string()),
        ("prefix", format!("{PREFIX}{first}-")),
        ("hmac-secret", TOKENS.to_owned()),
        ("account", format!("account={ACCOUNT}")),
    ];
    let workers = Workers::start_at(
        deployed.address,
        Dialect::Centrifugo,
        "follow",
        clients,
        &more,
    )?;
    let refused = workers.refused();
    ensure!(
        refused == 0,
        "{refused} of {clients} clients could not connect"
    );
    Ok(workers)
}

#[must_use]
pub fn channels(clients: usize) -> usize {
    clients.div_ceil(CLIENTS_PER_CHANNEL)
}

/// One task per channel of such a group.
pub struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<u64>>,
}

impl Writers {
    /// `rate` messages per second over all channels together.
    #[must_use]
    pub fn start(deployed: &Deployed, clients: usize, first: usize, rate: f64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let channels = channels(clients);
        let pause = Duration::from_secs_f64(channels as f64 / rate);
        let address = deployed.address;
        let start = |number: usize| {
            let (stop, channel) = (Arc::clone(&stop), format!("{PREFIX}{first}-{number}"));
            tokio::spawn(async move { write(address, &channel, pause, &stop).await })
        };
        Self {
            tasks: (0..channels).map(start).collect(),
            stop: Arc::clone(&stop),
        }
    }

    /// Finishes what is begun; returns the last number of each channel.
    pub async fn stop(self) -> Result<Vec<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut last = Vec::new();
        for task in self.tasks {
            last.push(task.await?);
        }
        Ok(last)
    }
}

async fn write(
    address: std::net::SocketAddr,
    channel: &str,
    pause: Duration,
    stop: &AtomicBool,
) -> u64 {
    let mut number = 0;
    // Not all in the same moment.
    sleep(pause.mul_f64(fastrand::f64())).await;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let began = Instant::now();
        let body = json!({
            "account": ACCOUNT,
            "channel": channel,
            // The stamp comes first, as clients expect: JSON objects are written in the order of their names.
            "data": { "t": LEADING_ONE + now_ns(), "v": number },
            "idempotency_key": number.to_string(),
        });
        while !matches!(
            timeout(PATIENCE, api(address, "publish", &body)).await,
            Ok(Ok(_))
        ) {
            sleep(RETRY).await;
        }
        sleep(pause.saturating_sub(began.elapsed())).await;
    }
    number
}

/// What all clients of a group together should have reached.
#[must_use]
pub fn owed(last: &[u64], clients: usize) -> u64 {
    let of_channel = |channel: usize| ((clients + last.len() - 1 - channel) / last.len()) as u64;
    let each = last.iter().enumerate();
    each.map(|(channel, last)| last * of_channel(channel)).sum()
}

/// Clients that were closed, second by second.
#[must_use]
pub fn curve(report: &Report, seconds: Range<u64>) -> Vec<u64> {
    let closed = |second| report.closes_by_second.get(&second).copied();
    seconds.map(|second| closed(second).unwrap_or(0)).collect()
}

/// Clients that were closed per second, over the worst five.
#[must_use]
pub fn closed_at_most(report: &Report, seconds: Range<u64>) -> f64 {
    let curve = curve(report, seconds);
    let windows = curve
        .windows(WINDOW)
        .map(|window| window.iter().sum::<u64>());
    windows.max().unwrap_or_default() as f64 / WINDOW as f64
}

/// Says what became of the clients and their messages; fails unless everyone got everything in order, without being told of a gap.
pub fn accounted(report: &Report, last: &[u64], clients: usize) -> Result<()> {
    let followed = &report.followed;
    let missing = owed(last, clients).cast_signed() - followed.reached.cast_signed();
    eprintln!(
        "{} messages; closes {:?}; {} returns, away p99 {:.1} s; lost {}, missing at the end {missing}, \
         repeated {}, told {}",
        last.iter().sum::<u64>(),
        report.closes,
        followed.returns,
        followed.away.quantile(0.99) as f64 / 1e9,
        followed.lost,
        followed.repeated,
        followed.told,
    );
    let fit = followed.lost == 0 && missing == 0 && followed.told == 0 && followed.away_at_end == 0;
    ensure!(fit, "{followed:?}");
    Ok(())
}
