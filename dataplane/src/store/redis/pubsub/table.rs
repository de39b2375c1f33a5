//! Which channels are subscribed, and which connections carry them. Does no I/O; callers hold its lock.
//!
//! A connection *carries* a channel from the server's confirmation until the server withdraws it or the connection is
//! lost. A channel that nobody carries for a moment has *lapsed*, and its receiver is told once it is carried again.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Receiver;
use super::line::{Ask, Line};
use crate::store::redis::limits::UNSUBSCRIBE_DELAY;
use crate::store::redis::slots::slot_of_key;
use crate::store::redis::topology::{Address, Topology};

/// A primary, a replica, and one that is being left.
const CARRIERS_MAX: usize = 3;

struct Subscription {
    /// `None`: on its way out; kept for a while, in case its users come back.
    receiver: Option<Weak<dyn Receiver>>,
    /// The lines that carry it; 0 is none.
    carriers: [u32; CARRIERS_MAX],
    slot: u16,
    was_carried: bool,
    has_lapsed: bool,
}

#[derive(Default)]
pub(super) struct Table {
    channels: HashMap<Bytes, Subscription, foldhash::fast::RandomState>,
    /// How many subscriptions each slot has.
    slots: HashMap<u16, usize>,
    waiting: HashMap<Bytes, Vec<oneshot::Sender<()>>>,
    /// In the order in which they are to go.
    leaving: VecDeque<(Instant, Bytes)>,
    lines: HashMap<Address, Arc<Line>>,
    last_line: u32,
    topology: Arc<Topology>,
}

impl Table {
    pub(super) fn set_topology(&mut self, topology: Arc<Topology>) {
        self.topology = topology;
    }

    pub(super) fn slots(&self) -> Vec<u16> {
        self.slots.keys().copied().collect()
    }

    pub(super) fn receiver(&self, channel: &Bytes) -> Option<Weak<dyn Receiver>> {
        self.channels.get(channel)?.receiver.clone()
    }

    pub(super) fn add(
        &mut self,
        slot: u16,
        channel: Bytes,
        receiver: Weak<dyn Receiver>,
        confirm: oneshot::Sender<()>,
    ) {
        let waiting = self.waiting.entry(channel.clone()).or_default();
        waiting.push(confirm);
        match self.channels.get_mut(&channel) {
            Some(subscription) => {
                if subscription.receiver.is_none() {
                    // Nobody was there to miss anything.
                    subscription.has_lapsed = false;
                }
                subscription.receiver = Some(receiver);
            }
            None => {
                *self.slots.entry(slot).or_default() += 1;
                let subscription = Subscription {
                    receiver: Some(receiver),
                    carriers: [0; CARRIERS_MAX],
                    slot,
                    was_carried: false,
                    has_lapsed: false,
                };
                self.channels.insert(channel, subscription);
            }
        }
    }

    pub(super) fn leave(&mut self, channel: &Bytes, now: Instant) {
        self.waiting.remove(channel);
        if let Some(subscription) = self.channels.get_mut(channel)
            && subscription.receiver.take().is_some()
        {
            let due = now + UNSUBSCRIBE_DELAY;
            self.leaving.push_back((due, channel.clone()));
        }
    }

