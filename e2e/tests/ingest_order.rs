//! Requests of a device are delivered in the order in which it sent them, whatever happens on the way.

use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::{Gateway, Ingest, KEY, nothing_lost};
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::{Fault, FaultKind, Settings, Spread};

#[tokio::test]
async fn order_holds_while_answers_fail_and_get_lost() -> Result<()> {
    let settings = Settings {
        workers: 30,
        service_ms: 30.0,
        spread: Spread::Exponential,
        ..Settings::default()
    };
    let upstream = Upstream::start(settings).await?;
    let share = |share, kind| Fault {
        share,
        ..Fault::of(kind)
    };
    let unavailable = FaultKind::Reply {
        status: 500,
        body: r#"{"result":"Could not ingest data"}"#.to_owned(),
        retry_after_s: None,
    };
    let faults = [
        share(0.03, FaultKind::CloseAfter),
        share(0.03, FaultKind::CloseBefore),
        share(0.05, unavailable),
    ];
    upstream.fail(&faults).await?;
    let gateway = Gateway::start(&Ingest::new(&upstream.url())).await?;
    let mut plan = Plan::new(gateway.address(), KEY, vec![Phase::rate(200.0, 6.0)]);
    // Few devices: each has many requests waiting at a time.
    (plan.connections, plan.devices) = (20, 20);
    let outcome = Load::start(plan)?.outcome().await?;
    assert_eq!((outcome.acked, outcome.refused()), (1200, 0), "{outcome:?}");
    sleep_some().await;
    upstream.heal().await?;
    gateway.drained(Duration::from_secs(90)).await?;
    assert_eq!(nothing_lost(&upstream, &outcome).await?, 0);
    let stats = upstream.stats().await?;
    // Retried in place, so that the duplicate filter knows them again.
    ensure!(
        stats.duplicates_ignored > 0 && stats.repeated == 0,
        "{stats:?}"
    );
    Ok(())
}

async fn sleep_some() {
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Devices that begin a session without being known, then get to be known by another name and go on.
#[tokio::test]
async fn a_merge_waits_for_the_old_device_and_the_new_one_waits_for_it() -> Result<()> {
    const DEVICES: usize = 40;
    const BEFORE: u64 = 5;
    let settings = Settings {
        workers: 20,
        service_ms: 20.0,
        spread: Spread::Exponential,
        ..Settings::default()
    };
    let upstream = Upstream::start(settings).await?;
    // A queue builds up, in which old and new names lie side by side.
    upstream.fail(&[Fault::reply(503, "")]).await?;
    let gateway = Gateway::start(&Ingest::new(&upstream.url())).await?;
    let send = async |device: String, seq: u64, more: String| -> Result<()> {
        let target =
            format!("/i?app_key={KEY}&device_id={device}&timestamp=1790000000000&seq={seq}{more}");
        assert_eq!(gateway.get(&target).await?.status, 200);
        Ok(())
    };
    for device in 0..DEVICES {
        let (old, new) = (format!("anonymous{device}"), format!("user{device}"));
        send(old.clone(), 1, "&begin_session=1".to_owned()).await?;
        for seq in 2..=BEFORE {
            send(old.clone(), seq, "&session_duration=10".to_owned()).await?;
        }
        send(
            new.clone(),
            1,
            format!("&old_device_id={old}&old_seq={BEFORE}"),
        )
        .await?;
        send(new.clone(), 2, "&session_duration=10".to_owned()).await?;
        send(new, 3, "&end_session=1".to_owned()).await?;
    }
    upstream.heal().await?;
    gateway.drained(Duration::from_secs(90)).await?;
    let stats = upstream.stats().await?;
    assert_eq!(stats.applied, DEVICES as u64 * (BEFORE + 3));
    assert_eq!(stats.merges, DEVICES as u64);
    assert_eq!(
        (stats.merges_early, stats.after_merge, stats.session_orphans),
        (0, 0, 0),
        "{stats:?}"
    );
    assert_eq!(
        (
            stats.out_of_order,
            stats.missing,
            stats.overlaps,
            stats.repeated
        ),
        (0, 0, 0, 0),
        "{stats:?}"
    );
    Ok(())
}

#[tokio::test]
async fn one_device_in_trouble_holds_up_no_other() -> Result<()> {
    let upstream = Upstream::start(Settings {
        service_ms: 5.0,
        ..Settings::default()
    })
    .await?;
    let ill = Fault {
        device: Some("ill".to_owned()),
        ..Fault::reply(500, "")
    };
    upstream.fail(&[ill]).await?;
    let gateway = Gateway::start(&Ingest::new(&upstream.url())).await?;
    for seq in 1..=20 {
        for device in ["ill", "well", "fine"] {
            assert_eq!(gateway.event(device, seq).await?.status, 200);
        }
    }
    upstream
        .until(Duration::from_secs(40), |stats| stats.applied == 40)
        .await?;
    upstream.heal().await?;
    gateway.drained(Duration::from_secs(90)).await?;
    let stats = upstream.stats().await?;
    assert_eq!(
        (stats.applied, stats.out_of_order, stats.missing),
        (60, 0, 0)
    );
    Ok(())
}
