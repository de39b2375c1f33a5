//! Publishers wait while most readers of a channel are behind.
//!
//! One slow reader is closed by the slow-consumer rule and holds up nobody. When many of a channel's readers are behind and
//! still read, the channel carries more than they can take: then its publishers wait and the readers are spared. The same
//! holds for every reader while the process is overloaded. Now and then one publisher passes all the same, so that readers
//! who only seem to read are found out by the slow-consumer rule.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::channel::Channel;
use super::limits::CONGESTION_PASS;

#[derive(Debug)]
struct Gate {
    /// Workers on which the channel is congested.
    workers: u64,
    cleared: Arc<Notify>,
    /// When one publisher may pass although the gate is closed.
    next_pass: Instant,
}

/// Congested channels; usually there are none, and looking costs one atomic read.
#[derive(Debug, Default)]
pub struct Congestion {
    count: AtomicUsize,
    gates: Mutex<HashMap<Channel, Gate>>,
}

/// The readers of a channel on one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Readers {
    pub members: usize,
    /// Have much waiting, and still read.
    pub behind: usize,
}

impl Readers {
    /// Whether the channel's publishers should wait: more than a third, and not one alone, are behind. While the process
    /// is overloaded nobody is slow by his own fault, and any reader that is behind is spared.
    pub fn are_congested(self, overloaded: bool) -> bool {
        if overloaded {
            self.behind > 0
        } else {
            self.behind >= 2 && self.behind * 3 > self.members
        }
    }
}

impl Congestion {
    pub fn set(&self, worker: usize, channel: &Channel) {
        let mut gates = self.gates.lock();
        let gate = gates.entry(channel.clone()).or_insert_with(|| Gate {
            workers: 0,
            cleared: Arc::default(),
            next_pass: Instant::now() + CONGESTION_PASS,
        });
        gate.workers |= 1 << worker;
        self.count.store(gates.len(), Ordering::Relaxed);
    }

    pub fn clear(&self, worker: usize, channel: &Channel) {
        let mut gates = self.gates.lock();
        let Some(gate) = gates.get_mut(channel) else {
            return;
        };
        gate.workers &= !(1 << worker);
        if gate.workers == 0 {
            gate.cleared.notify_waiters();
            gates.remove(channel);
        }
        self.count.store(gates.len(), Ordering::Relaxed);
    }

    pub fn is_closed(&self, channel: &Channel) -> bool {
        self.count.load(Ordering::Relaxed) > 0 && self.gates.lock().contains_key(channel)
    }

    /// Waits until the channel is not congested, or it is this publisher's turn to pass all the same.
    pub async fn wait(&self, channel: &Channel) {
        while let Some(cleared) = self.closed_gate(channel, Instant::now()) {
            let cleared = cleared.notified();
            tokio::pin!(cleared);
            // Registered before the look, so that a gate opening in between is not missed.
            cleared.as_mut().enable();
            if !self.is_closed(channel) {
                return;
            }
            // Woken or not, the next look decides.
            let _ = tokio::time::timeout(CONGESTION_PASS, cleared).await;
        }
    }

    /// What to wait for; `None` when the caller may pass.
    fn closed_gate(&self, channel: &Channel, now: Instant) -> Option<Arc<Notify>> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let mut gates = self.gates.lock();
        let gate = gates.get_mut(channel)?;
        if now >= gate.next_pass {
            gate.next_pass = now + CONGESTION_PASS;
            return None;
        }
        Some(Arc::clone(&gate.cleared))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_publisher_at_a_time_passes_a_closed_gate_and_all_pass_an_open_one() {
        let congestion = Arc::new(Congestion::default());
        let channel = Channel::new("a", "c");
        congestion.set(0, &channel);
        congestion.set(1, &channel);
        let passed = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            let (congestion, channel, passed) = (
                Arc::clone(&congestion),
                channel.clone(),
                Arc::clone(&passed),
            );
            tokio::spawn(async move {
                congestion.wait(&channel).await;
                passed.fetch_add(1, Ordering::Relaxed);
            });
        }
        tokio::time::sleep(CONGESTION_PASS * 5 + CONGESTION_PASS / 2).await;
        assert!(
            (4..=6).contains(&passed.load(Ordering::Relaxed)),
            "{passed:?}"
        );
        congestion.wait(&Channel::new("b", "c")).await;
        congestion.clear(0, &channel);
        assert!(
            congestion.is_closed(&channel),
            "the other worker's readers are still behind"
        );
        congestion.clear(1, &channel);
        tokio::time::sleep(CONGESTION_PASS / 10).await;
        assert_eq!(passed.load(Ordering::Relaxed), 100);
    }
}
