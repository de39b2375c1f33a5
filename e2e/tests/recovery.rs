//! Any interleaving of publishes, lost links and recoveries gives no silent gap and no duplicate.
//!
//! Clients are cut at random moments, come back with the position they hold, and compare what they got with what
//! was published. A position that cannot be recovered must be said to be so, never bridged silently. The seed is
//! printed; `SEED` repeats a run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use serde_json::{Value, json};
use sluice_e2e::api::Api;
use sluice_e2e::client::Client;
use sluice_e2e::manifest::{Manifest, Namespace};
use sluice_e2e::sluice::Sluice;
use sluice_e2e::token;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

const RUN: Duration = Duration::from_secs(8);
const READERS: u64 = 8;
/// Publications a stream keeps; more than any reader misses here, unless it sleeps on purpose.
const HISTORY: u32 = 1000;

fn seed() -> u64 {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..));
    eprintln!("SEED={seed}");
    seed
}

/// Where a reader stands.
#[derive(Debug, Default, Clone)]
struct Position {
    offset: u64,
    epoch: String,
}

/// A client of one channel that remembers its position over connections.
struct Reader {
    position: Option<Position>,
    /// Publications numbered by the publisher, in order of arrival.
    got: Vec<u64>,
    /// Numbers that were skipped because the server said so.
    told_lost: bool,
}

impl Reader {
    fn new() -> Self {
        Self {
            position: None,
            got: Vec::new(),
            told_lost: false,
        }
    }

    fn take(&mut self, publication: &Value) -> Result<()> {
        let offset = publication["offset"]
            .as_u64()
            .context("a publication with history has an offset")?;
        let position = self.position.as_mut().context("subscribed")?;
        ensure!(
            offset == position.offset + 1,
            "offset {offset} after {}",
            position.offset
        );
        position.offset = offset;
        self.got
            .push(publication["data"]["n"].as_u64().context("numbered")?);
        Ok(())
    }

    /// Connects and subscribes from the position held.
    async fn open(&mut self, sluice: &Sluice, channel: &str) -> Result<Client> {
        let mut client = sluice.client(&token::user("reader")).await?;
        let mut request = json!({ "channel": channel });
        if let Some(position) = &self.position {
            request["recover"] = json!(true);
            request["offset"] = json!(position.offset);
            request["epoch"] = json!(position.epoch);
        }
        let result = client.call("subscribe", request).await?;
        let offset = result["offset"].as_u64().unwrap_or(0);
        let epoch = result["epoch"]
            .as_str()
            .context("a recoverable stream has an epoch")?
            .to_owned();
        if self.position.is_some() && result["recovered"] == true {
            ensure!(
                self.position.as_ref().is_some_and(|p| p.epoch == epoch),
                "recovered into another epoch"
            );
            for publication in result["publications"].as_array().into_iter().flatten() {
                self.take(publication)?;
            }
        } else {
            ensure!(
                result.get("publications").is_none(),
                "publications without recovery: {result}"
            );
            self.told_lost |= self.position.is_some();
            self.position = Some(Position { offset, epoch });
        }
        Ok(client)
    }

    /// Reads what arrives for a while.
    async fn read(&mut self, client: &mut Client, during: Duration) -> Result<()> {
        let end = Instant::now() + during;
        while let Some(left) = end
            .checked_duration_since(Instant::now())
            .filter(|d| !d.is_zero())
        {
            let quiet = left.min(Duration::from_millis(20));
            for push in client.pushes(quiet.max(Duration::from_millis(1))).await? {
                if let Some(publication) = push.get("pub") {
                    self.take(publication)?;
                }
            }
        }
        Ok(())
    }
}

/// Publishes numbers until the time is over, in bursts and pauses.
async fn publish(api: Api, channel: &str, until: Instant, mut rng: Rng) -> Result<u64> {
    let mut n = 0;
    while Instant::now() < until {
        for _ in 0..rng.usize(1..6) {
            n += 1;
            api.call("publish", json!({ "channel": channel, "data": { "n": n } }))
                .await?;
        }
        sleep(Duration::from_millis(rng.u64(0..30))).await;
    }
    Ok(n)
}