    /// Takes leave of the channels whose time has come.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.leaving.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, channel)) = self.leaving.pop_front() else {
                return;
            };
            let is_back = |subscription: &Subscription| subscription.receiver.is_some();
            if self.channels.get(&channel).is_none_or(is_back) {
                continue;
            }
            let Some(subscription) = self.channels.remove(&channel) else {
                continue;
            };
            let slot = subscription.slot;
            for line in self.lines.values() {
                if subscription.carriers.contains(&line.id) {
                    line.ask(Ask::Unsubscribe(slot, channel.clone()));
                }
            }
            if let Some(count) = self.slots.get_mut(&slot) {
                *count -= 1;
                if *count == 0 {
                    self.slots.remove(&slot);
                }
            }
        }
        if self.leaving.is_empty() {
            self.leaving.shrink_to(1_024);
        }
        if self.channels.len() < self.channels.capacity() / 4 {
            self.channels.shrink_to_fit();
        }
    }

    /// The servers that should carry a slot's channels: the primary, and of the replicas one that is connected already.
    pub(super) fn wanted(&self, slot: u16) -> Vec<Address> {
        let Some(shard) = self.topology.shard(slot) else {
            return Vec::new();
        };
        let is_up = |address: &&Address| self.lines.get(*address).is_some_and(|line| line.is_up());
        let mut others = shard
            .replicas
            .iter()
            .filter(|replica| **replica != shard.primary);
        let replica = others.clone().find(is_up).or_else(|| others.next());
        [Some(&shard.primary), replica]
            .into_iter()
            .flatten()
            .cloned()
            .collect()
    }

    /// A new line when there is none to the server; its task is the caller's to start.
    pub(super) fn missing_line(&mut self, address: &Address) -> Option<Arc<Line>> {
        if self.lines.contains_key(address) {
            return None;
        }
        self.last_line += 1;
        let line = Arc::new(Line::new(self.last_line, address.clone()));
        self.lines.insert(address.clone(), Arc::clone(&line));
        Some(line)
    }

    /// Has the wanted lines that do not carry the channel ask for it.
    pub(super) fn ask_for(&self, slot: u16, channel: &Bytes) {
        let Some(subscription) = self.channels.get(channel) else {
            return;
        };
        for address in self.wanted(slot) {
            self.ask_at(&address, subscription, channel);
        }
    }

    pub(super) fn ask_for_all(&self) {
        for line in self.lines.values() {
            line.forget_subscribes();
        }
        let wanted: HashMap<u16, Vec<Address>> = self
            .slots
            .keys()
            .map(|slot| (*slot, self.wanted(*slot)))
            .collect();
        for (channel, subscription) in &self.channels {
            if subscription.receiver.is_none() {
                continue;
            }
            for address in wanted.get(&subscription.slot).into_iter().flatten() {
                self.ask_at(address, subscription, channel);
            }
        }
    }

    fn ask_at(&self, address: &Address, subscription: &Subscription, channel: &Bytes) {
        if let Some(line) = self.lines.get(address)
            && line.is_up()
            && !subscription.carriers.contains(&line.id)
        {
            line.ask(Ask::Subscribe(subscription.slot, channel.clone()));
        }
    }

    /// Ends the lines that no slot wants, once another carries what they carry. Returns whether some are left.
    pub(super) fn part_with_unwanted(&mut self) -> bool {
        let slots = self.slots();
        let wanted: Vec<Address> = slots.iter().flat_map(|slot| self.wanted(*slot)).collect();
        let unwanted: Vec<Arc<Line>> = self
            .lines
            .values()
            .filter(|line| !wanted.contains(&line.address))
            .cloned()
            .collect();
        let mut is_left = false;
        for line in unwanted {
            let is_needed = |subscription: &Subscription| {
                subscription.receiver.is_some()
                    && subscription.carriers.contains(&line.id)
                    && !subscription
                        .carriers
                        .iter()
                        .any(|carrier| ![0, line.id].contains(carrier))
            };
            if line.is_up() && self.channels.values().any(is_needed) {
                is_left = true;
                continue;
            }
            line.stop();
            self.lines.remove(&line.address);
            for subscription in self.channels.values_mut() {
                subscription.drop_carrier(line.id);
            }
        }
        is_left
    }

    /// The server confirmed a subscription. Returns the receiver that has to be told of an interruption.
    pub(super) fn carried(&mut self, line: &Line, channel: &Bytes) -> Option<Weak<dyn Receiver>> {
        let Some(subscription) = self.channels.get_mut(channel) else {
            // Its users left before the server got round to it.
            let slot = slot_of_key(channel);
            line.ask(Ask::Unsubscribe(slot, Bytes::copy_from_slice(channel)));
            return None;
        };
        subscription.add_carrier(line.id);
        let has_lapsed = std::mem::take(&mut subscription.has_lapsed);
        let told = subscription.receiver.clone().filter(|_| has_lapsed);
        self.confirm(channel);
        told
    }

    /// The server withdrew a subscription, or confirmed its end. One that is still wanted is asked for again.
    pub(super) fn withdrawn(&mut self, line: &Line, channel: &Bytes) {
        let Some(subscription) = self.channels.get_mut(channel) else {
            return;
        };
        subscription.drop_carrier(line.id);
        if subscription.receiver.is_some() {
            let slot = subscription.slot;
            self.ask_for(slot, channel);
        }
    }

    /// Whether the line should still ask for the channel.
    pub(super) fn wants(&self, line: &Line, channel: &Bytes) -> bool {
        self.channels.get(channel).is_some_and(|subscription| {
            subscription.receiver.is_some()
                && !subscription.carriers.contains(&line.id)
                && self.wanted(subscription.slot).contains(&line.address)
        })
    }

    pub(super) fn line_is_up(&mut self, line: &Line) {
        line.is_up.store(true, Ordering::Relaxed);
    }

    pub(super) fn line_is_down(&mut self, line: &Line) {
        line.is_up.store(false, Ordering::Relaxed);
        line.forget();
        for subscription in self.channels.values_mut() {
            subscription.drop_carrier(line.id);
        }
        self.confirm_waiting();
    }

    /// Answers those who wait for a subscription that is carried well enough: by the primary, or by anybody while the
    /// primary is not connected.
    pub(super) fn confirm_waiting(&mut self) {
        let channels: Vec<Bytes> = self.waiting.keys().cloned().collect();
        for channel in &channels {
            self.confirm(channel);
        }
    }

    pub(super) fn confirm(&mut self, channel: &Bytes) {
        if self.waiting.contains_key(channel) && self.is_carried(channel) {
            for waiter in self.waiting.remove(channel).into_iter().flatten() {
                let _ = waiter.send(());
            }
        }
    }

    fn is_carried(&self, channel: &Bytes) -> bool {
        let Some(subscription) = self.channels.get(channel) else {
            return false;
        };
        let shard = self.topology.shard(subscription.slot);
        let primary = shard.and_then(|shard| self.lines.get(&shard.primary));
        match primary.filter(|primary| primary.is_up()) {
            Some(primary) => subscription.carriers.contains(&primary.id),
            None => subscription.is_carried(),
        }
    }

    pub(super) fn stop(&mut self) {
        for line in self.lines.values() {
            line.stop();
        }
    }
}

impl Subscription {
    fn is_carried(&self) -> bool {
        self.carriers != [0; CARRIERS_MAX]
    }

    fn add_carrier(&mut self, line: u32) {
        self.was_carried = true;
        if self.carriers.contains(&line) {
            return;
        }
        // With all places taken it goes uncounted, which at worst has a receiver told for nothing.
        if let Some(place) = self.carriers.iter_mut().find(|carrier| **carrier == 0) {
            *place = line;
        }
    }

    fn drop_carrier(&mut self, line: u32) {
        let was_carried = self.is_carried();
        for carrier in &mut self.carriers {
            if *carrier == line {
                *carrier = 0;
            }
        }
        if was_carried && !self.is_carried() {
            self.has_lapsed = self.was_carried;
        }
    }
}
