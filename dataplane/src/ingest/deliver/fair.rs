//! Deficit round robin with the rounds left out: who was served least for its weight is next.
//!
//! Each flow has a virtual time at which its next request starts; serving one of cost `c` moves it by `c / weight`. A
//! flow that comes back starts at the queue's present: it neither has to catch up nor may it. Shares are exact for any
//! costs, and a step costs the logarithm of the flows that wait, where rounds of small quanta would visit each of them.
//! Owns the order of flows that have something to send; what they send, and whether they may, is up to the caller.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Virtual time of one unit of cost at weight 1: fine enough for weights in the millions.
const UNIT: u128 = 1 << 32;

/// A flow's place in virtual time; kept by its owner.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flow {
    start: u128,
    /// Says which heap entry is the flow's; an entry of another number is stale. 0: it does not wait.
    ticket: u64,
}

impl Flow {
    pub(super) fn waits(&self) -> bool {
        self.ticket != 0
    }

    /// Its heap entry, if any, is void.
    pub(super) fn leave(&mut self) {
        self.ticket = 0;
    }
}

/// Flows that wait, by virtual time.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    now: u128,
    heap: BinaryHeap<Reverse<(u128, u64, usize)>>,
    last_ticket: u64,
}

impl FairQueue {
    /// Enters a flow; one that waits already keeps its place.
    pub(super) fn enter(&mut self, id: usize, flow: &mut Flow) {
        if flow.waits() {
            return;
        }
        self.last_ticket += 1;
        flow.ticket = self.last_ticket;
        flow.start = flow.start.max(self.now);
        self.heap.push(Reverse((flow.start, flow.ticket, id)));
    }

    /// The flow that is next. `ticket_of` knows the flows; entries of those that left are dropped on the way.
    pub(super) fn first(&mut self, ticket_of: impl Fn(usize) -> Option<Flow>) -> Option<usize> {
        while let Some(Reverse((_, ticket, id))) = self.heap.peek().copied() {
            if ticket_of(id).is_some_and(|flow| flow.ticket == ticket) {
                return Some(id);
            }
            self.heap.pop();
        }
        None
    }

    /// The first flow was served: it leaves, and comes back later by as much as it took.
    pub(super) fn serve(&mut self, flow: &mut Flow, cost: u32, weight: u64) {
        self.now = self.now.max(flow.start);
        flow.start += u128::from(cost.max(1)) * UNIT / u128::from(weight.max(1));
        flow.leave();
    }
}

#[cfg(test)]
mod tests;
