//! Numbered messages, published through any data plane that answers until they are acknowledged.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::api::Api;
use crate::bench::fleet;
use crate::fleet::Fleet;
use crate::load::clock::now_ns;
use crate::load::dialect::LEADING_ONE;

/// A call that takes longer is made again, somewhere else.
const PATIENCE: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(100);

/// One task per channel.
pub(super) struct Writers {
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<Channel>>,
}

#[derive(Default)]
struct Channel {
    last: u64,
    retries: u64,
    longest: Duration,
}

/// What was published.
pub(super) struct Written {
    /// By channel, the last number.
    pub(super) last: Vec<u64>,
    pub(super) retries: u64,
    /// From a message's first try to its acknowledgement.
    pub(super) longest: Duration,
}

impl Writers {
    /// `rate` messages per second over all channels together.
    pub(super) fn start(runtime: &Runtime, fleet: &Fleet, channels: usize, rate: f64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let places = fleet.addresses();
        let pause = Duration::from_secs_f64(channels as f64 / rate);
        let start = |channel: usize| {
            let mut places = places.clone();
            let first = channel % places.len();
            places.rotate_left(first);
            runtime.spawn(write(channel, places, pause, Arc::clone(&stop)))
        };
        Self {
            tasks: (0..channels).map(start).collect(),
            stop: Arc::clone(&stop),
        }
    }

    /// Finishes what is begun.
    pub(super) async fn stop(self) -> Result<Written> {
        self.stop.store(true, Ordering::Relaxed);
        let mut written = Written {
            last: Vec::new(),
            retries: 0,
            longest: Duration::ZERO,
        };
        for task in self.tasks {
            let channel = task.await?;
            written.last.push(channel.last);
            written.retries += channel.retries;
            written.longest = written.longest.max(channel.longest);
        }
        Ok(written)
    }
}

async fn write(
    channel: usize,
    mut places: Vec<SocketAddr>,
    pause: Duration,
    stop: Arc<AtomicBool>,
) -> Channel {
    let mut written = Channel::default();
    // Not all in the same moment.
    sleep(pause.mul_f64(fastrand::f64())).await;
    while !stop.load(Ordering::Relaxed) {
        written.last += 1;
        let began = Instant::now();
        let body = json!({
            "channel": fleet::channel(channel),
            // The stamp comes first, as clients expect: JSON objects are written in the order of their names.
            "data": { "t": LEADING_ONE + now_ns(), "v": written.last },
            "idempotency_key": written.last.to_string(),
        });
        loop {
            let call = Api(places[0]);
            if let Ok(Ok(_)) = timeout(PATIENCE, call.call("publish", body.clone())).await {
                break;
            }
            written.retries += 1;
            places.rotate_left(1);
            sleep(RETRY).await;
        }
        written.longest = written.longest.max(began.elapsed());
        sleep(pause.saturating_sub(began.elapsed())).await;
    }
    written
}
