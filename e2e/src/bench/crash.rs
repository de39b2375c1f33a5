//! A data plane dies with a third of all clients: when does the server list forget them, when are they back, and did
//! anybody miss a message?

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde::Serialize;
use serde_json::json;

use super::fleet::{self, CLIENTS_PER_CHANNEL, PLANES};
use super::run::Run;

use super::table;
use crate::api::Api;
use crate::fleet::Fleet;
use crate::load::clock::now_ns;
use crate::load::report::{Followed, Report};

mod writers;

use self::writers::{Writers, Written};

/// The budget of the server list, and how long it is watched.
const HIDDEN_WITHIN: Duration = Duration::from_secs(10);
const WATCHED: Duration = Duration::from_secs(45);
/// The budget of the clients.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// After the last publication.
const SETTLE: Duration = Duration::from_secs(5);
/// Questions to the server API at a time.
const AT_ONCE: usize = 8;

#[derive(Debug, Serialize)]
struct Crash {
    clients: u64,
    refused: BTreeMap<String, u64>,
    channels: usize,
    published: u64,
    publish_retries: u64,
    publish_longest_ms: f64,
    /// Clients the dead data plane held, as the server list showed them.
    orphans: usize,
    /// Until no list showed any of them any more.
    hidden_after_s: Option<f64>,
    /// Until the last client was back.
    back_after_s: f64,
    away_p50_ms: f64,
    away_p99_ms: f64,
    /// Messages a client did not get though it was not told; the last ones of a channel too.
    lost: u64,
    missing_at_end: i64,
    listed_at_end: u64,
    /// Publish to receive: of clients that stayed, and of those that moved.
    stayed_p99_ms: f64,
    stayed_max_ms: f64,
    moved_p99_ms: f64,
    moved_max_ms: f64,
    closes: BTreeMap<String, u64>,
    followed: Followed,
}

/// Kills one of three data planes.
pub fn crash(run: &Run, clients: usize, rate: f64) -> Result<()> {
    let runtime = fleet::runtime()?;
    let mut fleet = runtime.block_on(Fleet::start(&fleet::manifest(), PLANES))?;
    let channels = (clients / CLIENTS_PER_CHANNEL).max(1);
    let began = Instant::now();
    let mut workers = fleet::follow(&fleet, clients, channels)?;
    table::say(&format!(
        "clients are there after {:.1} s",
        began.elapsed().as_secs_f64()
    ))?;
    workers.go()?;
    let writers = Writers::start(&runtime, &fleet, channels, rate);
    std::thread::sleep(Duration::from_secs(run.pick(15, 5)));
    let orphans = runtime.block_on(held_by(&fleet, channels))?;
    let (killed, killed_ns) = (Instant::now(), now_ns());
    fleet.planes[0].kill()?;
    let hidden = runtime.block_on(until_hidden(&fleet, &orphans, killed))?;
    table::say(&format!("hidden after {hidden:?}"))?;
    std::thread::sleep(
        run.pick(BACK_WITHIN, BACK_WITHIN / 2)
            .saturating_sub(killed.elapsed()),
    );
    let written = runtime.block_on(writers.stop())?;
    std::thread::sleep(SETTLE);
    let listed = runtime.block_on(listed(&fleet, channels))?;
    let report = workers.stop()?;
    let orphans = orphans.iter().map(HashSet::len).sum();
    let row = row(
        &report, &written, clients, killed_ns, orphans, hidden, listed,
    );
    run.write("crash", &row)?;
    print(&row)?;
    check(&row)
}

/// By channel, the clients that live on the first data plane: user numbers say where they started.
async fn held_by(fleet: &Fleet, channels: usize) -> Result<Vec<HashSet<String>>> {
    let all: Vec<usize> = (0..channels).collect();
    let mut held = vec![HashSet::new(); channels];
    for some in all.chunks(AT_ONCE) {
        for (channel, list) in some.iter().zip(lists(fleet, some).await?) {
            for (client, user) in list {
                let number: usize = user
                    .trim_start_matches('u')
                    .parse()
                    .context("a user's number")?;
                if number.is_multiple_of(PLANES) {
                    held[*channel].insert(client);
                }
            }
        }
    }
    Ok(held)
}

/// The clients and users of some channels, asked of a data plane that lives.
async fn lists(fleet: &Fleet, channels: &[usize]) -> Result<Vec<Vec<(String, String)>>> {
    let calls = channels.iter().map(|channel| async move {
        let api: Api = fleet.api(1 + channel % (PLANES - 1));
        let result = api
            .call("presence", json!({ "channel": fleet::channel(*channel) }))
            .await?;
        let list = result["presence"].as_object().context("a list")?;
        let pair = |(client, info): (&String, &serde_json::Value)| {
            (
                client.clone(),
                info["user"].as_str().unwrap_or_default().to_owned(),
            )
        };
        anyhow::Ok(list.iter().map(pair).collect())
    });
    try_join_all(calls).await
}

