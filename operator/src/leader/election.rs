//! Who of several operators writes: a state machine without I/O and without a clock.
//!
//! A Lease is taken by compare-and-swap of its resourceVersion. Whether another's has run out is judged by how long ago
//! *this* process saw it change, on its own monotonic clock: clocks of other machines do not count. A holder stops writing
//! when it has not renewed for the renew deadline, counted from *before* the request was sent, which is earlier than anybody
//! else can think that the lease has run out.

use std::time::{Duration, Instant};

/// How long a lease is good for without being renewed.
pub const LEASE_TIME: Duration = Duration::from_secs(15);
/// How long after its last renewal the holder goes on writing. What was sent at the very end has to be over, one way or
/// the other, before the lease can be taken: [`WRITE_TIMEOUT`] fits in between.
pub(crate) const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often the holder renews and the others look.
pub(crate) const RETRY: Duration = Duration::from_secs(2);
/// The longest that one write may take.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(4);

/// A Lease as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Lease {
    pub resource_version: String,
    /// Empty: nobody's.
    pub holder: String,
    /// How often it changed hands.
    pub transitions: i32,
    /// What its holder promises to renew it within, which may be another version's.
    pub time: Duration,
    /// Where its holder is asked what only it knows; empty: nowhere.
    pub address: String,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Nothing until then.
    Wait(Instant),
    /// Read the Lease.
    Read,
    /// Write it with this holder, by compare-and-swap; without a resourceVersion it is created.
    Write {
        resource_version: Option<String>,
        holder: String,
        transitions: i32,
    },
    /// The lease is given back, or was not held.
    Done,
}

/// What became of an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Found(Lease),
    Absent,
    /// Somebody else wrote first.
    Conflict,
    /// It is not known whether it was done.
    Failed,
}

#[derive(Debug)]
pub(crate) struct Election {
    identity: String,
    /// The Lease as last seen, and when it was first seen so. `Some(None)`: there is none.
    seen: Option<(Option<Lease>, Instant)>,
    /// What was seen is known to be out of date, or may be.
    stale: bool,
    /// When the request was sent that renewed the lease last.
    renewed: Option<Instant>,
    next: Instant,
    releasing: bool,
}

impl Election {
    pub(crate) fn new(identity: impl Into<String>, now: Instant) -> Self {
        Self {
            identity: identity.into(),
            seen: None,
            stale: true,
            renewed: None,
            next: now,
            releasing: false,
        }
    }

    /// Whether this process may send a write now.
    pub(crate) fn may_write(&self, now: Instant) -> bool {
        !self.releasing
            && self
                .renewed
                .is_some_and(|renewed| now < renewed + RENEW_DEADLINE)
    }

    /// When [`Self::may_write`] ends unless the lease is renewed.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.renewed.map(|renewed| renewed + RENEW_DEADLINE)
    }

    /// Where the operator is that holds the lease, if it is another one.
    pub(crate) fn leader(&self) -> Option<&str> {
        let (lease, _) = self.seen.as_ref()?;
        let lease = lease.as_ref()?;
        let is_others = !lease.holder.is_empty() && lease.holder != self.identity;
        (is_others && !lease.address.is_empty()).then_some(lease.address.as_str())
    }

    /// From now on nothing is written, and the lease is given back.
    pub(crate) fn release(&mut self, now: Instant) {
        self.releasing = true;
        self.next = now;
    }

    pub(crate) fn next(&self, now: Instant) -> Action {
        if now < self.next {
            return Action::Wait(self.next);
        }
        self.decide(now)
    }

    fn decide(&self, now: Instant) -> Action {
        if self.releasing && self.renewed.is_none() {
            return Action::Done;
        }
        let (Some((lease, since)), false) = (&self.seen, self.stale) else {
            return Action::Read;
        };
        let Some(lease) = lease else {
            return self.write(None, 0);
        };
        let version = Some(lease.resource_version.clone());
        if lease.holder == self.identity && self.renewed.is_some() {
            return self.write(version, lease.transitions);
        }
        // Another process cannot have this identity.
        let is_free = lease.holder.is_empty() || lease.holder == self.identity;
        // A holder of another version may promise less often than this one would.
        let time = lease.time.max(LEASE_TIME);
        if is_free || now >= *since + time {
            return self.write(version, lease.transitions.saturating_add(1));
        }
        Action::Read
    }

    fn write(&self, resource_version: Option<String>, transitions: i32) -> Action {
        let holder = if self.releasing {
            String::new()
        } else {
            self.identity.clone()
        };
        Action::Write {
            resource_version,
            holder,
            transitions,
        }
    }

    /// Takes the answer to an action that was begun at `sent`.
    pub(crate) fn answered(
        &mut self,
        action: &Action,
        answer: Answer,
        sent: Instant,
        now: Instant,
    ) {
        self.next = now + RETRY;
        let wrote = matches!(action, Action::Write { .. });
        match answer {
            Answer::Found(lease) => {
                if lease.holder != self.identity {
                    self.renewed = None;
                } else if wrote {
                    self.renewed = Some(sent);
                    self.next = sent + RETRY;
                }
                self.see(Some(lease), now);
            }
            Answer::Absent if wrote => self.read_at_once(now),
            Answer::Absent => {
                self.renewed = None;
                self.see(None, now);
            }
            Answer::Conflict => self.read_at_once(now),
            // A write may have been carried out.
            Answer::Failed => self.stale |= wrote,
        }
        // What is free, or has run out, is taken without waiting for another round.
        if !wrote && matches!(self.decide(now), Action::Write { .. }) {
            self.next = now;
        }
    }

    /// Nothing is written before what is there now was read.
    fn read_at_once(&mut self, now: Instant) {
        self.stale = true;
        self.next = now;
    }

    fn see(&mut self, lease: Option<Lease>, now: Instant) {
        self.stale = false;
        let is_same = self.seen.as_ref().is_some_and(|(seen, _)| *seen == lease);
        if !is_same {
            self.seen = Some((lease, now));
        }
    }
}

#[cfg(test)]
mod tests;
