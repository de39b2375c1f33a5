//! The worker's tasks: delivery, congestion, loop delay, configuration, drain.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::Worker;
use crate::drain::Watcher;
use crate::relay::hub::Dirty;
use crate::relay::limits::{CONGESTION_LOOK, FLUSHES_PER_TURN};
use crate::relay::mailbox::{Item, rounds};

/// How often the worker's own lateness is measured.
const LOOP_PROBE: Duration = Duration::from_millis(100);
/// How often a draining worker looks whether its connections are gone.
const DRAIN_STEP: Duration = Duration::from_millis(50);

impl Worker {
    /// Delivers events and carries out orders, for as long as the worker lives.
    pub async fn deliver(self: Rc<Self>) {
        loop {
            let items = self.mailbox.take().await;
            self.look_at_clock();
            for (index, round) in rounds(&items).enumerate() {
                if index > 0 {
                    // Sockets that are full have a chance to become writable before more comes for them.
                    tokio::task::yield_now().await;
                    self.look_at_clock();
                }
                for item in round {
                    match item {
                        Item::Event(channel, event) => self.deliver_event(channel, event),
                        Item::Order(order) => self.obey(order),
                    }
                }
                self.flush_dirty().await;
                self.mailbox.round_done(round);
            }
        }
    }

    fn deliver_event(&self, channel: &crate::relay::channel::Channel, event: &crate::store::Event) {
        let allowance = self.allowance();
        let delivered =
            self.hub
                .borrow_mut()
                .deliver(channel, event, allowance, &mut self.dirty.borrow_mut());
        super::add(&self.counts.deliveries, delivered.frames as u64);
        if delivered.readers.are_congested(self.is_overloaded()) {
            let mut congested = self.congested.borrow_mut();
            if !congested.contains(channel) {
                congested.push(channel.clone());
                self.congestion_began.notify_one();
                self.router().congestion().set(self.index, channel);
            }
        }
    }

    /// Writes every touched socket once, letting other work of the thread in between.
    async fn flush_dirty(&self) {
        let mut turn = 0;
        loop {
            let Some(connection) = self.dirty.borrow_mut().pop_front() else {
                break;
            };
            connection.flush(self);
            turn += 1;
            if turn % FLUSHES_PER_TURN == 0 {
                tokio::task::yield_now().await;
            }
        }
        let mut dirty = self.dirty.borrow_mut();
        if dirty.is_empty() && dirty.capacity() > FLUSHES_PER_TURN * 16 {
            *dirty = Dirty::new();
        }
    }

    /// Looks at congested channels until their readers have caught up.
    pub async fn watch_congestion(self: Rc<Self>) {
        loop {
            // Usually nothing is congested, and then this task costs nothing.
            while self.congested.borrow().is_empty() {
                self.congestion_began.notified().await;
            }
            tokio::time::sleep(CONGESTION_LOOK).await;
            let allowance = self.allowance();
            let overloaded = self.is_overloaded();
            let hub = self.hub.borrow();
            let mut behind = 0;
            self.congested.borrow_mut().retain(|channel| {
                let readers = hub.readers(channel, allowance);
                let still = readers.are_congested(overloaded);
                if still {
                    behind += readers.behind;
                } else {
                    self.router().congestion().clear(self.index, channel);
                }
                still
            });
            let connections = self.connections.borrow().len();
            self.shared
                .pressure()
                .record_readers(self.index, behind.min(connections), connections);
        }
    }

    /// Tells how late a timer of this thread fires: the event-loop delay.
    pub async fn probe(self: Rc<Self>) {
        loop {
            let due = Instant::now() + LOOP_PROBE;
            tokio::time::sleep_until(due).await;
            self.shared
                .pressure()
                .record_loop_delay(self.index, due.elapsed());
            self.look_at_clock();
            self.report_counts();
            self.mailbox.offer_room();
            self.shared
                .pressure()
                .record_egress(self.index, self.frame_bytes.get() as u64);
        }
    }

    fn report_counts(&self) {
        let metrics = self.metrics();
        metrics.delivered(self.counts.deliveries.take());
        metrics.commanded(self.counts.commands.take());
        metrics.received(self.counts.received_bytes.take());
        metrics.wrote(self.counts.writes.take(), self.counts.sent_bytes.take());
    }

    /// Keeps the worker's configuration current.
    pub async fn follow_config(self: Rc<Self>) {
        let mut changes = self.shared.watch_config();
        while changes.changed().await.is_ok() {
            self.config.replace(changes.borrow_and_update().clone());
        }
    }

    /// Keeps a drain from being finished while this worker has connections; others close them.
    pub async fn drain(self: Rc<Self>, mut watcher: Watcher) {
        watcher.draining().await;
        while !self.connections.borrow().is_empty() {
            tokio::time::sleep(DRAIN_STEP).await;
        }
    }
}