/// Asks until no channel shows one of its orphans.
async fn until_hidden(
    fleet: &Fleet,
    orphans: &[HashSet<String>],
    killed: Instant,
) -> Result<Option<Duration>> {
    let mut shown: Vec<usize> = (0..orphans.len()).collect();
    while killed.elapsed() < WATCHED {
        let mut still = Vec::new();
        for some in shown.chunks(AT_ONCE) {
            for (channel, list) in some.iter().zip(lists(fleet, some).await?) {
                if list
                    .iter()
                    .any(|(client, _)| orphans[*channel].contains(client))
                {
                    still.push(*channel);
                }
            }
        }
        if still.is_empty() {
            return Ok(Some(killed.elapsed()));
        }
        shown = still;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(None)
}

async fn listed(fleet: &Fleet, channels: usize) -> Result<u64> {
    let all: Vec<usize> = (0..channels).collect();
    let mut sum = 0;
    for some in all.chunks(AT_ONCE) {
        sum += lists(fleet, some)
            .await?
            .iter()
            .map(|list| list.len() as u64)
            .sum::<u64>();
    }
    Ok(sum)
}

fn row(
    report: &Report,
    written: &Written,
    clients: usize,
    killed_ns: u64,
    orphans: usize,
    hidden: Option<Duration>,
    listed_at_end: u64,
) -> Crash {
    let channels = written.last.len();
    let of_channel = |channel: usize| ((clients + channels - 1 - channel) / channels) as u64;
    let owed: u64 = (0..channels)
        .map(|channel| written.last[channel] * of_channel(channel))
        .sum();
    let ms = |ns: u64| ns as f64 / 1e6;
    let followed = report.followed.clone();
    Crash {
        clients: report.connected,
        refused: report.refused.clone(),
        channels,
        published: written.last.iter().sum(),
        publish_retries: written.retries,
        publish_longest_ms: written.longest.as_secs_f64() * 1e3,
        orphans,
        hidden_after_s: hidden.map(|hidden| hidden.as_secs_f64()),
        back_after_s: followed.last_return_ns.saturating_sub(killed_ns) as f64 / 1e9,
        away_p50_ms: ms(followed.away.quantile(0.5)),
        away_p99_ms: ms(followed.away.quantile(0.99)),
        lost: followed.lost,
        missing_at_end: owed as i64 - followed.reached as i64,
        listed_at_end,
        stayed_p99_ms: ms(report.latency.quantile(0.99)),
        stayed_max_ms: ms(report.latency.max()),
        moved_p99_ms: ms(followed.latency.quantile(0.99)),
        moved_max_ms: ms(followed.latency.max()),
        closes: report.closes.clone(),
        followed,
    }
}

fn print(row: &Crash) -> Result<()> {
    let seconds =
        |seconds: Option<f64>| seconds.map_or("never".to_owned(), |s| format!("{s:.1} s"));
    let mut lines = vec![table::head(&["", "found", "wanted"])];
    let mut line = |name: &str, found: String, wanted: &str| {
        lines.push(vec![name.to_owned(), found, wanted.to_owned()]);
    };
    line("clients", row.clients.to_string(), "");
    line("on the dead data plane", row.orphans.to_string(), "");
    line("hidden from lists", seconds(row.hidden_after_s), "<= 10 s");
    line("all back", seconds(Some(row.back_after_s)), "<= 60 s");
    line(
        "away p50, p99",
        format!("{:.0}, {:.0} ms", row.away_p50_ms, row.away_p99_ms),
        "",
    );
    line(
        "returns",
        format!("{}, failed {:?}", row.followed.returns, row.followed.failed),
        "",
    );
    line(
        "published",
        format!("{}, retried {}", row.published, row.publish_retries),
        "",
    );
    line("lost", row.lost.to_string(), "0");
    line("missing at the end", row.missing_at_end.to_string(), "0");
    line("repeated", row.followed.repeated.to_string(), "0");
    line(
        "told",
        format!(
            "{} ({} messages)",
            row.followed.told, row.followed.told_missing
        ),
        "0",
    );
    line(
        "positions taken back",
        row.followed.unsubscribed.to_string(),
        "",
    );
    line("recovered messages", row.followed.recovered.to_string(), "");
    line(
        "stayed: p99, longest",
        format!("{:.0}, {:.0} ms", row.stayed_p99_ms, row.stayed_max_ms),
        "",
    );
    line(
        "moved: p99, longest",
        format!("{:.0}, {:.0} ms", row.moved_p99_ms, row.moved_max_ms),
        "",
    );
    line(
        "longest publish",
        format!("{:.0} ms", row.publish_longest_ms),
        "",
    );
    line("listed at the end", row.listed_at_end.to_string(), "all");
    line("connections ended", format!("{:?}", row.closes), "");
    table::print("crash of a data plane", &lines)
}

fn check(row: &Crash) -> Result<()> {
    let hidden = row.hidden_after_s.unwrap_or(f64::INFINITY);
    ensure!(
        hidden <= HIDDEN_WITHIN.as_secs_f64(),
        "the list showed the dead too long"
    );
    ensure!(
        row.back_after_s <= BACK_WITHIN.as_secs_f64(),
        "clients came back too late"
    );
    let followed = &row.followed;
    ensure!(
        followed.away_at_end == 0,
        "{} clients are away",
        followed.away_at_end
    );
    ensure!(
        row.lost == 0 && followed.repeated == 0,
        "messages lost or repeated"
    );
    // Who was told may lack what it was told of, and nothing else.
    ensure!(
        row.missing_at_end == 0,
        "{} messages are missing",
        row.missing_at_end
    );
    Ok(())
}
