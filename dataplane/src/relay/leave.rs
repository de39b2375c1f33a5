//! Sends clients elsewhere: as many as the manager wants, and all of them when the process ends.
//!
//! Workers name their idle clients, the longest idle of all are chosen, and each worker closes its part of them, evenly over each second,
//! if nothing is under way for them just then. So no command is cut, and never more are closed than were asked for. Only who still is
//! not idle when the process has to end is closed all the same.

use std::sync::Arc;
use std::time::{Duration, Instant as StdInstant};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::Shared;
use super::codes;
use super::mailbox::Item;
use super::worker::{LeavingClient, Order};
use crate::drain::{Phase, pace};

/// Clients asked for and closed in one round.
const ROUND: Duration = Duration::from_secs(1);
const ROUND_MAX: usize = 2_000;
const STEP: Duration = Duration::from_millis(50);
/// For workers to name their idle clients, or to close them; one that has no time is left out.
const PATIENCE: Duration = Duration::from_millis(500);
/// The part of the drain time in which closing starts; the rest is for close handshakes under way.
const CLOSING_PERCENT: u32 = 90;
/// The part of it in which a manager says how many: it paces all data planes that end together.
const ORDERED_PERCENT: u32 = 50;
/// Fewer per second trouble nobody, and a small data plane need not take long to end.
const BY_ITSELF_PER_SECOND_MIN: usize = 10;

/// What the manager wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wanted {
    /// Of [`Shared::shed_total`].
    pub total: u64,
    /// `None`: until something else is said.
    pub until: Option<StdInstant>,
}

/// What a round has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    clients: usize,
    /// Also those for whom something is under way.
    whoever: bool,
    within: Duration,
}

/// What is due now, and how long a round takes. `missing`: clients that the manager wants gone still; `attended`: it says what to do
/// at present.
fn due(phase: Phase, connections: usize, missing: usize, attended: bool, now: Instant) -> Due {
    let ordered = Due {
        clients: missing.min(connections).min(ROUND_MAX),
        whoever: false,
        within: ROUND,
    };
    let (since, until) = match phase {
        Phase::Serving => return ordered,
        Phase::Draining { since, until } => (since, until),
        Phase::Closing => (now, now),
    };
    let time = until.saturating_duration_since(since);
    // A round that began in the manager's part also ends in it: a short drain has no time to wait for orders.
    if attended && now + ROUND <= since + time * ORDERED_PERCENT / 100 {
        return ordered;
    }
    let left = (since + time * CLOSING_PERCENT / 100).saturating_duration_since(now);
    if left <= ROUND {
        return Due {
            clients: connections,
            whoever: true,
            within: left,
        };
    }
    let part = (connections as f64 * ROUND.as_secs_f64() / left.as_secs_f64()).ceil() as usize;
    let part = part.max(BY_ITSELF_PER_SECOND_MIN).max(ordered.clients);
    Due {
        clients: part.min(connections),
        whoever: true,
        within: ROUND,
    }
}

/// Runs as long as the process.
pub(super) async fn keep(relay: Arc<Shared>, mut wanted: watch::Receiver<Wanted>) {
    let mut phases = relay.drain().phases();
    // Without a manager nobody wants anything, ever.
    let mut has_manager = true;
    loop {
        let began = Instant::now();
        let phase = *phases.borrow_and_update();
        let round = now_due(&relay, &wanted, phase, began);
        if round.clients > 0 {
            let clients = longest_idle(&relay, round).await;
            close(&relay, clients, round, began).await;
            // Nobody idle, or closed sooner: the next round is not due.
            tokio::time::sleep_until(began + round.within.max(STEP)).await;
        } else if phase == Phase::Serving {
            tokio::select! {
                changed = wanted.changed(), if has_manager => has_manager = changed.is_ok(),
                _ = phases.changed() => {}
            }
        } else {
            sleep(STEP).await;
        }
    }
}

fn now_due(relay: &Shared, wanted: &watch::Receiver<Wanted>, phase: Phase, now: Instant) -> Due {
    let wanted = *wanted.borrow();
    let holds = wanted.until.map(|until| StdInstant::now() < until);
    let missing = match holds {
        Some(false) => 0,
        Some(true) | None => wanted.total.saturating_sub(relay.shed_total()),
    };
    let missing = usize::try_from(missing).unwrap_or(usize::MAX);
    due(
        phase,
        relay.connections(),
        missing,
        holds == Some(true),
        now,
    )
}

async fn longest_idle(relay: &Shared, round: Due) -> Vec<LeavingClient> {
    let workers = relay.router().mailboxes().len();
    let (answer, mut answers) = mpsc::channel(workers);
    relay.router().order_all(&|| Order::Name {
        count: round.clients,
        whoever: round.whoever,
        answer: answer.clone(),
    });
    drop(answer);
    let mut clients = Vec::new();
    let all = async {
        while let Some(named) = answers.recv().await {
            clients.extend(named);
        }
    };
    // A worker that has no time has no clients to name.
    let _ = timeout(PATIENCE, all).await;
    clients.sort_by_key(|client| std::cmp::Reverse(client.idle_ms));
    clients.truncate(round.clients);
    clients
}

/// Over what is left of the round that began then.
async fn close(relay: &Shared, clients: Vec<LeavingClient>, round: Due, began: Instant) {
    let due = pace(clients.len(), round.within);
    let disconnect = match relay.drain().is_serving() {
        true => codes::DISCONNECT_FORCE_RECONNECT,
        false => codes::DISCONNECT_SHUTDOWN,
    };
    let (done, mut all_done) = mpsc::channel(1);
    let mut closed = 0;
    while closed < clients.len() {
        let until_now = due(began.elapsed());
        for (worker, mailbox) in relay.router().mailboxes().iter().enumerate() {
            let part: Vec<LeavingClient> = clients[closed..until_now]
                .iter()
                .filter(|client| client.worker == worker)
                .copied()
                .collect();
            if !part.is_empty() {
                mailbox.push(Item::Order(Order::Shed {
                    clients: part,
                    whoever: round.whoever,
                    disconnect: disconnect.clone(),
                    done: done.clone(),
                }));
            }
        }
        closed = until_now;
        if closed < clients.len() {
            sleep(STEP).await;
        }
    }
    drop(done);
    // What is under way must be counted before more is asked for.
    let _ = timeout(PATIENCE, all_done.recv()).await;
}

#[cfg(test)]
mod tests;
