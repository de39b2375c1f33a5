use std::time::{Duration, Instant};

use sluice_dataplane::drain::Outcome;
use sluice_proto::fleet::{CapKey, Directive, Report, Share, Version};

use super::Plane;
use super::manager::{Manager, directive};

fn share(per_minute: f64, lease: Duration, safe_per_minute: f64) -> Vec<Share> {
    vec![Share {
        key: CapKey::Application("shop".into()),
        per_minute,
        lease,
        safe_per_minute,
    }]
}

fn allowed(report: &Report) -> f64 {
    report
        .caps
        .first()
        .map_or(-1.0, |cap| cap.allowed_per_minute)
}

#[tokio::test]
async fn leases_run_out_and_the_safe_rate_stays() {
    let mut manager = Manager::start().await;
    let plane = Plane::start(&manager).await;
    let began = Instant::now();
    plane.events(300).await;
    let mut stream = manager.stream().await;
    // It never heard anything yet.
    if began.elapsed() < Duration::from_secs(10) {
        assert_eq!(plane.delivered(), 0);
        assert_eq!(plane.cap().await["why"], "Boot");
    }

    let lease = Duration::from_secs(4);
    let report = stream
        .direct(Directive {
            shares: share(600.0, lease, 60.0),
            ..directive(1, 1)
        })
        .await;
    let told = Instant::now();
    let cap = &report.caps[0];
    assert_eq!(cap.allowed_per_minute, 600.0);
    assert!(
        !cap.lease_left.is_zero() && cap.lease_left <= lease,
        "{cap:?}"
    );
    assert_eq!(plane.cap().await["why"], "Lease");
    let name = "sluice_ingest_cap_requests_per_minute{cap=\"application/shop\"}";
    let report = stream
        .report_where("safe", |report| report.caps[0].lease_left.is_zero())
        .await;
    assert_eq!(allowed(&report), 60.0);
    assert!(
        told.elapsed() < lease + Duration::from_secs(2),
        "{:?}",
        told.elapsed()
    );
    let before = plane.delivered();
    // The manager is gone for good: it stays so.
    drop((manager, stream));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let cap = plane.cap().await;
    assert_eq!(
        (&cap["why"], &cap["allowedPerMinute"]),
        (&"Safe".into(), &60.0.into())
    );
    let sent = plane.delivered() - before;
    assert!((1..=8).contains(&sent), "{sent} in 5 s at 60 a minute");
    assert_eq!(plane.metric(name).await, Some(60.0));
    assert_eq!(plane.metric("sluice_fleet_connected").await, Some(0.0));
    plane.admin("/readyz").await;
}

#[tokio::test]
async fn a_successor_is_followed_and_its_predecessor_is_not() {
    let hour = Duration::from_secs(3_600);
    let mut first = Manager::start().await;
    let port = first.port;
    let plane = Plane::start(&first).await;
    plane.events(1).await;
    let mut stream = first.stream().await;
    let before = stream
        .direct(Directive {
            shares: share(500.0, hour, 60.0),
            ..directive(5, 9)
        })
        .await;
    drop((first, stream));
    let mut second = Manager::start_on(port, None).await;
    let mut stream = second.stream().await;
    let first_report = stream.report().await;
    assert_eq!(
        first_report.applied,
        Version {
            term: 5,
            generation: 9
        }
    );
    assert_eq!(first_report.instance, before.instance);
    assert!(first_report.sequence > before.sequence);
    stream
        .direct(Directive {
            shares: share(400.0, hour, 60.0),
            ..directive(6, 1)
        })
        .await;
    drop((second, stream));
    // The first one again, which does not know yet.
    let mut third = Manager::start_on(port, None).await;
    let mut stream = third.stream().await;
    let answers = stream.report().await.sequence;
    stream
        .say(Directive {
            answers,
            shares: share(600.0, hour, 600.0),
            ..directive(5, 10)
        })
        .await;
    let name = "sluice_fleet_directives_total{outcome=\"ignored\"}";
    while plane.metric(name).await != Some(1.0) {
        stream.report().await;
    }
    let report = stream.report().await;
    assert_eq!(
        report.applied,
        Version {
            term: 6,
            generation: 1
        }
    );
    assert_eq!(allowed(&report), 400.0);
}

#[tokio::test]
async fn one_that_ends_gives_its_parts_back_before_it_is_gone() {
    let mut manager = Manager::start().await;
    let plane = Plane::start(&manager).await;
    plane.events(300).await;
    let mut stream = manager.stream().await;
    let hour = Duration::from_secs(3_600);
    let report = stream
        .direct(Directive {
            shares: share(60.0, hour, 30.0),
            ..directive(1, 1)
        })
        .await;
    assert!(!report.sends_nothing);
    assert_eq!(report.caps[0].safe_per_minute, Some(30.0));
    let drain = plane.running.drain.clone();
    drain.start(Duration::from_secs(600));
    let ended = tokio::spawn(async move { drain.complete().await });
    let last = stream
        .report_where("nothing sent", |report| report.sends_nothing)
        .await;
    assert!(last.ends_in.is_some());
    let sent = plane.delivered();
    let outcome = tokio::time::timeout(Duration::from_secs(3), ended).await;
    assert_eq!(outcome.unwrap().unwrap(), Outcome::Finished);
    assert_eq!(plane.delivered(), sent);
}

#[tokio::test]
async fn one_that_nobody_attends_to_ends_as_soon() {
    let manager = Manager::start().await;
    let plane = Plane::start(&manager).await;
    drop(manager);
    let drain = &plane.running.drain;
    drain.start(Duration::from_secs(600));
    let outcome = tokio::time::timeout(Duration::from_secs(4), drain.complete()).await;
    assert_eq!(outcome.unwrap(), Outcome::Finished);
}
