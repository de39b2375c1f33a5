//! Messages through a fleet while servers die: numbered, and accounted for exactly.
//!
//! On channels with history every number is published until it is acknowledged, with its number as idempotency key, and
//! every reader has to get it exactly once, in order, or be told that it missed some. On channels without history numbers
//! are published once; there the longest silence counts, and nothing comes twice on one connection. A reader that comes back
//! on another data plane has no position to give there: that one may be behind the former, and what is on its way to it
//! comes again.

mod reader;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use self::reader::{Read, Reader, account};
use crate::api::Api;

/// Channels of either kind: several in each shard.
const CHANNELS: usize = 12;
/// Pause between two publications to one channel.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause before a publication is tried again, and before a reader comes back.
const RETRY: Duration = Duration::from_millis(100);
/// The namespace without history; the default one has it.
pub const PLAIN: &str = "plain";

/// Traffic that is under way.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    kept: Vec<Flow>,
    plain: Vec<Flow>,
}

struct Flow {
    writer: JoinHandle<Written>,
    readers: Vec<JoinHandle<Result<Read>>>,
}

struct Written {
    /// Numbers are 1 to this.
    last: u64,
    /// Publications that were answered with an error, each try counted.
    refused: u64,
    longest_call: Duration,
    /// The longest time without an acknowledged publication.
    longest_pause: Duration,
}

/// What the traffic came to; of all channels the worst.
#[derive(Debug, Default)]
pub struct Report {
    pub published: u64,
    pub refused: u64,
    /// Numbers of channels with history that a reader did not get and was not told of.
    pub lost: u64,
    pub repeated: u64,
    /// Readers that were told that they may have missed something, and could not recover it.
    pub told: u64,
    /// Without a publication with history acknowledged.
    pub kept_pause: Duration,
    pub kept_silence: Duration,
    pub plain_published: u64,
    pub plain_lost: u64,
    pub plain_repeated: u64,
    /// What readers had on their last connection already, and got first on the next one.
    pub plain_overlap: u64,
    pub plain_silence: Duration,
    pub longest_call: Duration,
}

impl Traffic {
    /// Writers on all data planes, two readers of each channel on different ones.
    pub async fn start(planes: &[SocketAddr]) -> Result<Self> {
        Self::start_with(planes, planes).await
    }

    /// Writers and readers on data planes of their own; readers go to another one when theirs is gone.
    pub async fn start_with(writers: &[SocketAddr], readers: &[SocketAddr]) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut traffic = Self {
            kept: Vec::new(),
            plain: Vec::new(),
            stop: Arc::clone(&stop),
        };
        for number in 0..CHANNELS {
            let api = Api(writers[number % writers.len()]);
            let name = format!("kept-{number}");
            let kept = Flow::start(api, readers, name, number, &stop).await?;
            traffic.kept.push(kept);
            let name = format!("{PLAIN}:{number}");
            let plain = Flow::start(api, readers, name, number, &stop).await?;
            traffic.plain.push(plain);
        }
        Ok(traffic)
    }

    /// Stops writing, waits for what is under way, and accounts.
    pub async fn stop(self) -> Result<Report> {
        self.stop.store(true, Ordering::Relaxed);
        let mut report = Report::default();
        for flow in self.kept {
            let (written, reads) = flow.end().await?;
            report.published += written.last;
            report.refused += written.refused;
            report.kept_pause = report.kept_pause.max(written.longest_pause);
            report.longest_call = report.longest_call.max(written.longest_call);
            for read in reads {
                let (missing, repeated) = account(&read.numbers, written.last);
                report.told += read.told;
                report.repeated += repeated;
                if read.told == 0 {
                    report.lost += missing;
                }
                report.kept_silence = report.kept_silence.max(read.longest_silence);
            }
        }
        for flow in self.plain {
            let (written, reads) = flow.end().await?;
            report.plain_published += written.last;
            report.refused += written.refused;
            report.longest_call = report.longest_call.max(written.longest_call);
            for read in reads {
                let (missing, repeated) = account(&read.numbers, written.last);
                report.plain_lost += missing;
                report.plain_repeated += repeated;
                report.plain_overlap += read.overlap;
                report.plain_silence = report.plain_silence.max(read.longest_silence);
            }
        }
        Ok(report)
    }
}

impl Flow {
    async fn start(
        api: Api,
        planes: &[SocketAddr],
        channel: String,
        number: usize,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self> {
        let kept = !channel.starts_with(PLAIN);
        let last = Arc::new(AtomicU64::new(u64::MAX));
        let mut readers = Vec::new();
        for offset in 1..=2 {
            let mut places = planes.to_vec();
            places.rotate_left((number + offset) % planes.len());
            let mut reader = Reader::new(places, channel.clone(), kept);
            reader.open().await.context("first subscribe")?;
            readers.push(tokio::spawn(reader.run(Arc::clone(&last))));
        }
        let stop = Arc::clone(stop);
        let writer = tokio::spawn(async move {
            let written = write(api, channel, kept, stop).await;
            last.store(written.last, Ordering::Relaxed);
            written
        });
        Ok(Self { writer, readers })
    }

    async fn end(self) -> Result<(Written, Vec<Read>)> {
        let written = self.writer.await?;
        let mut reads = Vec::new();
        for reader in self.readers {
            reads.push(reader.await??);
        }
        Ok((written, reads))
    }
}

async fn write(api: Api, channel: String, kept: bool, stop: Arc<AtomicBool>) -> Written {
    let mut written = Written {
        last: 0,
        refused: 0,
        longest_call: Duration::ZERO,
        longest_pause: Duration::ZERO,
    };
    let mut acknowledged = Instant::now();
    // A number that was begun is finished: whether a refused one was published is not known.
    while !stop.load(Ordering::Relaxed) {
        written.last += 1;
        let mut body = json!({ "channel": channel, "data": { "n": written.last } });
        if kept {
            body["idempotency_key"] = json!(written.last.to_string());
        }
        loop {
            let called = Instant::now();
            let outcome = timeout(Duration::from_secs(20), api.call("publish", body.clone())).await;
            written.longest_call = written.longest_call.max(called.elapsed());
            if matches!(outcome, Ok(Ok(_))) {
                written.longest_pause = written.longest_pause.max(acknowledged.elapsed());
                acknowledged = Instant::now();
                break;
            }
            written.refused += 1;
            if !kept {
                break;
            }
            sleep(RETRY).await;
        }
        sleep(PAUSE).await;
    }
    written
}