async fn follow(
    sluice: &Sluice,
    channel: &str,
    until: Instant,
    mut all_published: watch::Receiver<bool>,
    mut rng: Rng,
) -> Result<Reader> {
    let mut reader = Reader::new();
    while Instant::now() < until {
        let mut client = reader.open(sluice, channel).await?;
        reader
            .read(&mut client, Duration::from_millis(rng.u64(1..400)))
            .await?;
        if rng.bool() {
            // The link goes while a reply or publications are on their way.
            client
                .send("presence", json!({ "channel": channel }))
                .await?;
        }
        client.cut();
        sleep(Duration::from_millis(rng.u64(0..200))).await;
    }
    // The publisher is done: one more recovery brings everything.
    all_published.wait_for(|all| *all).await?;
    let mut client = reader.open(sluice, channel).await?;
    reader.read(&mut client, Duration::from_millis(500)).await?;
    Ok(reader)
}

#[tokio::test]
async fn readers_that_lose_their_links_miss_nothing_and_get_nothing_twice() -> Result<()> {
    let namespace = Namespace {
        history: Some((HISTORY, 300)),
        join_leave: "Disabled",
        ..Namespace::full()
    };
    let sluice = Sluice::start(&Manifest {
        default_namespace: namespace,
        ..Manifest::full()
    })
    .await?;
    let api = Api(sluice.address);
    let mut rng = Rng::with_seed(seed());
    let until = Instant::now() + RUN;
    let (tell, all_published) = watch::channel(false);
    let followers: Vec<_> = (0..READERS)
        .map(|_| follow(&sluice, "stream", until, all_published.clone(), rng.fork()))
        .collect();
    let publishing = async {
        let published = publish(api, "stream", until, rng.fork()).await;
        tell.send_replace(true);
        published
    };
    let (published, readers) = tokio::join!(publishing, futures_util::future::join_all(followers));
    let published = published?;
    ensure!(
        published > 100,
        "only {published} publications: the test proves nothing"
    );
    for reader in readers {
        let reader = reader?;
        ensure!(
            !reader.told_lost,
            "history held everything, yet a recovery failed"
        );
        let first = *reader.got.first().context("a reader got nothing")?;
        let wanted: Vec<u64> = (first..=published).collect();
        ensure!(
            reader.got == wanted,
            "gap or duplicate: got {:?} of {published}",
            reader.got
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_history_no_longer_holds_is_said_to_be_lost() -> Result<()> {
    let namespace = Namespace {
        history: Some((5, 300)),
        ..Namespace::full()
    };
    let sluice = Sluice::start(&Manifest {
        default_namespace: namespace,
        ..Manifest::full()
    })
    .await?;
    let api = Api(sluice.address);
    let mut rng = Rng::with_seed(seed());
    let mut reader = Reader::new();
    reader.open(&sluice, "short").await?.cut();
    let mut n = 0;
    for _ in 0..30 {
        let missed = rng.u64(0..10);
        for _ in 0..missed {
            n += 1;
            api.call("publish", json!({ "channel": "short", "data": { "n": n } }))
                .await?;
        }
        reader.told_lost = false;
        let before = reader.got.len() as u64;
        reader.open(&sluice, "short").await?.cut();
        ensure!(
            reader.told_lost == (missed > 5),
            "{missed} missed, told lost: {}",
            reader.told_lost
        );
        let got = reader.got.len() as u64 - before;
        ensure!(
            got == if missed > 5 { 0 } else { missed },
            "{missed} missed, {got} recovered"
        );
    }
    Ok(())
}

#[tokio::test]
async fn an_unknown_epoch_and_a_future_offset_are_not_recovered() -> Result<()> {
    let sluice = Sluice::start(&Manifest::full()).await?;
    let api = Api(sluice.address);
    for n in 1..=3 {
        api.call("publish", json!({ "channel": "a", "data": n }))
            .await?;
    }
    let epoch = api.call("history", json!({ "channel": "a" })).await?["epoch"].clone();
    let cases = [
        (json!({ "offset": 1, "epoch": "other" }), false, 0),
        (json!({ "offset": 9, "epoch": epoch }), false, 0),
        (json!({ "offset": 3, "epoch": epoch }), true, 0),
        (json!({ "offset": 1, "epoch": epoch }), true, 2),
        (json!({ "offset": 1, "epoch": "" }), true, 2),
    ];
    for (position, recovered, count) in cases {
        let mut client = sluice.client(&token::user("u")).await?;
        let mut request = position.clone();
        request["channel"] = json!("a");
        request["recover"] = json!(true);
        let result = client.call("subscribe", request).await?;
        ensure!(result["was_recovering"] == true, "{position}: {result}");
        ensure!(
            (result["recovered"] == true) == recovered,
            "{position}: {result}"
        );
        ensure!(
            result["publications"].as_array().map_or(0, Vec::len) == count,
            "{position}: {result}"
        );
    }
    Ok(())
}
