//! A fleet on one Redis with a real manager: caps hold over all data planes whatever dies, and clients are moved at a pace.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_e2e::client::Client;
use sluice_e2e::fleet::managed::Managed;
use sluice_e2e::fleet::traffic::{PLAIN, Traffic};
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::{Ingest, KEY};
use sluice_e2e::load::clock::now_ns;
use sluice_e2e::manifest::{Manifest, Namespace};
use sluice_e2e::redis::{Options, RedisCluster};
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::token;
use sluice_e2e::upstream::analysis::{max_in_window, of_app, used};
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::Settings;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// One fleet at a time: times are measured.
static TURN: Mutex<()> = Mutex::const_new(());

const MINUTE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(30);

/// Requests per minute: of one application, and of all together.
const OF_SHOP: usize = 600;
const OF_ALL: usize = 6_000;
const OTHER_KEY: &str = "gamekey";
/// After a change of the fleet, once all is settled, what is used is counted for so long.
const COUNTED: Duration = Duration::from_secs(10);

/// More than can be delivered, for both applications.
async fn backlog(fleet: &Managed) -> Result<()> {
    let address = fleet.addresses()[0];
    for (key, first_device, count) in [(KEY, 0, 3_000), (OTHER_KEY, 10_000, 21_000)] {
        let mut plan = Plan::new(
            address,
            key,
            vec![Phase::rate(1_500.0, f64::from(count) / 1_500.0)],
        );
        plan.first_device = first_device;
        let outcome = Load::start(plan)?.outcome().await?;
        ensure!(outcome.given_up == 0, "{outcome:?}");
    }
    Ok(())
}

#[tokio::test]
async fn caps_hold_over_all_data_planes_whoever_comes_and_goes() -> Result<()> {
    let _turn = TURN.lock().await;
    kept_in_one_run(caps).await
}

async fn caps() -> Result<Promises> {
    let redis = RedisCluster::start(3, 0, Options::default()).await?;
    let upstream = Upstream::start(Settings {
        workers: 64,
        service_ms: 5.0,
        line: 1_000,
        ..Settings::default()
    })
    .await?;
    let cap = |per_minute: usize| json!({ "requestsPerMinute": per_minute });
    let ingest = Ingest::new(&upstream.url())
        .set("throttle", cap(OF_ALL))
        .application("shop", KEY, json!({ "throttle": cap(OF_SHOP) }))
        .application("game", OTHER_KEY, json!({}))
        .redis(redis.url());
    let mut fleet = Managed::start(4, &[], move |port| ingest.render(port)).await?;
    let first = fleet.add().await?;
    fleet.attended(SOON).await?;
    backlog(&fleet).await?;
    // What happened, and the time in which the caps are to be used.
    let mut spans: Vec<(&str, f64, (u64, u64))> = Vec::new();
    for (what, settled_s, part) in [
        ("alone", 8, 0.95),
        ("two", 16, 0.95),
        ("four", 16, 0.95),
        // For two leases what the dead one may believe is kept for it, and for a minute what it may fall back to.
        ("one killed, one added", 38, 0.70),
        ("manager away", 8, 0.0),
        ("manager back", 20, 0.95),
    ] {
        match what {
            "two" => drop(fleet.add().await?),
            "four" => {
                fleet.add().await?;
                fleet.add().await?;
            }
            "one killed, one added" => {
                fleet.kill(&first)?;
                fleet.add().await?;
            }
            "manager away" => fleet.kill_manager()?,
            "manager back" => fleet.start_manager().await?,
            _ => {}
        }
        // Until leases have run out and parts are given again.
        sleep(Duration::from_secs(settled_s)).await;
        let from_ns = now_ns();
        sleep(COUNTED).await;
        if what != "manager away" {
            spans.push((what, part, (from_ns, now_ns())));
        }
    }
    let records = upstream.records().await?;
    let shop = of_app(&records, KEY);
    // Exact, and on any machine.
    let most = (
        max_in_window(&shop, MINUTE),
        max_in_window(&records, MINUTE),
    );
    eprintln!("in any minute: {most:?} of {:?}", (OF_SHOP, OF_ALL));
    let mut promises = Promises::new();
    for (what, part, span) in spans {
        let parts = (used(&shop, OF_SHOP, span), used(&records, OF_ALL, span));
        let figure = format!("{what}: used {:.3} and {:.3}", parts.0, parts.1);
        eprintln!("{figure}");
        promises = promises.expect(parts.0 >= part && parts.1 >= part, figure);
    }
    ensure!(most.0 <= OF_SHOP && most.1 <= OF_ALL, "{most:?}");
    Ok(promises)
}

/// Where clients may go: what carries new connections knows it.
type Places = Arc<std::sync::Mutex<Vec<SocketAddr>>>;

fn any(places: &Places) -> SocketAddr {
    let places = places.lock().unwrap_or_else(PoisonError::into_inner);
    places[fastrand::usize(..places.len())]
}

