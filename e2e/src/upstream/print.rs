//! Requests as lines for people.

use std::io::Write;

use serde_json::Value;

use super::oracle::Who;
use super::parameters::Parameters;

/// Parameters that every request has, or that say nothing about what happened.
const PLUMBING: [&str; 18] = [
    "app_key",
    "av",
    "callback",
    "checksum",
    "checksum256",
    "device_id",
    "dow",
    "hour",
    "rr",
    "sdk_name",
    "sdk_version",
    "seq",
    "t",
    "timestamp",
    "tz",
    "events",
    "metrics",
    "old_seq",
];

/// Prints what happened, one line per event.
pub fn print(who: &Who, parameters: &Parameters) {
    let mut out = std::io::stdout().lock();
    for line in lines(who, parameters) {
        // Nobody reads any more: that is no reason to stop serving.
        let _ = writeln!(out, "{line}");
    }
    let _ = out.flush();
}

/// The lines for a request.
#[must_use]
pub fn lines(who: &Who, parameters: &Parameters) -> Vec<String> {
    let Who { app, device } = who;
    let mut lines = Vec::new();
    let others: Vec<String> = parameters
        .names()
        .filter(|name| !PLUMBING.contains(name))
        .map(|name| format!("{name}={}", short(parameters.get(name).unwrap_or_default())))
        .collect();
    if !others.is_empty() {
        lines.push(format!("{app} {device}: {}", others.join(" ")));
    }
    let events = parameters
        .get("events")
        .and_then(|text| serde_json::from_str::<Vec<Value>>(text).ok())
        .unwrap_or_default();
    for event in events {
        let key = event["key"].as_str().unwrap_or("?");
        let count = event["count"].as_u64().unwrap_or(1);
        let mut line = format!("{app} {device}: event {key} x{count}");
        if event["segmentation"].is_object() {
            line.push_str(&format!(" {}", event["segmentation"]));
        }
        lines.push(line);
    }
    if lines.is_empty() {
        lines.push(format!("{app} {device}: request"));
    }
    lines
}

fn short(value: &str) -> String {
    let start: String = value.chars().take(60).filter(|c| !c.is_control()).collect();
    if start.len() < value.len() {
        format!("{start}...")
    } else {
        start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_a_line_each() {
        let who = Who {
            app: "shop".into(),
            device: "anna".into(),
        };
        let item = serde_json::json!({
            "app_key": "shop", "device_id": "anna", "begin_session": 1, "rr": 4,
            "events": [{ "key": "buy", "count": 2, "segmentation": { "n": 1 } }, { "key": "leave" }],
        });
        assert_eq!(
            lines(&who, &Parameters::of_item(&item)),
            [
                "shop anna: begin_session=1",
                "shop anna: event buy x2 {\"n\":1}",
                "shop anna: event leave x1"
            ]
        );
        assert_eq!(lines(&who, &Parameters::default()), ["shop anna: request"]);
    }
}
