//! Two looks, as text. Pure.

use serde_json::Value;

use super::Look;
use super::figures::Figures;
use crate::terminal::{clean, columns};

/// Rates between two looks.
struct Rates<'a> {
    before: &'a Figures,
    now: &'a Figures,
    seconds: f64,
}

impl Rates<'_> {
    /// Per second. A process that started again counts from the beginning.
    fn per_second(&self, name: &str, label: &str) -> f64 {
        let (before, now) = (
            self.before.sum_of(name, label),
            self.now.sum_of(name, label),
        );
        let grown = if now < before { now } else { now - before };
        grown / self.seconds
    }

    fn per_minute(&self, name: &str, label: &str) -> f64 {
        self.per_second(name, label) * 60.0
    }
}

pub(super) fn page(before: &Look, now: &Look) -> String {
    let rates = Rates {
        before: &before.figures,
        now: &now.figures,
        seconds: (now.at - before.at).as_secs_f64().max(0.001),
    };
    let mut text = String::new();
    clients(&rates, &mut text);
    if let Some(lanes) = &now.lanes {
        requests(&rates, lanes, &mut text);
        for rows in [
            applications(&rates, lanes),
            caps(lanes),
            upstreams(&rates, lanes),
        ] {
            table(rows, &mut text);
        }
    }
    text
}

fn clients(rates: &Rates<'_>, text: &mut String) {
    let now = rates.now;
    let second = |name: &str| count(rates.per_second(name, ""));
    let load = match now.sum("sluice_overload_level") {
        level if level >= 2.0 => "overloaded: new connections are refused",
        level if level >= 1.0 => "overloaded: server-list queries are refused",
        _ => "not overloaded",
    };
    text.push_str(&format!(
        "clients       {}, {}/s come, {}/s go; messages {}/s in, {}/s out, {}/s refused\n",
        count(now.sum("sluice_relay_connections")),
        second("sluice_relay_connections_accepted_total"),
        second("sluice_relay_disconnects_total"),
        second("sluice_relay_publications_total"),
        second("sluice_relay_deliveries_total"),
        second("sluice_relay_publications_refused_total"),
    ));
    text.push_str(&format!(
        "process       {:.2} cores, {} MB of {} MB; {load}\n",
        rates.per_second("process_cpu_seconds_total", ""),
        count(now.sum("sluice_memory_bytes") / 1e6),
        count(now.sum("sluice_memory_limit_bytes") / 1e6),
    ));
}

fn requests(rates: &Rates<'_>, lanes: &Value, text: &mut String) {
    let minute = |name: &str| count(rates.per_minute(name, ""));
    text.push_str(&format!(
        "requests/min  {} in, {} delivered, {} set aside, {} refused\n",
        minute("sluice_ingest_accepted_total"),
        minute("sluice_ingest_delivered_total"),
        minute("sluice_ingest_parked_total"),
        minute("sluice_ingest_rejected_total"),
    ));
    let lanes = || list(lanes, "lanes");
    let all = |name: &str| lanes().fold(0.0, |sum, lane| sum + number(lane, name));
    let (waiting, parked) = (all("waiting"), all("parked"));
    let oldest = lanes().map(|lane| number(lane, "oldestAgeMs"));
    text.push_str(&format!(
        "waiting       {}, the oldest for {}; {} set aside\n",
        count(waiting),
        seconds(oldest.fold(0.0, f64::max)),
        count(parked),
    ));
}

fn applications(rates: &Rates<'_>, lanes: &Value) -> Vec<Vec<String>> {
    let heads = [
        "APPLICATION",
        "IN/MIN",
        "OUT/MIN",
        "WAITING",
        "OLDEST",
        "UNDER WAY",
        "WHY IT WAITS",
    ];
    let row = |lane: &Value| {
        let name = word(lane, "application");
        let label = format!("application=\"{name}\"");
        let minute = |metric: &str| count(rates.per_minute(metric, &label));
        let held = &lane["held"];
        let why = match (held["reason"].as_str(), held["retryInMs"].as_f64()) {
            (None, _) => "-".to_owned(),
            (Some(reason), None) => clean(reason),
            (Some(reason), Some(retry)) => format!("{}, for {}", clean(reason), seconds(retry)),
        };
        let shown = match lane["replay"] == true {
            true => format!("{name} (again)"),
            false => name.clone(),
        };
        vec![
            shown,
            minute("sluice_ingest_accepted_total"),
            minute("sluice_ingest_delivered_total"),
            count(number(lane, "waiting")),
            seconds(number(lane, "oldestAgeMs")),
            count(number(lane, "inFlight")),
            why,
        ]
    };
    rows(&heads, list(lanes, "lanes").map(row))
}

fn caps(lanes: &Value) -> Vec<Vec<String>> {
    let row = |cap: &Value| {
        vec![
            word(cap, "cap"),
            count(number(cap, "requestsPerMinute")),
            count(number(cap, "allowedPerMinute")),
            word(cap, "why"),
        ]
    };
    rows(
        &["CAP", "PER MIN", "ALLOWED HERE", "BY"],
        list(lanes, "caps").map(row),
    )
}

fn upstreams(rates: &Rates<'_>, lanes: &Value) -> Vec<Vec<String>> {
    let heads = [
        "UPSTREAM",
        "ANSWERS/S",
        "IN FLIGHT",
        "LIMIT",
        "RATE/S",
        "BREAKER",
        "SET BY",
    ];
    let row = |upstream: &Value| {
        let name = word(upstream, "name");
        let label = format!("upstream=\"{name}\"");
        let rate = upstream["limitRate"].as_f64();
        let breaker = match upstream["healthy"] == false {
            true => "unhealthy".to_owned(),
            false => word(upstream, "breaker"),
        };
        vec![
            name,
            count(rates.per_second("sluice_ingest_upstream_attempts_total", &label)),
            count(number(upstream, "inFlight")),
            count(number(upstream, "limitInFlight")),
            rate.map_or_else(|| "-".to_owned(), count),
            breaker,
            word(upstream, "limitsSetBy"),
        ]
    };
    rows(&heads, list(lanes, "upstreams").map(row))
}

fn rows(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<Vec<String>> {
    let heads = heads.iter().map(|head| (*head).to_owned()).collect();
    std::iter::once(heads).chain(rows).collect()
}

/// One without rows says nothing.
fn table(rows: Vec<Vec<String>>, text: &mut String) {
    if rows.len() < 2 {
        return;
    }
    let mut shown = vec![b'\n'];
    // Memory takes everything.
    let _ = columns(&mut shown, &rows);
    text.push_str(&String::from_utf8_lossy(&shown));
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value[name].as_array().into_iter().flatten()
}

fn number(value: &Value, name: &str) -> f64 {
    value[name].as_f64().unwrap_or(0.0)
}

fn word(value: &Value, name: &str) -> String {
    value[name].as_str().map_or_else(|| "-".to_owned(), clean)
}

/// In groups of three digits; one decimal where it says something.
fn count(value: f64) -> String {
    if value > 0.0 && value < 9.95 && value.fract() != 0.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

fn seconds(ms: f64) -> String {
    match ms {
        ms if ms <= 0.0 => "-".to_owned(),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms if ms < 120_000.0 => format!("{:.1} s", ms / 1e3),
        ms => format!("{:.0} min", ms / 60e3),
    }
}