/// Clients that come back wherever new ones are taken, and how often each was sent away.
struct Crowd {
    clients: JoinSet<Result<usize>>,
    connected: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Crowd {
    async fn gather(addresses: &Places, count: usize) -> Result<Self> {
        let mut crowd = Self {
            clients: JoinSet::new(),
            connected: Arc::default(),
            stop: Arc::default(),
        };
        for number in 0..count {
            let addresses = Arc::clone(addresses);
            let (connected, stop) = (Arc::clone(&crowd.connected), Arc::clone(&crowd.stop));
            crowd.clients.spawn(async move {
                let token = token::user(&format!("u{number}"));
                let mut sent_away = 0;
                loop {
                    let place = any(&addresses);
                    let Ok(mut client) = Client::try_open(place).await? else {
                        sleep(Duration::from_millis(fastrand::u64(20..200))).await;
                        continue;
                    };
                    client.call("connect", json!({ "token": token })).await?;
                    connected.fetch_add(1, Ordering::Relaxed);
                    loop {
                        if stop.load(Ordering::Relaxed) {
                            return Ok(sent_away);
                        }
                        match timeout(Duration::from_millis(500), client.push()).await {
                            Err(_) | Ok(Ok(_)) => {}
                            Ok(Err(_)) => break,
                        }
                    }
                    connected.fetch_sub(1, Ordering::Relaxed);
                    sent_away += 1;
                }
            });
        }
        let deadline = Instant::now() + SOON;
        while crowd.connected.load(Ordering::Relaxed) < count {
            ensure!(Instant::now() < deadline, "not all connect");
            sleep(Duration::from_millis(50)).await;
        }
        Ok(crowd)
    }

    /// How many clients were sent away how often.
    async fn end(mut self) -> Result<BTreeMap<usize, usize>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut times = BTreeMap::new();
        while let Some(client) = self.clients.join_next().await {
            *times.entry(client??).or_insert(0) += 1;
        }
        Ok(times)
    }
}

/// Clients of each data plane.
async fn connections(fleet: &Managed) -> Result<Vec<f64>> {
    let mut all = Vec::new();
    for plane in fleet.planes.values() {
        let count = plane.metric("sluice_relay_connections").await?;
        all.push(count.context("no metric")?);
    }
    Ok(all)
}

fn imbalance(connections: &[f64]) -> f64 {
    let most = connections.iter().copied().fold(0.0, f64::max);
    most * connections.len() as f64 / connections.iter().sum::<f64>().max(1.0)
}

#[tokio::test]
async fn clients_move_to_new_data_planes_once_and_lose_nothing() -> Result<()> {
    let _turn = TURN.lock().await;
    kept_in_one_run(a_move).await
}

async fn a_move() -> Result<Promises> {
    const CLIENTS: usize = 1_200;
    /// From the start of the new ones: the surplus has to stay for half a minute, and then goes at a pace.
    const BALANCED: Duration = Duration::from_secs(90);
    let redis = RedisCluster::start(3, 0, Options::default()).await?;
    let open = |namespace: Namespace| Namespace {
        presence: false,
        join_leave: "Disabled",
        ..namespace
    };
    let manifest = Manifest {
        default_namespace: Namespace {
            history: Some((2_000, 300)),
            ..open(Namespace::full())
        },
        namespaces: vec![(PLAIN, open(Namespace::plain()))],
        ..Manifest::full()
    }
    .redis(redis.url());
    let arguments = ["--rebalance", "move", "--moves-per-second", "40"];
    let mut fleet = Managed::start(4, &arguments, move |port| manifest.render(port)).await?;
    fleet.add().await?;
    fleet.add().await?;
    fleet.attended(SOON).await?;
    let places = Places::new(std::sync::Mutex::new(fleet.addresses()));
    let traffic = Traffic::start(&fleet.addresses()).await?;
    let crowd = Crowd::gather(&places, CLIENTS).await?;
    fleet.add().await?;
    fleet.add().await?;
    *places.lock().unwrap_or_else(PoisonError::into_inner) = fleet.addresses();
    let began = Instant::now();
    let mut now = connections(&fleet).await?;
    while imbalance(&now) > 1.10 && began.elapsed() < BALANCED * 2 {
        sleep(Duration::from_secs(1)).await;
        now = connections(&fleet).await?;
    }
    let took = began.elapsed();
    // And then it is quiet.
    sleep(Duration::from_secs(5)).await;
    let at_last = connections(&fleet).await?;
    let times = crowd.end().await?;
    let report = traffic.stop().await?;
    eprintln!("{at_last:?} after {took:?}; sent away: {times:?}; {report:?}");
    ensure!(imbalance(&at_last) <= 1.10, "{at_last:?}");
    ensure!(
        times.keys().all(|times| *times <= 1),
        "moved more than once: {times:?}"
    );
    ensure!(report.lost == 0 && report.repeated == 0, "{report:?}");
    Ok(Promises::new().expect(
        took < BALANCED,
        format!("balanced after {took:?} of {BALANCED:?}"),
    ))
}
