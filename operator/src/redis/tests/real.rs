//! Real servers, real scripts, real faults. Every test is a cluster's life: made, broken, whole again, nothing lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::Mutex;
use tokio::time::sleep;

use super::servers::{Fleet, Writer, tls};
use crate::redis::*;

/// On a busy machine; each takes a fraction of it on an idle one.
const SOON: Duration = Duration::from_secs(90);
/// A server whose disk is busy writes its file this much later. Losing all copies at once loses what is younger.
const FLUSHED: Duration = Duration::from_millis(2500);
/// Tests of clusters take turns: two at once on two processors would see elections that nobody called.
static TURN: Mutex<()> = Mutex::const_new(());

fn cluster(replicas: u32, is_persistent: bool) -> Wanted {
    Wanted {
        shape: Shape::Cluster {
            shards: 3,
            replicas,
        },
        is_persistent,
        may_lose_data: false,
    }
}

async fn made(wanted: Wanted, keys: u32) -> Result<(Arc<Fleet>, Writer)> {
    let replicas = if wanted.shape.pods() > 1 { "1" } else { "0" };
    let fleet = Fleet::start(wanted, None)?;
    fleet.until_whole(SOON).await?;
    let mut writer = Writer::new(&fleet);
    for key in 0..keys {
        writer.write(key, replicas).await;
    }
    ensure!(
        writer.acknowledged.len() == keys as usize,
        "not all writes are acknowledged"
    );
    sleep(FLUSHED).await;
    Ok((fleet, writer))
}

