use std::time::Duration;

use serde_json::json;

use super::*;

fn look(at: Instant, page: &str, lanes: Option<Value>) -> Look {
    Look {
        at,
        figures: Figures::read(page),
        lanes,
    }
}

fn lanes() -> Value {
    json!({
        "lanes": [
            { "application": "web", "replay": false, "waiting": 12_345, "oldestAgeMs": 2_100, "parked": 3, "inFlight": 8,
              "held": { "reason": "Cap", "retryInMs": 400 } },
            { "application": "\u{1b}[2J", "replay": true, "waiting": 0, "parked": 0, "inFlight": 0, "held": null },
        ],
        "caps": [{ "cap": "application/web", "requestsPerMinute": 600, "allowedPerMinute": 600, "why": "Configured" }],
        "upstreams": [{ "name": "main", "healthy": true, "inFlight": 8, "limitInFlight": 12.5, "limitRate": null,
                        "breaker": "Closed", "limitsSetBy": "Latency" }],
    })
}

#[test]
fn rates_are_what_came_between_two_looks() {
    let began = Instant::now();
    let before = "# TYPE x counter\nsluice_ingest_accepted_total{application=\"web\"} 100\nsluice_relay_connections 7\n\
                  process_cpu_seconds_total 10.5\nsluice_ingest_upstream_attempts_total{upstream=\"main\",outcome=\"Ok\"} 10\n";
    let now = "sluice_ingest_accepted_total{application=\"web\"} 140\nsluice_ingest_delivered_total{application=\"web\"} 20\n\
               sluice_relay_connections 1234567\nprocess_cpu_seconds_total 11.5\nsluice_overload_level 2\n\
               sluice_ingest_upstream_attempts_total{upstream=\"main\",outcome=\"Ok\"} 30\nnot a figure\n";
    let before = look(began, before, Some(lanes()));
    let now = look(began + Duration::from_secs(4), now, Some(lanes()));
    let page = page::page(&before, &now);
    for line in [
        "clients       1,234,567, 0/s come, 0/s go; messages 0/s in, 0/s out, 0/s refused",
        "process       0.25 cores, 0 MB of 0 MB; overloaded: new connections are refused",
        "requests/min  600 in, 300 delivered, 0 set aside, 0 refused",
        "waiting       12,345, the oldest for 2.1 s; 3 set aside",
        "web           600     300      12,345   2.1 s   8          Cap, for 400 ms",
        "application/web  600      600           Configured",
        "main      5          8          12     -       Closed   Latency",
    ] {
        assert!(
            page.lines().any(|shown| shown == line),
            "no {line:?} in\n{page}"
        );
    }
    // What a client chose is not obeyed by the terminal.
    assert!(
        !page.contains('\u{1b}') && page.contains("[2J (again)"),
        "{page}"
    );
}

#[test]
fn a_process_that_began_again_and_one_without_ingest_are_shown() {
    let began = Instant::now();
    let before = look(began, "sluice_relay_publications_total 1000\n", None);
    let now = look(
        began + Duration::from_secs(2),
        "sluice_relay_publications_total 5\n",
        None,
    );
    let page = page::page(&before, &now);
    assert!(page.contains("messages 2.5/s in"), "{page}");
    assert_eq!(page.lines().count(), 2, "{page}");
}
