//! The limiter against simulated upstreams, in simulated time: every file of `tests/scenarios` with several seeds.
//!
//! `SCENARIO=part-of-name` runs some of them, `SEEDS=n` with more seeds; `TRACE=1` prints the limits second by second.
//! The table is printed with `--nocapture`.

#![allow(clippy::print_stdout, reason = "the table is what the run is for")]

mod measure;
mod scenario;
mod simulate;
mod upstream;

use std::path::{Path, PathBuf};

use measure::Figures;
use scenario::Scenario;

/// The seven models, the twelve of an older controller's suite, and what real days bring.
const SCENARIOS_MIN: usize = 30;

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be read").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    files
}

fn line(name: &str, from_s: f64, figures: &Figures) -> String {
    format!(
        "{name:28} {from_s:5.0}s used {:5.1}% (5s {:5.1}%) rejected {:5.2}% p50 {:5.2} p99 {:5.2} queue {:5.2} \
         flight {:6.1}/{:4.0} rate {:6.1} max/s {:5.0} held {:.2} fair {:.2} done {:5.1}s",
        figures.used * 100.0,
        figures.used_always * 100.0,
        figures.rejected * 100.0,
        figures.p50,
        figures.p99,
        figures.queue,
        figures.in_flight_mean,
        figures.in_flight_max,
        figures.rate_mean,
        figures.sent_per_second_max,
        figures.proxied_held,
        figures.fair,
        figures.done_by_s,
    )
}

fn check(path: &Path) -> Vec<String> {
    let name = path
        .file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let text = std::fs::read_to_string(path).expect("it can be read");
    let scenario: Scenario = serde_saphyr::from_str(&text).unwrap_or_else(|error| {
        panic!("{name}: {error}");
    });
    let mut misses = Vec::new();
    let seeds = std::env::var("SEEDS")
        .ok()
        .and_then(|seeds| seeds.parse().ok());
    for seed in 1..=seeds.unwrap_or(scenario.seeds) {
        let record = simulate::run(&scenario, seed);
        for expect in &scenario.expect {
            let figures = record.figures(expect);
            println!("{}", line(&name, expect.from_s, &figures));
            for miss in figures.misses(expect) {
                misses.push(format!(
                    "{name}, seed {seed}, from {} s: {miss}",
                    expect.from_s
                ));
            }
        }
    }
    misses
}

#[test]
fn every_scenario_stays_within_its_bounds() {
    let wanted = std::env::var("SCENARIO").unwrap_or_default();
    let files = files();
    assert!(files.len() >= SCENARIOS_MIN, "{} scenarios", files.len());
    let misses: Vec<String> = files
        .iter()
        .filter(|path| path.to_string_lossy().contains(&wanted))
        .flat_map(|path| check(path))
        .collect();
    assert!(misses.is_empty(), "\n{}", misses.join("\n"));
}
