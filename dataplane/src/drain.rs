//! Going away in good order: Serving -> Draining(until) -> Closing.
//!
//! [`Drain`] starts it and waits for its end; each part that has clients to say goodbye to holds a [`Watcher`] until
//! it is done. A drain never goes back to serving, and its deadline only ever comes nearer. This module closes
//! nothing itself.

use std::future::Future;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::limits::CLOSING_GRACE;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Serving,
    /// No new clients; those that are here are closed between `since` and `until`.
    Draining {
        since: Instant,
        until: Instant,
    },
    /// The deadline passed: drop what is left.
    Closing,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Every watcher was dropped in time.
    Finished,
    /// This many watchers were still there at the deadline.
    DeadlinePassed { remaining: usize },
}

/// The trigger side. Clones are the same drain.
#[derive(Debug, Clone)]
pub struct Drain {
    phase: watch::Sender<Phase>,
    /// Its receivers are the watchers that are not done yet; no value is ever sent.
    watchers: watch::Sender<()>,
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}

impl Drain {
    pub fn new() -> Self {
        Self {
            phase: watch::Sender::new(Phase::Serving),
            watchers: watch::Sender::new(()),
        }
    }

    /// The drain is not finished before the watcher is dropped.
    pub fn subscribe(&self) -> Watcher {
        Watcher {
            phase: self.phase.subscribe(),
            _alive: self.watchers.subscribe(),
        }
    }

    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// For who looks on: the drain does not wait for it.
    pub fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    pub fn is_serving(&self) -> bool {
        self.phase() == Phase::Serving
    }

    /// Starts the drain. One that already goes on gets the earlier of the two deadlines.
    pub fn start(&self, timeout: Duration) {
        let now = Instant::now();
        self.phase.send_if_modified(|phase| match *phase {
            Phase::Serving => {
                *phase = Phase::Draining {
                    since: now,
                    until: now + timeout,
                };
                true
            }
            Phase::Draining { since, until } if now + timeout < until => {
                *phase = Phase::Draining {
                    since,
                    until: now + timeout,
                };
                true
            }
            Phase::Draining { .. } | Phase::Closing => false,
        });
    }

    /// Waits for a drain to start and to end: all watchers dropped, or the deadline and a short grace after it.
    pub async fn complete(&self) -> Outcome {
        let mut phase = self.phase.subscribe();
        loop {
            // `changed` cannot fail: the sender is `self`.
            let current = *phase.borrow_and_update();
            match current {
                Phase::Serving => drop(phase.changed().await),
                Phase::Draining { until, .. } => tokio::select! {
                    biased;
                    () = self.watchers.closed() => return Outcome::Finished,
                    _ = phase.changed() => {}
                    () = tokio::time::sleep_until(until) => drop(self.phase.send_replace(Phase::Closing)),
                },
                Phase::Closing => {
                    let remaining = self.watchers.receiver_count();
                    // What is left is dropped whether it answers or not.
                    let _ = tokio::time::timeout(CLOSING_GRACE, self.watchers.closed()).await;
                    return if remaining == 0 {
                        Outcome::Finished
                    } else {
                        Outcome::DeadlinePassed { remaining }
                    };
                }
            }
        }
    }

    /// Starts the drain on SIGTERM or SIGINT; the future ends with the second signal, which means: end now.
    ///
    /// Signals are caught from this call on, polled or not. `timeout` is asked when the first signal comes.
    pub fn signals<F>(&self, timeout: F) -> io::Result<impl Future<Output = ()> + Send + use<F>>
    where
        F: Fn() -> Duration + Send,
    {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let drain = self.clone();
        Ok(async move {
            let name = either(&mut terminate, &mut interrupt).await;
            let timeout = timeout();
            let timeout_s = timeout.as_secs_f64();
            info!(
                signal = name,
                timeout_s, "draining; a second signal ends at once"
            );
            drain.start(timeout);
            let name = either(&mut terminate, &mut interrupt).await;
            warn!(
                signal = name,
                "second signal: ending without finishing the drain"
            );
        })
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

/// The side of those who have something to finish. Dropping it says: done.
#[derive(Debug, Clone)]
pub struct Watcher {
    phase: watch::Receiver<Phase>,
    _alive: watch::Receiver<()>,
}

impl Watcher {
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub fn is_serving(&self) -> bool {
        self.phase() == Phase::Serving
    }

    /// Whether the phase may be another than when this watcher was made. One load, so that many threads may ask often.
    pub fn may_have_changed(&self) -> bool {
        !matches!(self.phase.has_changed(), Ok(false))
    }

    /// Waits until the phase is not the given one, and returns it. A drain whose trigger is gone is closing.
    pub async fn after(&mut self, seen: Phase) -> Phase {
        match self.phase.wait_for(|phase| *phase != seen).await {
            Ok(phase) => *phase,
            Err(_) => Phase::Closing,
        }
    }

    /// Waits for the start of the drain; returns when it started and its deadline, the same instant when the
    /// deadline has passed already.
    pub async fn draining(&mut self) -> (Instant, Instant) {
        match self.after(Phase::Serving).await {
            Phase::Draining { since, until } => (since, until),
            Phase::Serving | Phase::Closing => {
                let now = Instant::now();
                (now, now)
            }
        }
    }

    /// Waits until everything left has to be dropped.
    pub async fn closing(&mut self) {
        // An error means that the trigger is gone, which is the end as well.
        let _ = self.phase.wait_for(|phase| *phase == Phase::Closing).await;
    }
}

/// The part of the time in which something starts; the rest is for what is under way.
const PACED_PERCENT: u128 = 90;

/// How many of `total` should have been done when `elapsed` of `over` has gone by: evenly spread, all of them when 90 % of the
/// time is gone.
pub fn pace(total: usize, over: Duration) -> impl Fn(Duration) -> usize {
    let window_ns = over.as_nanos() * PACED_PERCENT / 100;
    move |elapsed| {
        if elapsed.as_nanos() >= window_ns {
            return total;
        }
        let due = (total as u128 * elapsed.as_nanos()).div_ceil(window_ns);
        usize::try_from(due).unwrap_or(total).min(total)
    }
}

#[cfg(test)]
mod tests;
