//! What operators have asked the API server to change, as its audit log tells.

use std::io::{BufRead, BufReader};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;

/// With these verbs something is asked to become different.
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];
/// Leases are what operators contend for; events are told by anybody.
const NOT_COUNTED: [&str; 2] = ["leases", "events"];

/// A request to change something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// When it came and when it was answered: texts that compare like times.
    pub from: String,
    pub until: String,
    /// As in `patch services`, or `patch gateways/status`.
    pub what: String,
    pub namespace: String,
    pub name: String,
    /// How it was answered.
    pub code: u64,
}

/// What the operator that was started with this name was asked to change in a namespace, in the order of the answers.
pub fn writes(cluster: &Cluster, namespace: &str, operator: &str) -> Result<Vec<Write>> {
    let agent = format!("({operator}_");
    let mut writes = all_writes(cluster, |line| {
        line.contains(namespace) && line.contains(&agent)
    })?;
    writes.retain(|write| write.namespace == namespace);
    Ok(writes)
}

/// What anybody was asked to change, as far as it stands in lines of the log that are wanted.
pub fn all_writes(cluster: &Cluster, is_wanted: impl Fn(&str) -> bool) -> Result<Vec<Write>> {
    let path = cluster.audit_log();
    let folder = path.parent().context("a log is in a folder")?;
    let mut writes = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Those of every API server, and those that became too long.
        if !(name.starts_with("audit") && name.ends_with(".log")) {
            continue;
        }
        let file = std::fs::File::open(entry.path())?;
        for line in BufReader::new(file).lines() {
            let line = line?;
            // Most lines are of others and not worth reading; the last one may still be being written.
            if is_wanted(&line)
                && let Ok(request) = serde_json::from_str(&line)
            {
                writes.extend(write(&request));
            }
        }
    }
    writes.sort_by(|a, b| a.until.cmp(&b.until));
    Ok(writes)
}

fn write(request: &Value) -> Option<Write> {
    let text = |pointer: &str| request.pointer(pointer).and_then(Value::as_str);
    let own = |pointer: &str| text(pointer).unwrap_or_default().to_owned();
    let (verb, resource) = (text("/verb")?, text("/objectRef/resource")?);
    if !WRITES.contains(&verb) || NOT_COUNTED.contains(&resource) {
        return None;
    }
    let part = text("/objectRef/subresource").map_or_else(String::new, |part| format!("/{part}"));
    Some(Write {
        from: text("/requestReceivedTimestamp")?.to_owned(),
        until: text("/stageTimestamp")?.to_owned(),
        what: format!("{verb} {resource}{part}"),
        namespace: own("/objectRef/namespace"),
        name: own("/objectRef/name"),
        code: request["responseStatus"]["code"]
            .as_u64()
            .unwrap_or_default(),
    })
}

/// Fails unless everything that the first was to change was over before anything came from the next, and so on.
pub fn one_after_the_other(writers: &[(&str, Vec<Write>)]) -> Result<()> {
    for (name, writes) in writers {
        ensure!(!writes.is_empty(), "{name} has written nothing");
    }
    for pair in writers.windows(2) {
        let [(former, before), (next, after)] = pair else {
            continue;
        };
        let last = before.iter().max_by(|a, b| a.until.cmp(&b.until));
        let first = after.iter().min_by(|a, b| a.from.cmp(&b.from));
        let (last, first) = (last.context("a write")?, first.context("a write")?);
        ensure!(
            last.until < first.from,
            "{former} wrote after {next} had begun: {last:?}, {first:?}"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn writes(times: &[(&str, &str)]) -> Vec<Write> {
        let write = |(from, until): &(&str, &str)| Write {
            from: (*from).to_owned(),
            until: (*until).to_owned(),
            what: String::new(),
            namespace: String::new(),
            name: String::new(),
            code: 200,
        };
        times.iter().map(write).collect()
    }

    #[test]
    fn writers_that_overlap_are_found() {
        let first = writes(&[("1", "2"), ("3", "4")]);
        let good = [("a", first.clone()), ("b", writes(&[("5", "6")]))];
        assert!(one_after_the_other(&good).is_ok());
        for bad in [&[("3", "6")][..], &[("5", "6"), ("0", "1")], &[]] {
            let bad = [("a", first.clone()), ("b", writes(bad))];
            assert!(one_after_the_other(&bad).is_err());
        }
    }

    #[test]
    fn leases_events_and_reads_are_no_writes() {
        let request = |verb: &str, resource: &str| {
            json!({
                "verb": verb, "objectRef": {"resource": resource, "namespace": "ns", "name": "n"},
                "requestReceivedTimestamp": "1", "stageTimestamp": "2", "responseStatus": {"code": 200},
            })
        };
        let found = write(&request("patch", "services")).unwrap();
        assert_eq!((found.what.as_str(), found.code), ("patch services", 200));
        for (verb, resource) in [
            ("get", "services"),
            ("update", "leases"),
            ("create", "events"),
        ] {
            assert_eq!(write(&request(verb, resource)), None);
        }
    }
}