#[tokio::test(flavor = "multi_thread")]
async fn all_pods_restart_at_once_on_each_others_addresses() -> Result<()> {
    let _turn = TURN.lock().await;
    let (fleet, mut writer) = made(cluster(1, true), 60).await?;
    let names = fleet.names();
    let ips: Vec<_> = names.iter().map(|name| fleet.ip(name)).collect();
    for name in &names {
        fleet.kill(name);
    }
    // Each finds another shard's server where its peers were.
    for (index, name) in names.iter().enumerate() {
        fleet.start_pod(name, ips[(index + 3) % ips.len()])?;
    }
    fleet.until_whole(SOON).await?;
    writer
        .verify()
        .await
        .context("after a shuffle of addresses")?;
    for name in &names {
        fleet.kill(name);
    }
    for name in &names {
        fleet.start_pod(name, None)?;
    }
    fleet.until_whole(SOON).await?;
    writer.reseed(&fleet);
    writer
        .verify()
        .await
        .context("on addresses that nobody had before")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_dies_or_loses_its_volume_loses_nothing() -> Result<()> {
    let _turn = TURN.lock().await;
    let (fleet, mut writer) = made(cluster(1, true), 60).await?;
    let primary = fleet.primary(0).await?;
    fleet.kill(&primary);
    let replaced = |decision: &Decision| {
        let shard = &decision.summary.shards[0];
        shard.primary.as_ref().is_some_and(|pod| *pod != primary)
    };
    fleet.until("replaced", SOON, replaced).await?;
    fleet.start_pod(&primary, None)?;
    fleet.until_whole(SOON).await?;
    writer.reseed(&fleet);
    writer.verify().await.context("after a kill")?;

    // It is back before anyone can miss it: its replica goes first all the same.
    let primary = fleet.primary(2).await?;
    let ip = fleet.ip(&primary);
    fleet.kill(&primary);
    fleet.start_pod(&primary, ip)?;
    fleet.until_whole(SOON).await?;
    ensure!(fleet.primary(2).await? != primary, "it did not wait");
    writer.verify().await.context("after a crash")?;

    // Its volume is gone and it is back at once, where its replica looks for it.
    let primary = fleet.primary(1).await?;
    let ip = fleet.ip(&primary);
    fleet.kill(&primary);
    fleet.wipe(&primary)?;
    fleet.start_pod(&primary, ip)?;
    fleet.until_whole(SOON).await?;
    ensure!(
        fleet.primary(1).await? != primary,
        "the empty server is primary"
    );
    writer.verify().await.context("after the loss of a volume")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_persistence_a_crashed_primary_comes_back_empty_and_nothing_is_lost() -> Result<()>
{
    let _turn = TURN.lock().await;
    let (fleet, mut writer) = made(cluster(1, false), 60).await?;
    let primary = fleet.primary(2).await?;
    // Its container is restarted in the same pod: address and nodes.conf are still there, the data is not.
    let ip = fleet.ip(&primary);
    fleet.kill(&primary);
    fleet.start_pod(&primary, ip)?;
    fleet.until_whole(SOON).await?;
    writer.verify().await.context("after a crash")?;
    fleet.new_revision();
    fleet.until_whole(2 * SOON).await?;
    writer.reseed(&fleet);
    writer.verify().await.context("after a rollout")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_keeps_what_was_acknowledged_while_it_went_on() -> Result<()> {
    let _turn = TURN.lock().await;
    let (fleet, mut writer) = made(cluster(1, true), 20).await?;
    fleet.new_revision();
    let is_done = Arc::new(AtomicBool::new(false));
    let (done, rolled) = (Arc::clone(&is_done), Arc::clone(&fleet));
    let writing = tokio::spawn(async move {
        let mut key = 20;
        while !done.load(Ordering::Relaxed) {
            writer.reseed(&rolled);
            writer.write(key, "1").await;
            key += 1;
            sleep(Duration::from_millis(10)).await;
        }
        (writer, key)
    });
    let rolled = fleet.until_whole(3 * SOON).await;
    is_done.store(true, Ordering::Relaxed);
    let (writer, tried) = writing.await?;
    rolled?;
    let mut deleted = fleet.deleted();
    println!(
        "{} of {tried} writes acknowledged, deleted {deleted:?}",
        writer.acknowledged.len()
    );
    deleted.sort();
    ensure!(deleted == fleet.names(), "each pod once");
    ensure!(
        writer.acknowledged.len() > 60,
        "hardly any write was acknowledged"
    );
    writer.verify().await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_primaries_at_once_are_replaced_without_a_majority() -> Result<()> {
    let _turn = TURN.lock().await;
    let (fleet, mut writer) = made(cluster(1, true), 60).await?;
    let (first, second) = (fleet.primary(0).await?, fleet.primary(1).await?);
    fleet.kill(&first);
    fleet.kill(&second);
    // Started together, so that the patience is the longer one.
    let covered = |decision: &Decision| decision.summary.slots_covered == SLOTS;
    fleet.until("covered", 3 * SOON, covered).await?;
    fleet.start_pod(&first, None)?;
    fleet.start_pod(&second, None)?;
    fleet.until_whole(SOON).await?;
    writer.reseed(&fleet);
    writer.verify().await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_replicas_a_primary_goes_if_its_data_stays() -> Result<()> {
    let _turn = TURN.lock().await;
    let (fleet, mut writer) = made(cluster(0, true), 40).await?;
    fleet.new_revision();
    fleet.until_whole(2 * SOON).await?;
    ensure!(fleet.deleted() == fleet.names(), "each pod once, in order");
    writer.reseed(&fleet);
    writer.verify().await?;

    let (fleet, writer) = made(cluster(0, false), 10).await?;
    fleet.new_revision();
    let holds = |decision: &Decision| {
        let hold = decision.hold.as_ref();
        hold.is_some_and(|hold| hold.reason == HoldReason::DataLossNotAllowed)
    };
    fleet.until("held", SOON, holds).await?;
    ensure!(fleet.deleted().is_empty(), "deleted {:?}", fleet.deleted());
    writer.verify().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_server_is_rolled_with_its_volume() -> Result<()> {
    let wanted = Wanted {
        shape: Shape::Standalone,
        is_persistent: true,
        may_lose_data: false,
    };
    let (fleet, mut writer) = made(wanted, 20).await?;
    fleet.new_revision();
    fleet.until_whole(SOON).await?;
    ensure!(fleet.deleted() == fleet.names());
    writer.reseed(&fleet);
    writer.verify().await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_cluster_is_made_over_data() -> Result<()> {
    let _turn = TURN.lock().await;
    // All names are lost and the data is not, as after a wrong restore.
    let rename = |fleet: &Fleet| {
        for name in fleet.names() {
            fleet.kill(&name);
            fleet.forget_identity(&name)?;
            fleet.start_pod(&name, None)?;
        }
        anyhow::Ok(())
    };
    let (fleet, writer) = made(cluster(1, true), 30).await?;
    rename(&fleet)?;
    // Of each shard two servers hold the keys; nobody can tell whose are newer.
    let holds = |decision: &Decision| {
        let hold = decision.hold.as_ref();
        hold.is_some_and(|hold| hold.reason == HoldReason::DataPresent)
    };
    fleet.until("held", SOON, holds).await?;
    let (seen, decision) = fleet.until("held still", SOON, holds).await?;
    ensure!(
        decision.summary.slots_covered < SLOTS,
        "{:?}",
        decision.summary
    );
    let keys: u64 = seen
        .pods
        .iter()
        .filter_map(Seen::view)
        .map(|view| view.keys)
        .sum();
    ensure!(keys == 2 * writer.acknowledged.len() as u64, "{keys} keys");

    // Where each shard has one server, its keys are beyond doubt.
    let (fleet, mut writer) = made(cluster(0, true), 30).await?;
    rename(&fleet)?;
    fleet.until_whole(SOON).await?;
    writer.reseed(&fleet);
    writer.verify().await
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_is_spoken_by_all_of_them() -> Result<()> {
    let _turn = TURN.lock().await;
    let fleet = Fleet::start(cluster(1, true), Some(tls()?))?;
    fleet.until_whole(SOON).await?;
    let mut writer = Writer::new(&fleet);
    for key in 0..20 {
        writer.write(key, "1").await;
    }
    ensure!(writer.acknowledged.len() == 20);
    let name = fleet.primary(0).await?;
    let ip = fleet.ip(&name).map(|ip| ip.to_string()).unwrap_or_default();
    for script in ["startup.sh", "liveness.sh", "readiness.sh"] {
        ensure!(fleet.script(&name, script, &ip), "{script}");
    }
    ensure!(fleet.script(&name, "pre-stop.sh", &ip), "pre-stop.sh");
    ensure!(fleet.primary(0).await? != name, "it has not handed over");
    fleet.kill(&name);
    ensure!(!fleet.script(&name, "liveness.sh", &ip), "dead and alive");
    Ok(())
}
