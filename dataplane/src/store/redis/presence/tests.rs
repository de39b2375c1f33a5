//! The conformance suite on real servers, and what only several processes can show.

use std::sync::Arc;
use std::time::Duration;

use sluice_e2e::redis::{Options, RedisCluster, RedisServer};
use sluice_e2e::timing::{Promises, kept_in_one_run};

use super::RedisPresence;
use crate::relay::channel::Channel;
use crate::relay::protocol::ClientInfo;
use crate::store::conformance::run_presence;
use crate::store::redis::tests::{OnRedis, TURN, connect, seeds, settings};
use crate::store::{Holder, Presence, Renewal};

fn presence<'a>(
    servers: impl IntoIterator<Item = &'a RedisServer>,
    gateway: &str,
) -> Arc<RedisPresence> {
    let cluster = connect(settings(seeds(servers), gateway));
    Arc::new(RedisPresence::new(cluster))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_on_one_server() {
    let server = RedisServer::start(Options::default()).await.unwrap();
    run_presence(&OnRedis(std::slice::from_ref(&server))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_on_a_cluster() {
    let cluster = RedisCluster::start(3, 1, Options::default()).await.unwrap();
    run_presence(&OnRedis(cluster.nodes())).await;
}

fn info(client: usize) -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        user: format!("u{}", client % 10).into(),
        client: format!("c{client}").into(),
        ..ClientInfo::default()
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_loses_no_entry_and_hides_nobody() {
    let _turn = TURN.lock().await;
    kept_in_one_run(async || Ok(through_a_killed_primary().await))
        .await
        .unwrap();
}

async fn through_a_killed_primary() -> Promises {
    /// Longer than the election takes on any machine.
    const LEASE: Duration = Duration::from_secs(60);
    /// The leases of data planes last ten seconds.
    const BACK_WITHIN: Duration = Duration::from_secs(9);
    let cluster = RedisCluster::start(3, 1, Options::default()).await.unwrap();
    let [a, b] = [(); 2].map(|()| presence(cluster.nodes(), "test/kill"));
    let holders = [Holder("a".into()), Holder("b".into())];
    a.renew(&holders[0], LEASE).await.unwrap();
    b.renew(&holders[1], LEASE).await.unwrap();
    let channels: Vec<Channel> = (0..48)
        .map(|n| Channel::new("acc", &format!("ch{n}")))
        .collect();
    for (index, channel) in channels.iter().enumerate() {
        a.join(&holders[0], channel, info(index)).await.unwrap();
        b.join(&holders[1], channel, info(index + 100))
            .await
            .unwrap();
    }
    cluster.kill_primary(1).await.unwrap();
    let killed = std::time::Instant::now();
    // Calls for the other shards go on; those for this one fail in bounded time until the replica has taken over.
    let mut down = 0;
    loop {
        let mut seen = 0;
        for channel in &channels {
            let started = std::time::Instant::now();
            match b.list(channel).await {
                Ok(list) => {
                    assert_eq!(list.len(), 2, "{channel:?}");
                    seen += 1;
                }
                Err(_) => {
                    down += 1;
                    assert!(
                        started.elapsed() < Duration::from_secs(20),
                        "a bounded time"
                    );
                    break;
                }
            }
        }
        if seen == channels.len() {
            break;
        }
        assert!(killed.elapsed() < LEASE / 2, "the shard is not back");
    }
    let back = killed.elapsed();
    assert_eq!(a.renew(&holders[0], LEASE).await, Ok(Renewal::Kept));
    assert!(a.leave(&holders[0], &channels[0], "c0").await.unwrap());
    assert_eq!(b.count(&channels[0]).await.unwrap().clients, 1);
    Promises::new().expect(
        back < BACK_WITHIN,
        format!("back after {back:?}, before leases end; {down} failed lists"),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_reaped_or_lost_is_told_to_join_again() {
    const LEASE: Duration = Duration::from_millis(600);
    let server = RedisServer::start(Options::default()).await.unwrap();
    let [a, b] = [(); 2].map(|()| presence([&server], "test/lost"));
    let holders = [Holder("a".into()), Holder("b".into())];
    let channel = Channel::new("acc", "x");
    assert_eq!(a.renew(&holders[0], LEASE).await, Ok(Renewal::Kept));
    a.join(&holders[0], &channel, info(1)).await.unwrap();
    tokio::time::sleep(LEASE).await;
    assert_eq!(b.reap().await.unwrap().len(), 1);
    let long = LEASE * 100;
    assert_eq!(a.renew(&holders[0], long).await, Ok(Renewal::Lost));
    assert_eq!(a.renew(&holders[0], long).await, Ok(Renewal::Kept));
    a.join(&holders[0], &channel, info(1)).await.unwrap();
    assert_eq!(b.list(&channel).await.unwrap().len(), 1);
    server.call(&["FLUSHALL"]).await.unwrap();
    assert_eq!(a.renew(&holders[0], long).await, Ok(Renewal::Lost));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_while_the_server_is_away_has_left_when_it_is_back() {
    const LEASE: Duration = Duration::from_secs(30);
    let persistent = Options {
        append_only: true,
        ..Options::default()
    };
    let server = RedisServer::start(persistent).await.unwrap();
    let presence = presence([&server], "test/owed");
    let (holder, channel) = (Holder("a".into()), Channel::new("acc", "x"));
    presence.renew(&holder, LEASE).await.unwrap();
    for client in 1..=3 {
        presence
            .join(&holder, &channel, info(client))
            .await
            .unwrap();
    }
    server.kill().unwrap();
    let leaves = ["c1", "c2"].map(|client| presence.leave(&holder, &channel, client));
    for left in futures_util::future::join_all(leaves).await {
        assert!(left.is_err());
    }
    server.restart().await.unwrap();
    // One of them comes back before what is owed is paid.
    presence.join(&holder, &channel, info(2)).await.unwrap();
    presence.renew(&holder, LEASE).await.unwrap();
    let mut clients: Vec<_> = presence.list(&channel).await.unwrap();
    clients.sort_by(|a, b| a.client.cmp(&b.client));
    assert_eq!(clients, [info(2), info(3)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn seats_are_counted_over_living_processes() {
    const LEASE: Duration = Duration::from_millis(800);
    let server = RedisServer::start(Options::default()).await.unwrap();
    let [a, b] = [(); 2].map(|()| presence([&server], "test/seats"));
    let holders = [Holder("a".into()), Holder("b".into())];
    a.renew(&holders[0], LEASE * 100).await.unwrap();
    b.renew(&holders[1], LEASE * 100).await.unwrap();
    let limit = Some(3);
    assert!(a.take_seats(&holders[0], "acc", 2, limit).await.unwrap());
    assert!(b.take_seats(&holders[1], "acc", 1, limit).await.unwrap());
    assert!(!b.take_seats(&holders[1], "acc", 2, limit).await.unwrap());
    assert!(b.take_seats(&holders[1], "other", 3, limit).await.unwrap());
    assert!(a.take_seats(&holders[0], "acc", 1, limit).await.unwrap());
    assert!(b.take_seats(&holders[1], "acc", 2, limit).await.unwrap());
    assert!(!b.take_seats(&holders[1], "acc", 3, limit).await.unwrap());
    a.renew(&holders[0], LEASE).await.unwrap();
    tokio::time::sleep(LEASE).await;
    assert!(
        b.take_seats(&holders[1], "acc", 3, limit).await.unwrap(),
        "a is dead"
    );
    assert!(b.take_seats(&holders[1], "acc", 4, None).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cost_of_a_lease_does_not_depend_on_clients() {
    const LEASE: Duration = Duration::from_secs(10);
    let server = RedisServer::start(Options::default()).await.unwrap();
    let presence = presence([&server], "test/cost");
    let holder = Holder("a".into());
    // The server learns the scripts.
    presence.renew(&holder, LEASE).await.unwrap();
    presence.reap().await.unwrap();
    let mut costs = Vec::new();
    for round in 0..2 {
        let before = commands(&server).await;
        presence.renew(&holder, LEASE).await.unwrap();
        presence.reap().await.unwrap();
        costs.push(commands(&server).await - before);
        for client in 0..500 {
            let channel = Channel::new("acc", &format!("ch{}-{round}", client % 50));
            presence
                .join(&holder, &channel, info(client))
                .await
                .unwrap();
        }
    }
    // The topology is asked for meanwhile.
    assert!(costs[0].abs_diff(costs[1]) <= 4, "{costs:?}");
}

async fn commands(server: &RedisServer) -> u64 {
    let info = server.call(&["INFO", "stats"]).await.unwrap();
    let text = info.to_string();
    let (_, rest) = text.split_once("total_commands_processed:").unwrap();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}
