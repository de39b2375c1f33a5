//! The numbered events that `e2e/sdk/countly.mjs` sends, read back from requests as they came. Pure.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::parameters::Parameters;
use super::record::Copy;

/// By device, the numbers of the events of each of its requests, in the order of arrival.
pub fn batches(copies: &[Copy]) -> Result<BTreeMap<String, Vec<Vec<u64>>>> {
    let mut batches: BTreeMap<String, Vec<Vec<u64>>> = BTreeMap::new();
    for copy in copies {
        let (path, query) = copy.target.split_once('?').unwrap_or((&copy.target, ""));
        let parameters = Parameters::of(
            query,
            copy.header("content-type").unwrap_or_default(),
            &copy.body(),
        )?;
        let requests = match (path, parameters.get("requests")) {
            ("/i/bulk", Some(list)) => serde_json::from_str::<Vec<Value>>(list)?
                .iter()
                .map(Parameters::of_item)
                .collect(),
            _ => vec![parameters],
        };
        for request in requests {
            let device = request.get("device_id").context("no device_id")?;
            let batch = batch(request.get("events").unwrap_or("[]"))?;
            if !batch.is_empty() {
                batches.entry(device.to_owned()).or_default().push(batch);
            }
        }
    }
    Ok(batches)
}

fn batch(events: &str) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for event in serde_json::from_str::<Vec<Value>>(events)? {
        if event["key"] != "step" {
            continue;
        }
        let segments = &event["segmentation"];
        ensure!(segments["text"] == "a&b=c+d %41 ü", "changed: {event}");
        numbers.push(segments["n"].as_u64().context("no number")?);
    }
    Ok(numbers)
}

/// By device, the numbers of its events in the order of arrival.
pub fn numbers(copies: &[Copy]) -> Result<BTreeMap<String, Vec<u64>>> {
    let of_device = |(device, batches): (String, Vec<Vec<u64>>)| (device, batches.concat());
    Ok(batches(copies)?.into_iter().map(of_device).collect())
}

/// The numbers in the order of their first arrival, and how many requests came again: an SDK sends anew what was not
/// answered, and a data plane what another one may not have delivered.
#[must_use]
pub fn once(batches: &[Vec<u64>]) -> (Vec<u64>, usize) {
    let mut seen = BTreeSet::new();
    let fresh: Vec<u64> = batches
        .iter()
        .filter(|batch| seen.insert(*batch))
        .flatten()
        .copied()
        .collect();
    (fresh, batches.len() - seen.len())
}
