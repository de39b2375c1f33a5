//! Publishers wait while most readers of a channel are behind.
//!
//! One slow reader is closed by the slow-consumer rule and holds up nobody. When more than half of a channel's
//! readers are behind, the channel carries more than its readers can take: then its publishers wait, a bounded
//! time, and the readers are spared.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::channel::Channel;
use super::limits::CONGESTION_WAIT_MAX;

#[derive(Debug, Default)]
struct Gate {
    /// Workers on which the channel is congested.
    workers: u64,
    cleared: Arc<Notify>,
}

/// Congested channels; usually there are none, and looking costs one atomic read.
#[derive(Debug, Default)]
pub struct Congestion {
    count: AtomicUsize,
    gates: Mutex<HashMap<Channel, Gate>>,
}

/// Whether a channel's publishers should wait: more than half of its members have over a quarter of their queue
/// limit waiting.
pub fn is_congested(members: usize, behind: usize) -> bool {
    behind * 2 > members
}

impl Congestion {
    pub fn set(&self, worker: usize, channel: &Channel) {
        let mut gates = self.gates.lock();
        gates.entry(channel.clone()).or_default().workers |= 1 << worker;
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

    pub fn channels(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub async fn wait(&self, channel: &Channel) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let cleared = match self.gates.lock().get(channel) {
            Some(gate) => Arc::clone(&gate.cleared),
            None => return,
        };
        let notified = cleared.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        if !self.gates.lock().contains_key(channel) {
            return;
        }
        // The time limit is the point: whoever waited it out may publish.
        let _ = tokio::time::timeout(CONGESTION_WAIT_MAX, notified).await;
    }
}
