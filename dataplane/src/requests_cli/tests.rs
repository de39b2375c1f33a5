use std::ffi::OsString;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use clap::Parser;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::*;
use crate::admin::{Admin, AdminState, Readiness};
use crate::args::{Args, Command};
use crate::config::tests::sample;
use crate::drain::Drain;
use crate::ingest::deliver::tests::memory::MemoryQueue;
use crate::ingest::metrics::Metrics;
use crate::ingest::requests::Requests;
use crate::store::queue::{EntryId, Lane, NewEntry, Queue};
use crate::telemetry::LogControl;

async fn gateway(queue: &Arc<MemoryQueue>) -> SocketAddr {
    let mut registry = Registry::default();
    let last = AtomicU64::new(1 << 20);
    let requests = Requests {
        queue: Arc::clone(queue) as _,
        deliver: None,
        ids: Arc::new(move || id(last.fetch_add(1, Ordering::Relaxed))),
        metrics: Metrics::register(&mut registry),
        config: watch::channel(Arc::new(sample())).1,
    };
    let (_config, receiver) = watch::channel(Arc::new(sample()));
    let state = AdminState {
        readiness: Readiness::default(),
        drain: Drain::new(),
        registry: Arc::new(registry),
        config: receiver,
        log: LogControl::detached("info"),
        routes: vec![Arc::new(requests)],
    };
    let admin = Admin::bind("127.0.0.1:0".parse().unwrap(), state)
        .await
        .unwrap();
    let address = admin.local_addr().unwrap();
    tokio::spawn(admin.serve());
    address
}

fn id(number: u64) -> EntryId {
    EntryId((u128::from(unix_ms() - 1_000_000) << 80) | u128::from(number))
}

async fn filled(count: u64) -> (Arc<MemoryQueue>, Vec<EntryId>) {
    let queue = MemoryQueue::new();
    let first = id(0);
    let mut ids = Vec::new();
    for number in 0..count {
        let id = EntryId(first.0 + u128::from(number));
        let entry = NewEntry {
            id,
            lane: Lane {
                partition: 0,
                application: "shop".into(),
                replay: false,
            },
            key: Bytes::from(format!("device\u{1b}{number}")),
            barrier: Bytes::new(),
            cost: 1,
            replay_of: None,
            request: Bytes::from_static(b"\xff"),
        };
        queue.append(entry).await.unwrap();
        ids.push(id);
    }
    (queue, ids)
}

/// What a command prints, and whether all was done; or the problem.
async fn call(line: &str, admin: SocketAddr) -> Result<(String, bool), String> {
    let words = line.split_whitespace().map(OsString::from);
    let words = ["sluice".into(), "requests".into()]
        .into_iter()
        .chain(words);
    let args = Args::try_parse_from(words.chain(["--admin".into(), admin.to_string().into()]));
    let Command::Requests(args) = args.map_err(|error| error.to_string())?.command else {
        panic!("another command");
    };
    let mut output = Vec::new();
    match execute(&args.command, &mut output).await {
        Ok(done) => Ok((String::from_utf8(output).unwrap(), done)),
        Err(Failure::Problem(problem)) => Err(problem),
        Err(Failure::Output(failure)) => panic!("{failure}"),
    }
}

#[tokio::test]
async fn requests_are_listed() {
    let (queue, ids) = filled(1_200).await;
    let admin = gateway(&queue).await;
    let (table, _) = call("list --limit 2", admin).await.unwrap();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("ID  "));
    assert!(lines[1].starts_with(&ids[0].to_string()));
    assert!(lines[1].contains("device\u{fffd}0") && lines[1].contains("waiting"));
    assert_eq!(lines[3], "there are more; --limit shows them");
    let (json, _) = call("list --limit 1100 --output json --state waiting", admin)
        .await
        .unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["requests"].as_array().unwrap().len(), 1_100);
    assert_eq!(json["next"], ids[1_099].to_string());
    let (json, _) = call("list --application nobody --output json", admin)
        .await
        .unwrap();
    assert_eq!(
        json.replace(char::is_whitespace, ""),
        r#"{"next":null,"requests":[]}"#
    );
}

#[tokio::test]
async fn one_is_shown_and_discarded() {
    let (queue, ids) = filled(2).await;
    let admin = gateway(&queue).await;
    let (shown, _) = call(&format!("show {}", ids[0]), admin).await.unwrap();
    assert!(shown.contains("application  shop") && shown.contains("unreadable"));
    let (output, done) = call(&format!("discard {}", ids[0]), admin).await.unwrap();
    assert_eq!((output, done), (format!("{}  discarded\n", ids[0]), true));
    let (output, done) = call(&format!("discard {} {}", ids[0], ids[1]), admin)
        .await
        .unwrap();
    assert!(output.contains("failed") && !done);
    assert_eq!(queue.waiting(), 0);
}

#[tokio::test]
async fn all_that_match_are_discarded_and_replayed() {
    let (queue, _) = filled(1_100).await;
    let admin = gateway(&queue).await;
    let (output, done) = call("discard --state waiting --application shop", admin)
        .await
        .unwrap();
    assert_eq!(
        (output.as_str(), done),
        ("discarded: 1100, skipped: 0\n", true)
    );
    let (output, _) = call("replay --state discarded --output json", admin)
        .await
        .unwrap();
    let counts: Value = serde_json::from_str(&output).unwrap();
    assert_eq!(
        counts,
        json!({"matched": 1_100, "replayed": 1_100, "skipped": 0})
    );
    assert_eq!(queue.waiting(), 1_100);
    queue.full.store(true, Ordering::Relaxed);
    let problem = call("replay --state discarded", admin).await.unwrap_err();
    assert_eq!(problem, "queue is full");
}

#[tokio::test]
async fn problems_are_told() {
    let (queue, _) = filled(0).await;
    let admin = gateway(&queue).await;
    let missing = call(&format!("show {}", EntryId(1)), admin)
        .await
        .unwrap_err();
    assert!(missing.contains("there is no request"), "{missing}");
    let nobody = call("list", "127.0.0.1:9".parse().unwrap())
        .await
        .unwrap_err();
    assert!(
        nobody.starts_with("no answer from the admin port 127.0.0.1:9: "),
        "{nobody}"
    );
    for line in [
        "discard",
        "discard --application a",
        "show x",
        "list --from yesterday",
        "list --limit 0",
    ] {
        assert!(call(line, admin).await.is_err(), "{line}");
    }
    let both = format!("replay {} --state parked", EntryId(1));
    assert!(call(&both, admin).await.is_err());
}
