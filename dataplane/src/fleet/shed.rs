//! Closes the longest idle clients of all workers, evenly over each second, until as many are gone as the manager wants.
//!
//! Workers name their idle clients, the longest idle of all are chosen, and each worker closes its part of them, if nothing is under
//! way for them just then. So no command is cut, and never more are closed than were asked for.

use std::sync::Arc;
use std::time::Instant as StdInstant;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::limits::{SHED_PATIENCE, SHED_ROUND, SHED_ROUND_MAX, SHED_STEP};
use crate::drain::{Drain, pace};
use crate::relay::Shared;
use crate::relay::mailbox::Item;
use crate::relay::worker::{IdleClient, Order};

/// What the manager wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wanted {
    /// Of [`Shared::shed_total`].
    pub(super) total: u64,
    /// `None`: until something else is said.
    pub(super) until: Option<StdInstant>,
}

pub(super) struct Shedder {
    pub(super) relay: Arc<Shared>,
    /// While this process ends, that closes its clients.
    pub(super) drain: Drain,
    pub(super) wanted: watch::Receiver<Wanted>,
}

impl Shedder {
    /// Ends with the one that says what is wanted.
    pub(super) async fn run(mut self) {
        loop {
            let missing = self.missing();
            if missing == 0 {
                if self.wanted.changed().await.is_err() {
                    return;
                }
                continue;
            }
            let began = Instant::now();
            let clients = self.longest_idle(missing).await;
            self.close(clients, began).await;
            // Nobody idle, or closed sooner than the second: the next round is not due.
            tokio::time::sleep_until(began + SHED_ROUND).await;
        }
    }

    fn missing(&self) -> usize {
        let wanted = *self.wanted.borrow();
        let is_over = wanted.until.is_some_and(|until| until <= StdInstant::now());
        if is_over || !self.drain.is_serving() {
            return 0;
        }
        let missing = wanted.total.saturating_sub(self.relay.shed_total());
        usize::try_from(missing)
            .unwrap_or(usize::MAX)
            .min(SHED_ROUND_MAX)
    }

    async fn longest_idle(&self, count: usize) -> Vec<IdleClient> {
        let workers = self.relay.router().mailboxes().len();
        let (answer, mut answers) = mpsc::channel(workers);
        self.relay.router().order_all(&|| Order::Idle {
            count,
            answer: answer.clone(),
        });
        drop(answer);
        let mut clients = Vec::new();
        let all = async {
            while let Some(idle) = answers.recv().await {
                clients.extend(idle);
            }
        };
        // A worker that has no time has no idle clients to name.
        let _ = timeout(SHED_PATIENCE, all).await;
        clients.sort_by_key(|client| std::cmp::Reverse(client.idle_ms));
        clients.truncate(count);
        clients
    }

    /// Over what is left of the round that began then.
    async fn close(&self, clients: Vec<IdleClient>, began: Instant) {
        let due = pace(clients.len(), SHED_ROUND);
        let (done, mut all_done) = mpsc::channel(1);
        let mut closed = 0;
        while closed < clients.len() && self.missing() > 0 {
            let until_now = due(began.elapsed());
            for (worker, mailbox) in self.relay.router().mailboxes().iter().enumerate() {
                let part: Vec<IdleClient> = clients[closed..until_now]
                    .iter()
                    .filter(|client| client.worker == worker)
                    .copied()
                    .collect();
                if !part.is_empty() {
                    let done = done.clone();
                    mailbox.push(Item::Order(Order::Shed {
                        clients: part,
                        done,
                    }));
                }
            }
            closed = until_now;
            sleep(SHED_STEP).await;
        }
        drop(done);
        // What is under way must be counted before more is asked for.
        while all_done.recv().await.is_some() {}
    }
}
