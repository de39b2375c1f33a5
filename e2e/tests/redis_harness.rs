//! The Redis servers of the tests do what the tests rely on: they start, fail over, pause and come back.

use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sluice_e2e::redis::{AclUser, CallError, Options, REDIS_SLOTS, RedisCluster, RedisServer};
use sluice_e2e::redis::{Resp, Tls};
use tokio::time::sleep;

/// Redis' own: the node timeout, and about two seconds for the vote on a busy machine.
const TAKEOVER: Duration = Duration::from_secs(30);

/// A key that lies in the shard.
async fn key_of(cluster: &RedisCluster, shard: usize) -> Result<String> {
    let (first, last) = cluster.slots(shard);
    for n in 0..1000 {
        let key = format!("key-{n}");
        let asked = ["CLUSTER", "KEYSLOT", &key];
        let slot = cluster.nodes()[0].call(&asked).await?;
        let slot = slot.int().context("a slot")?;
        if (i64::from(first)..=i64::from(last)).contains(&slot) {
            return Ok(key);
        }
    }
    anyhow::bail!("no key of shard {shard}")
}

#[tokio::test]
async fn a_single_server_keeps_nothing_but_with_an_append_only_file() -> Result<()> {
    for (append_only, kept) in [(false, Resp::Nil), (true, Resp::Bulk(b"v".to_vec()))] {
        let options = Options {
            append_only,
            ..Options::default()
        };
        let redis = RedisServer::start(options).await?;
        let (port, pid) = (redis.port(), redis.pid());
        redis.call(&["SET", "k", "v"]).await?;
        redis.kill()?;
        ensure!(!redis.is_running());
        let refused = redis.call(&["PING"]).await;
        ensure!(
            matches!(refused, Err(CallError::Connection(_))),
            "{refused:?}"
        );
        redis.restart().await?;
        ensure!(redis.is_running() && redis.port() == port && redis.pid() != pid);
        ensure!(redis.call(&["GET", "k"]).await? == kept);
    }
    Ok(())
}

#[tokio::test]
async fn passwords_and_users_are_asked_for_over_tls() -> Result<()> {
    let options = Options {
        tls: Some(Tls::generate(true)?),
        password: Some("open-sesame".into()),
        users: vec![AclUser {
            name: "app".into(),
            password: Some("pw".into()),
            rules: "~app:* +@all -@dangerous".into(),
        }],
        ..Options::default()
    };
    let redis = RedisServer::start(options).await?;
    ensure!(redis.url() == format!("rediss://127.0.0.1:{}", redis.port()));
    let users = redis.call(&["ACL", "LIST"]).await?;
    ensure!(
        users.items().len() == 3,
        "default, app and the harness: {users}"
    );
    ensure!(
        !users.to_string().contains("nopass"),
        "everybody has a password"
    );
    let wrong = redis.call(&["AUTH", "app", "wrong"]).await;
    ensure!(
        matches!(&wrong, Err(CallError::Refused(text)) if text.starts_with("WRONGPASS")),
        "{wrong:?}"
    );
    redis.call(&["AUTH", "app", "pw"]).await?;
    redis.call(&["AUTH", "open-sesame"]).await?;
    redis.restart().await?;
    redis.call(&["PING"]).await?;
    Ok(())
}

#[tokio::test]
async fn a_paused_server_is_silent_and_killed_with_its_owner() -> Result<()> {
    let redis = RedisServer::start(Options::default()).await?;
    redis.pause()?;
    ensure!(!redis.is_running());
    // The kernel still takes connections; nobody answers.
    drop(TcpStream::connect(redis.address())?);
    ensure!(matches!(
        redis.call(&["PING"]).await,
        Err(CallError::Timeout)
    ));
    redis.resume()?;
    redis.call(&["PING"]).await?;
    redis.pause()?;
    let process = format!("/proc/{}", redis.pid());
    ensure!(Path::new(&process).exists());
    drop(redis);
    ensure!(!Path::new(&process).exists());
    Ok(())
}

