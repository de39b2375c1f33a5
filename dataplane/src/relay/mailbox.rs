//! What other threads hand to a worker: events of its channels, orders for its connections, new sockets.
//!
//! Publishers look at [`Mailbox::has_room`] before they publish, so events wait in bounded number. Once published,
//! an event is never refused: dropping it here would be a silent gap. What other processes publish comes over connections
//! that are not read on while too much waits.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::channel::Channel;
use super::limits::{
    MAILBOX_BYTES_MAX, MAILBOX_EVENTS_MAX, MAILBOX_FOREIGN_BYTES_MAX, MAILBOX_FOREIGN_EVENTS_MAX,
};
use super::worker::Order;
use crate::store::Event;

pub enum Item {
    Event(Channel, Event),
    Order(Order),
}

#[derive(Default)]
pub struct Mailbox {
    items: Mutex<Vec<Item>>,
    /// Events and payload bytes not yet through the worker, those it has taken but not written included.
    events: AtomicUsize,
    bytes: AtomicUsize,
    arrived: Notify,
    room: Notify,
}

impl Mailbox {
    pub fn push(&self, item: Item) {
        if let Item::Event(_, event) = &item {
            self.events.fetch_add(1, Ordering::Relaxed);
            self.bytes
                .fetch_add(payload_bytes(event), Ordering::Relaxed);
        }
        let first = {
            let mut items = self.items.lock();
            items.push(item);
            items.len() == 1
        };
        if first {
            self.arrived.notify_one();
        }
    }

    /// Waits until there is something, then takes all of it. For the owner only.
    pub async fn take(&self) -> Vec<Item> {
        loop {
            let items = std::mem::take(&mut *self.items.lock());
            if !items.is_empty() {
                return items;
            }
            self.arrived.notified().await;
        }
    }

    /// What was taken has been written to the sockets, as far as they took it.
    pub fn round_done(&self, items: &[Item]) {
        let mut events = 0;
        let mut bytes = 0;
        for item in items {
            if let Item::Event(_, event) = item {
                events += 1;
                bytes += payload_bytes(event);
            }
        }
        if events > 0 {
            self.events.fetch_sub(events, Ordering::Relaxed);
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.wake_publishers();
        }
    }

    pub fn has_room(&self) -> bool {
        self.events.load(Ordering::Relaxed) < MAILBOX_EVENTS_MAX
            && self.bytes.load(Ordering::Relaxed) < MAILBOX_BYTES_MAX
    }

    /// Whether events that other processes published should be taken on.
    pub fn has_room_for_others(&self) -> bool {
        self.events.load(Ordering::Relaxed) < MAILBOX_FOREIGN_EVENTS_MAX
            && self.bytes.load(Ordering::Relaxed) < MAILBOX_FOREIGN_BYTES_MAX
    }

    /// A publisher that was woken does not take its place after all.
    pub fn pass_on(&self) {
        self.room.notify_one();
    }

    /// Wakes publishers that could go on; a place that was given to one who did not take it is not lost for long.
    pub fn offer_room(&self) {
        if self.has_room() {
            self.wake_publishers();
        }
    }

    /// As many as there can be room for, first come first served: waking thousands for a few places would cost more than
    /// the round did.
    fn wake_publishers(&self) {
        for _ in 0..MAILBOX_EVENTS_MAX {
            self.room.notify_one();
        }
    }

    pub async fn wait_for_room(&self) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // Registered before the look, so that a round ending in between is not missed.
            room.as_mut().enable();
            if self.has_room() {
                return;
            }
            room.await;
        }
    }
}

/// Cuts what was taken into rounds: after each the sockets are written, so that a round fits into a client's queue with
/// what waits there already.
pub fn rounds(items: &[Item]) -> impl Iterator<Item = &[Item]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |item: &&Item| {
            if let Item::Event(_, event) = item {
                bytes += payload_bytes(event);
            }
            bytes <= MAILBOX_BYTES_MAX
        };
        let count = rest
            .iter()
            .take(MAILBOX_EVENTS_MAX)
            .take_while(fits)
            .count();
        // One event that is larger by itself is a round.
        let (round, left) = rest.split_at(count.max(1).min(rest.len()));
        rest = left;
        (!round.is_empty()).then_some(round)
    })
}

fn payload_bytes(event: &Event) -> usize {
    match event {
        Event::Publication { publication, .. } => publication.data.len(),
        Event::Join(_) | Event::Leave(_) | Event::Lost => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::relay::protocol::Publication;

    fn event(bytes: usize) -> Item {
        let publication = Publication {
            data: vec![0; bytes].into(),
            ..Publication::default()
        };
        let event = Event::Publication {
            publication: Arc::new(publication),
            position: None,
            delta: false,
        };
        Item::Event(Channel::new("a", "c"), event)
    }

    #[test]
    fn a_round_is_bounded_in_events_and_in_bytes_and_takes_all() {
        let cases: [(&[usize], &[usize]); 4] = [
            (&[], &[]),
            (&[1; 130], &[64, 64, 2]),
            (&[100_000; 5], &[2, 2, 1]),
            (&[1, 300_000, 300_000, 1], &[1, 1, 1, 1]),
        ];
        for (sizes, want) in cases {
            let items: Vec<Item> = sizes.iter().map(|bytes| event(*bytes)).collect();
            let got: Vec<usize> = rounds(&items).map(<[Item]>::len).collect();
            assert_eq!(got, want, "{sizes:?}");
        }
    }
}
