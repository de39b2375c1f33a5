//! Hands verdicts and used attempts to the queue, many at a time.
//!
//! One call is under way at a time; what comes meanwhile goes with the next one. A call that fails is repeated for as
//! long as it takes: a verdict that is not recorded would be a request that is delivered twice.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::spawn_local;

use super::Event;
use crate::ingest::deliver::scheduler::Attempt;
use crate::store::queue::{Queue, Token, Verdict};

const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Batch {
    settled: Vec<Attempt>,
    verdicts: Vec<(Token, Verdict)>,
    attempts: Vec<(Token, u32)>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.settled.is_empty() && self.attempts.is_empty()
    }
}

pub(super) struct Recorder {
    queue: Arc<dyn Queue>,
    sender: mpsc::UnboundedSender<Event>,
    /// Bounded by the entries of the lanes.
    next: Batch,
    busy: bool,
}

impl Recorder {
    pub(super) fn new(queue: Arc<dyn Queue>, sender: mpsc::UnboundedSender<Event>) -> Self {
        Self {
            queue,
            sender,
            next: Batch::default(),
            busy: false,
        }
    }

    pub(super) fn settle(&mut self, attempt: Attempt, token: Token, verdict: Verdict) {
        self.next.settled.push(attempt);
        self.next.verdicts.push((token, verdict));
    }

    pub(super) fn used_attempts(&mut self, token: Token, attempts: u32) {
        self.next.attempts.push((token, attempts));
    }

    pub(super) fn is_idle(&self) -> bool {
        !self.busy && self.next.is_empty()
    }

    /// The call under way has succeeded.
    pub(super) fn done(&mut self) {
        self.busy = false;
    }

    /// Starts a call if none is under way.
    pub(super) fn flush(&mut self) {
        if self.busy || self.next.is_empty() {
            return;
        }
        self.busy = true;
        let batch = std::mem::take(&mut self.next);
        let (queue, sender) = (Arc::clone(&self.queue), self.sender.clone());
        spawn_local(async move {
            record(&*queue, &batch, &sender).await;
            let _ = sender.send(Event::Recorded(batch.settled, true));
        });
    }
}

async fn record(queue: &dyn Queue, batch: &Batch, sender: &mpsc::UnboundedSender<Event>) {
    let mut pause = PAUSE_MIN;
    while !batch.verdicts.is_empty() {
        let Err(failure) = queue.settle(batch.verdicts.clone()).await else {
            break;
        };
        tracing::warn!(%failure, verdicts = batch.verdicts.len(), "verdicts not recorded, trying again");
        let _ = sender.send(Event::Recorded(Vec::new(), false));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
    // Together: a queue that records many at a time makes each of them wait.
    let attempts = batch.attempts.iter();
    let recorded = attempts.map(|(token, attempts)| queue.record_attempts(*token, *attempts));
    for recorded in join_all(recorded).await {
        if let Err(failure) = recorded {
            // They count in this process all the same; after a crash the entry gets a few more.
            tracing::warn!(%failure, "attempts not recorded");
            return;
        }
    }
}
