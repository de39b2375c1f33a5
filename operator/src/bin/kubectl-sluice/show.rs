//! Plans as tables of text.

use std::fmt::Write;

use crate::plan::Fleet;

/// A line per gateway.
pub(crate) fn fleets(fleets: &[Fleet]) -> String {
    let mut rows = vec![columns([
        "GATEWAY",
        "PODS",
        "CONNECTIONS",
        "IN/MIN",
        "OUT/MIN",
        "FAILED/MIN",
        "WAITING",
        "DELAY",
    ])];
    for fleet in fleets {
        rows.push(vec![
            fleet.gateway.clone(),
            fleet.pods.len().to_string(),
            fleet.connections.to_string(),
            format!("{:.0}", fleet.arrived_per_minute),
            format!("{:.0}", fleet.delivered_per_minute),
            format!("{:.0}", fleet.failed_per_minute),
            fleet.waiting.to_string(),
            delay(fleet),
        ]);
    }
    table(&rows)
}

/// A line per pod.
pub(crate) fn pods(fleet: &Fleet) -> String {
    let mut rows = vec![columns(["POD", "STATE", "CONNECTIONS", "FAIR", "REPORTS"])];
    for pod in &fleet.pods {
        rows.push(vec![
            pod.name.clone(),
            pod.state.clone(),
            pod.connections.to_string(),
            format!("{:.0}", pod.fair),
            if pod.reporting { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table(&rows)
}

/// Everything that is wanted, with its reasons.
pub(crate) fn plan(fleet: &Fleet) -> String {
    let mut text = format!(
        "{}: plan {} of term {}, {} connections, {:.0} in, {:.0} out, {:.0} failed per minute, {} waiting, delay {}\n",
        fleet.gateway,
        fleet.generation,
        fleet.term,
        fleet.connections,
        fleet.arrived_per_minute,
        fleet.delivered_per_minute,
        fleet.failed_per_minute,
        fleet.waiting,
        delay(fleet),
    );
    if fleet.learning {
        text.push_str(
            "The manager is new and learns what the pods hold; nothing is moved or scaled yet.\n",
        );
    }
    if let Some(wrong) = &fleet.wrong {
        let _ = writeln!(
            text,
            "This plan is wrong, which is a defect of the manager: {wrong}"
        );
    }
    if let Some(activity) = &fleet.activity {
        let _ = writeln!(text, "Under way: {activity}");
    }
    if let Some(scale) = &fleet.scale {
        let _ = write!(
            text,
            "Pods wanted: {} ({} asks for {})",
            scale.wanted, scale.reason, scale.wish
        );
        if let Some(limit) = &scale.limit {
            let _ = write!(text, ", held back: {limit}");
        }
        if let Some(waits) = &scale.waits {
            let _ = write!(text, ", none goes: {waits}");
        }
        if let Some(victim) = &scale.victim {
            let _ = write!(text, "; next to go: {victim}");
        }
        text.push('\n');
    }
    let mut rows = vec![columns(["POD", "STATE", "CONNECTIONS", "FAIR", "WHY"])];
    for pod in &fleet.pods {
        rows.push(vec![
            pod.name.clone(),
            pod.state.clone(),
            pod.connections.to_string(),
            format!("{:.0}", pod.fair),
            pod.reason.clone(),
        ]);
    }
    let _ = write!(text, "\n{}", table(&rows));
    if !fleet.caps.is_empty() {
        let mut rows = vec![columns(["CAP", "SENT/MIN", "ALLOWED/MIN"])];
        for cap in &fleet.caps {
            rows.push(vec![
                cap.key.clone(),
                format!("{:.0}", cap.sent_per_minute),
                format!("{:.0}", cap.allowed_per_minute),
            ]);
        }
        let _ = write!(text, "\n{}", table(&rows));
    }
    text
}

fn delay(fleet: &Fleet) -> String {
    match fleet.oldest_seconds {
        none if none <= 0.0 => "-".to_owned(),
        seconds if seconds < 100.0 => format!("{seconds:.1}s"),
        seconds => format!("{:.0}s", seconds),
    }
}

fn columns<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

/// As kubectl prints tables: three spaces between columns, none at the ends of lines.
fn table(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:width$}   ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fleet() -> Fleet {
        let said = json!({
            "gateway": "shop/demo", "term": 7, "generation": 42, "learning": false, "wrong": "too many",
            "activity": "moving 240 clients off demo-a", "connections": 1200,
            "arrivedPerMinute": 600.4, "deliveredPerMinute": 590.0, "failedPerMinute": 0.0,
            "waiting": 31, "oldestSeconds": 2.25,
            "scale": {"replicas": 3, "wanted": 3, "wish": 5, "reason": "Connections", "limit": "Maximum", "waits": null, "victim": null},
            "caps": [{"key": "gateway", "sentPerMinute": 590.0, "allowedPerMinute": 598.0}],
            "pods": [
                {"name": "demo-a", "state": "Fenced", "reason": "has 40 % more than its share", "connections": 900,
                 "fair": 600.0, "reporting": true, "drained": false},
                {"name": "demo-b", "state": "Accepting", "reason": "", "connections": 300, "fair": 600.0,
                 "reporting": true, "drained": false, "of a later release": 1},
            ],
        });
        serde_json::from_value(said).unwrap()
    }

    #[test]
    fn a_plan_says_what_and_why() {
        let wanted = "\
shop/demo: plan 42 of term 7, 1200 connections, 600 in, 590 out, 0 failed per minute, 31 waiting, delay 2.2s
This plan is wrong, which is a defect of the manager: too many
Under way: moving 240 clients off demo-a
Pods wanted: 3 (Connections asks for 5), held back: Maximum

POD      STATE       CONNECTIONS   FAIR   WHY
demo-a   Fenced      900           600    has 40 % more than its share
demo-b   Accepting   300           600

CAP       SENT/MIN   ALLOWED/MIN
gateway   590        598
";
        assert_eq!(plan(&fleet()), wanted);
    }

    #[test]
    fn tables_of_gateways_and_pods() {
        let wanted = "\
GATEWAY     PODS   CONNECTIONS   IN/MIN   OUT/MIN   FAILED/MIN   WAITING   DELAY
shop/demo   2      1200          600      590       0            31        2.2s
";
        assert_eq!(fleets(&[fleet()]), wanted);
        let wanted = "\
POD      STATE       CONNECTIONS   FAIR   REPORTS
demo-a   Fenced      900           600    yes
demo-b   Accepting   300           600    yes
";
        assert_eq!(pods(&fleet()), wanted);
    }

    #[test]
    fn what_an_older_operator_does_not_show_is_empty() {
        let least: Fleet = serde_json::from_value(json!({"gateway": "n/g"})).unwrap();
        assert!(plan(&least).starts_with("n/g: plan 0 of term 0, 0 connections"));
    }
}
