//! A reader of one channel that comes back whenever it is sent away, and what it got.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::RETRY;
use crate::client::Client;
use crate::token;

/// Time for what was published last to arrive, on a machine that has none.
const SETTLE: Duration = Duration::from_secs(40);
/// Who has what was published last waits for so long for what comes again.
const QUIET: Duration = Duration::from_secs(2);
/// Numbers that a data plane may be behind another one: what a second brings.
const OVERLAP_MAX: u64 = 20;

#[derive(Default)]
pub(super) struct Read {
    pub(super) numbers: Vec<u64>,
    /// Came first on a new connection, and had come on the one before: not in `numbers`.
    pub(super) overlap: u64,
    /// The server said that publications may be missing, and how often.
    pub(super) told: u64,
    pub(super) longest_silence: Duration,
}

/// One client that comes back whenever it is sent away, with the position it has.
pub(super) struct Reader {
    /// Where to connect, in turn.
    places: Vec<SocketAddr>,
    channel: String,
    kept: bool,
    client: Option<Client>,
    position: Option<(u64, String)>,
    /// The highest number of the last connection, until a higher one comes on this one.
    behind: Option<u64>,
    read: Read,
    heard: Instant,
}

impl Reader {
    pub(super) fn new(places: Vec<SocketAddr>, channel: String, kept: bool) -> Self {
        Self {
            places,
            channel,
            kept,
            client: None,
            position: None,
            behind: None,
            read: Read::default(),
            heard: Instant::now(),
        }
    }

    pub(super) async fn open(&mut self) -> Result<()> {
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
        } else {
            self.behind = self.read.numbers.iter().max().copied();
        }
        self.client = Some(client);
        Ok(())
    }

    fn take(&mut self, publication: &Value) -> Result<()> {
        let number = publication["data"]["n"].as_u64().context("numbered")?;
        self.read.longest_silence = self.read.longest_silence.max(self.heard.elapsed());
        self.heard = Instant::now();
        if let Some(highest) = self.behind.filter(|highest| number <= *highest) {
            ensure!(
                number + OVERLAP_MAX > highest,
                "{}: {number} after {highest} of the last connection",
                self.channel
            );
            self.read.overlap += 1;
            return Ok(());
        }
        self.behind = None;
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
    pub(super) async fn run(mut self, last: Arc<AtomicU64>) -> Result<Read> {
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

/// How many of 1 to `last` are missing, and how many come again or out of order.
pub(super) fn account(numbers: &[u64], last: u64) -> (u64, u64) {
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
