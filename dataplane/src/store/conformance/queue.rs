//! The suite that every implementation of [`Queue`] must pass.
//!
//! An implementation gives a [`Harness`]; every case gets a fresh, empty queue from it. Cases make their own ids, with
//! times around [`NOW_MS`], and say themselves what time it is where that matters.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::store::queue::{
    ClaimLimits, Claimed, EntryId, Filter, Found, Horizon, Lane, LaneStats, NewEntry, Outcome,
    Queue, State, Token, Verdict,
};

mod claiming;
mod finding;
mod settling;
mod trimming;

/// What a case may ask of the implementation under test.
#[async_trait]
pub(crate) trait Harness: Send + Sync {
    /// A new, empty queue.
    async fn queue(&self) -> Arc<dyn Queue>;

    /// A queue's entries as another process finds them after the queue's own was killed. The old one is not used
    /// any more.
    async fn killed(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue>;
}

/// By which a harness knows a queue that is handed back to it.
pub(crate) fn address<T: ?Sized>(queue: &Arc<T>) -> usize {
    Arc::as_ptr(queue).cast::<()>() as usize
}

/// Runs all cases.
pub(crate) async fn run(harness: &dyn Harness) {
    claiming::run(harness).await;
    settling::run(harness).await;
    finding::run(harness).await;
    trimming::run(harness).await;
}

/// When the first entries of all cases were accepted.
const NOW_MS: u64 = 1_800_000_000_000;
const BUDGET_BYTES: u64 = 1 << 30;
const ALL: ClaimLimits = ClaimLimits {
    entries: usize::MAX,
    bytes: usize::MAX,
};

fn lane(application: &str) -> Lane {
    Lane {
        partition: 0,
        application: application.into(),
        replay: false,
    }
}

fn id(ms: u64, serial: u64) -> EntryId {
    EntryId(u128::from(ms) << 80 | u128::from(serial))
}

/// The entry with a serial number: accepted a millisecond after the one before.
fn entry(application: &str, serial: u64) -> NewEntry {
    NewEntry {
        id: id(NOW_MS + serial, serial),
        lane: lane(application),
        key: format!("key-{}", serial % 3).into(),
        barrier: Bytes::new(),
        cost: 1,
        replay_of: None,
        request: format!("request {serial}").into(),
    }
}

async fn append_many(queue: &dyn Queue, application: &str, serials: std::ops::Range<u64>) {
    for serial in serials {
        queue.append(entry(application, serial)).await.unwrap();
    }
}

/// Everything there is to claim in a lane; a call may give less than there is.
async fn claim_all(queue: &dyn Queue, application: &str) -> Vec<Claimed> {
    claim_lane(queue, &lane(application)).await
}

async fn claim_lane(queue: &dyn Queue, lane: &Lane) -> Vec<Claimed> {
    let mut all = Vec::new();
    loop {
        let some = queue.claim(lane, ALL).await.unwrap();
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

fn requests(claimed: &[Claimed]) -> Vec<String> {
    let text = |claimed: &Claimed| String::from_utf8(claimed.request.to_vec()).unwrap();
    claimed.iter().map(text).collect()
}

fn expected(serials: impl IntoIterator<Item = u64>) -> Vec<String> {
    serials
        .into_iter()
        .map(|serial| format!("request {serial}"))
        .collect()
}

fn verdict(outcome: Outcome) -> Verdict {
    Verdict {
        outcome,
        reason: "Because".into(),
        http_status: 200,
        attempts: 1,
        upstream: "main".into(),
        at_ms: NOW_MS + 1_000,
    }
}

async fn settle(queue: &dyn Queue, tokens: impl IntoIterator<Item = Token>, outcome: Outcome) {
    let verdicts = tokens.into_iter().map(|token| (token, verdict(outcome)));
    queue.settle(verdicts.collect()).await.unwrap();
}

fn lane_stats(queue: &dyn Queue, application: &str) -> Option<LaneStats> {
    let lanes = queue.lanes();
    lanes
        .into_iter()
        .find(|stats| stats.lane == lane(application))
}

/// All pages, a few at a time.
async fn find_all(queue: &dyn Queue, filter: &Filter, limit: usize) -> Vec<Found> {
    let mut all: Vec<Found> = Vec::new();
    let mut after = None;
    loop {
        let page = queue.find(filter, after, limit).await.unwrap();
        assert!(page.found.len() <= limit, "a page is no longer than asked");
        all.extend(page.found);
        let Some(next) = page.next else {
            return all;
        };
        assert!(after < Some(next), "pages go on");
        after = Some(next);
    }
}

async fn found_serials(queue: &dyn Queue, filter: &Filter) -> Vec<u64> {
    let found = find_all(queue, filter, 3).await;
    found.iter().map(|found| found.id.0 as u64).collect()
}

fn horizon(time: Duration, budget_bytes: u64) -> Horizon {
    Horizon {
        default: time,
        by_application: BTreeMap::new(),
        budget_bytes,
    }
}

fn in_state(state: State) -> Filter {
    Filter {
        state: Some(state),
        ..Filter::default()
    }
}

async fn total_entries(queue: &dyn Queue) -> Vec<u64> {
    found_serials(queue, &Filter::default()).await
}
