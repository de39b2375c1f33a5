//! The names are a promise to dashboards.

use prometheus_client::encoding::text::encode;

use super::*;

#[test]
fn names_and_labels_stay() {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let second = Duration::from_secs(1);
    let upstream: Arc<str> = "main".into();
    metrics.accepted("shop");
    metrics.accepted_counter("").inc();
    metrics.rejected("checksum");
    metrics.accept_took(second);
    metrics.proxied(200);
    metrics.delivered("shop", second);
    metrics.parked("shop", "AttemptsExhausted");
    metrics.retried("shop", "Overload");
    metrics.discarded();
    metrics.set_queue(&QueueStats {
        waiting_bytes: 1,
        stored_bytes: 2,
        budget_bytes: 3,
        ..QueueStats::default()
    });
    metrics.set_waiting("shop", 4, second);
    metrics.set_lane_held("shop", "Cap", true);
    metrics.set_upstream(&upstream, 5, 6, 7.5, false);
    metrics.attempted(&upstream, "ok", second);
    let mut text = String::new();
    encode(&mut text, &registry).expect("metrics are encodable");
    for line in [
        r#"sluice_ingest_accepted_total{application="shop"} 1"#,
        r#"sluice_ingest_accepted_total{application="(unknown)"} 1"#,
        r#"sluice_ingest_rejected_total{reason="checksum"} 1"#,
        r#"sluice_ingest_accept_seconds_count 1"#,
        r#"sluice_ingest_proxied_total{status="200"} 1"#,
        r#"sluice_ingest_delivered_total{application="shop"} 1"#,
        r#"sluice_ingest_delivery_delay_seconds_count 1"#,
        r#"sluice_ingest_parked_total{application="shop",reason="AttemptsExhausted"} 1"#,
        r#"sluice_ingest_retried_total{application="shop",reason="Overload"} 1"#,
        r#"sluice_ingest_discarded_total 1"#,
        r#"sluice_ingest_queue_entries{application="shop"} 4"#,
        r#"sluice_ingest_queue_bytes 1"#,
        r#"sluice_ingest_queue_stored_bytes 2"#,
        r#"sluice_ingest_queue_budget_bytes 3"#,
        r#"sluice_ingest_oldest_age_seconds{application="shop"} 1.0"#,
        r#"sluice_ingest_lane_held{application="shop",reason="Cap"} 1"#,
        r#"sluice_ingest_upstream_in_flight{upstream="main"} 5"#,
        r#"sluice_ingest_upstream_limit_in_flight{upstream="main"} 6"#,
        r#"sluice_ingest_upstream_limit_rate{upstream="main"} 7.5"#,
        r#"sluice_ingest_upstream_breaker_open{upstream="main"} 0"#,
        r#"sluice_ingest_upstream_attempts_total{upstream="main",outcome="ok"} 1"#,
        r#"sluice_ingest_upstream_latency_seconds_count{upstream="main"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    metrics.forget_application("shop", &["Cap"]);
    metrics.forget_upstream(&upstream);
    let mut text = String::new();
    encode(&mut text, &registry).expect("metrics are encodable");
    assert!(!text.contains("sluice_ingest_queue_entries{"));
    assert!(!text.contains("sluice_ingest_lane_held{"));
    assert!(!text.contains("sluice_ingest_upstream_in_flight{"));
}
