//! Messages through a fleet while servers die: numbered, and accounted for exactly.
//!
//! On channels with history every number is published until it is acknowledged, with its number as idempotency key, and
//! every reader has to get it exactly once, in order, or be told that it missed some. On channels without history numbers
//! are published once; there the longest silence counts.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::api::Api;
use crate::client::Client;
use crate::token;

/// Channels of either kind: several in each shard.
const CHANNELS: usize = 12;
/// Pause between two publications to one channel.
const PAUSE: Duration = Duration::from_millis(50);
/// Pause before a publication is tried again, and before a reader comes back.
const RETRY: Duration = Duration::from_millis(100);
/// Time for what was published last to arrive, on a machine that has none.
const SETTLE: Duration = Duration::from_secs(40);
/// Who has what was published last waits for so long for what comes again.
const QUIET: Duration = Duration::from_secs(2);
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

#[derive(Default)]
struct Read {
    numbers: Vec<u64>,
    /// The server said that publications may be missing, and how often.
    told: u64,
    longest_silence: Duration,
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
                report.plain_silence = report.plain_silence.max(read.longest_silence);
            }
        }
        Ok(report)
    }
}

/// How many of 1 to `last` are missing, and how many come again or out of order.
fn account(numbers: &[u64], last: u64) -> (u64, u64) {
    let (mut highest, mut repeated) = (0, 0);
    for number in numbers {
        if *number <= highest {
            repeated += 1;
        }
        highest = highest.max(*number);
    }
    let distinct = numbers.len() as u64 - repeated;
    (last.saturating_sub(distinct), repeated)
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

/// One client that comes back whenever it is sent away, with the position it has.
struct Reader {
    /// Where to connect, in turn.
    places: Vec<SocketAddr>,
    channel: String,
    kept: bool,
    client: Option<Client>,
    position: Option<(u64, String)>,
    read: Read,
    heard: Instant,
}

impl Reader {
    fn new(places: Vec<SocketAddr>, channel: String, kept: bool) -> Self {
        Self {
            places,
            channel,
            kept,
            client: None,
            position: None,
            read: Read::default(),
            heard: Instant::now(),
        }
    }

    async fn open(&mut self) -> Result<()> {
        let mut client = Client::connect(self.places[0], &token::user("reader"))
            .await?
            .0;
        let mut request = json!({ "channel": self.channel });
        if let Some((offset, epoch)) = &self.position {
            request["recover"] = json!(true);
            request["offset"] = json!(offset);
            request["epoch"] = json!(epoch);
        }
        let result = client.call("subscribe", request).await?;
        if self.kept {
            if self.position.is_some() && result["recovered"] != true {
                self.read.told += 1;
            }
            let epoch = result["epoch"].as_str().context("epoch")?.to_owned();
            let offset = result["offset"].as_u64().unwrap_or(0);
            self.position = Some((offset, epoch));
            for publication in result["publications"].as_array().into_iter().flatten() {
                self.take(publication)?;
            }
        }
        self.client = Some(client);
        Ok(())
    }

    fn take(&mut self, publication: &Value) -> Result<()> {
        let number = publication["data"]["n"].as_u64().context("numbered")?;
        self.read.longest_silence = self.read.longest_silence.max(self.heard.elapsed());
        self.heard = Instant::now();
        self.read.numbers.push(number);
        if let Some((offset, _)) = &mut self.position {
            let next = publication["offset"].as_u64().context("offset")?;
            ensure!(
                next == *offset + 1,
                "{}: offset {next} after {offset}",
                self.channel
            );
            *offset = next;
        }
        Ok(())
    }

    /// Until it has the last number, which is told once it is written.
    async fn run(mut self, last: Arc<AtomicU64>) -> Result<Read> {
        self.heard = Instant::now();
        let mut stopped: Option<Instant> = None;
        loop {
            let last = last.load(Ordering::Relaxed);
            if last != u64::MAX {
                let since = *stopped.get_or_insert_with(Instant::now);
                let has_last = self.read.numbers.last().is_some_and(|has| *has >= last);
                // Silence after the last publication is none.
                let quiet = since.elapsed() > QUIET && self.heard.elapsed() > QUIET;
                if has_last && quiet || since.elapsed() > SETTLE {
                    return Ok(self.read);
                }
            }
            let Some(client) = &mut self.client else {
                self.places.rotate_left(1);
                if self.open().await.is_err() {
                    sleep(RETRY).await;
                }
                continue;
            };
            match timeout(Duration::from_millis(500), client.push()).await {
                Err(_) => {}
                Ok(Ok(push)) if push.get("pub").is_some() => self.take(&push["pub"])?,
                Ok(Ok(push)) if push.get("unsubscribe").is_some() => {
                    // Insufficient state: the same place again, from the same position.
                    self.client = None;
                    self.places.rotate_right(1);
                }
                Ok(Ok(_)) => {}
                Ok(Err(_)) => self.client = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::account;

    #[test]
    fn what_is_missing_and_what_comes_again() {
        assert_eq!(account(&[1, 2, 3], 3), (0, 0));
        assert_eq!(account(&[1, 3], 3), (1, 0));
        assert_eq!(account(&[1, 2, 2, 3], 3), (0, 1));
        assert_eq!(account(&[1, 3, 2], 3), (1, 1));
        assert_eq!(account(&[], 2), (2, 0));
    }
}