#[tokio::test]
async fn a_cluster_starts_soon_and_in_order() -> Result<()> {
    let start = Instant::now();
    let cluster = RedisCluster::start(3, 1, Options::default()).await?;
    let took = start.elapsed();
    println!("3 + 3 nodes in {took:?}");
    ensure!(took < Duration::from_secs(20), "{took:?}");
    let mut next = 0;
    for shard in 0..3 {
        let (first, last) = cluster.slots(shard);
        ensure!(first == next);
        next = last + 1;
        ensure!(cluster.primary(shard).await? == cluster.primary_of(last).await?);
        ensure!(cluster.replicas_of(shard).await?.len() == 1);
    }
    ensure!(next == REDIS_SLOTS);
    ensure!(cluster.url().matches("127.0.0.1:").count() == 6);
    Ok(())
}

#[tokio::test]
async fn a_replica_takes_over_from_a_killed_and_from_a_paused_primary() -> Result<()> {
    let cluster = RedisCluster::start(3, 1, Options::default()).await?;
    let key = key_of(&cluster, 1).await?;
    cluster.nodes()[cluster.primary(1).await?]
        .call(&["SET", &key, "v"])
        .await?;

    let start = Instant::now();
    let killed = cluster.kill_primary(1).await?;
    let now = cluster.wait_taken_over(1, killed, TAKEOVER).await?;
    println!("taken over {:?} after the kill", start.elapsed());
    let value = cluster.nodes()[now].call(&["GET", &key]).await?;
    ensure!(value == Resp::Bulk(b"v".to_vec()), "{value}");
    cluster.restart(killed).await?;
    cluster.wait_ready(Duration::from_secs(60)).await?;
    ensure!(cluster.primary(1).await? == now);
    ensure!(cluster.replicas_of(1).await? == [killed]);

    let start = Instant::now();
    let paused = cluster.pause_primary(1).await?;
    ensure!(paused == now);
    let back = cluster.wait_taken_over(1, paused, TAKEOVER).await?;
    println!("taken over {:?} after the pause", start.elapsed());
    ensure!(back == killed);
    cluster.resume(paused)?;
    cluster.wait_ready(Duration::from_secs(60)).await?;
    ensure!(
        cluster.primary(1).await? == back,
        "it follows after its pause"
    );
    Ok(())
}

#[tokio::test]
async fn a_planned_failover_and_a_restart_of_all_lose_nothing() -> Result<()> {
    let options = Options {
        append_only: true,
        password: Some("pw".into()),
        ..Options::default()
    };
    let cluster = RedisCluster::start(3, 1, options).await?;
    let key = key_of(&cluster, 2).await?;
    let old = cluster.primary(2).await?;
    cluster.nodes()[old].call(&["SET", &key, "v"]).await?;
    let start = Instant::now();
    let new = cluster.failover(2).await?;
    println!("planned failover in {:?}", start.elapsed());
    ensure!(new != old && cluster.primary(2).await? == new);
    for node in cluster.nodes() {
        node.kill()?;
    }
    sleep(Duration::from_millis(500)).await;
    for node in 0..cluster.nodes().len() {
        cluster.restart(node).await?;
    }
    cluster.wait_ready(Duration::from_secs(60)).await?;
    ensure!(cluster.primary(2).await? == new, "it remembers who is who");
    let value = cluster.nodes()[new].call(&["GET", &key]).await?;
    ensure!(value == Resp::Bulk(b"v".to_vec()), "{value}");
    Ok(())
}

#[tokio::test]
async fn a_cluster_speaks_tls_among_itself() -> Result<()> {
    let options = Options {
        tls: Some(Tls::generate(false)?),
        ..Options::default()
    };
    let cluster = RedisCluster::start(2, 1, options).await?;
    ensure!(cluster.url().starts_with("rediss://"));
    let new = cluster.failover(0).await?;
    cluster.wait_ready(Duration::from_secs(60)).await?;
    ensure!(cluster.primary(0).await? == new);
    Ok(())
}
