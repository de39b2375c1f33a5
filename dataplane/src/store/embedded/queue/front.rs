//! Where appends wait for the writer, and where they are refused.
//!
//! Callers push under a short lock and wait for their answer; the writer takes everything at once. It is woken only
//! when it sleeps, or when enough has come that it need not wait for more, so a burst costs few wake-ups.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::limits::{FLUSH_PACE, FLUSH_REQUEST_BYTES, GATHER_BYTES, PENDING_BYTES_MAX};
use crate::store::queue::{NewEntry, QueueError};

pub(super) struct Append {
    pub(super) entry: NewEntry,
    pub(super) done: oneshot::Sender<Result<(), QueueError>>,
}

#[derive(Default)]
pub(super) struct Front {
    pending: Mutex<Pending>,
    wake: Condvar,
}

#[derive(Default)]
struct Pending {
    appends: Vec<Append>,
    bytes: usize,
    /// The writer sleeps until something comes.
    idle: bool,
    /// The writer waits for more, but not beyond [`GATHER_BYTES`].
    gathering: bool,
    seal: bool,
    closed: bool,
    full: bool,
    failing: Option<Failing>,
}

struct Failing {
    /// The next append after it is a probe.
    until: Instant,
    why: Arc<str>,
}

/// What the writer does next.
pub(super) enum Work {
    Flush(Vec<Append>),
    Seal,
    Stop,
}

pub(super) fn size_of_entry(entry: &NewEntry) -> usize {
    entry.request.len() + entry.key.len() + entry.barrier.len() + size_of::<Append>()
}

impl Front {
    pub(super) fn push(&self, append: Append) -> Result<(), QueueError> {
        let mut pending = self.pending.lock();
        if pending.closed {
            return Err(shutting_down());
        }
        if pending.full {
            return Err(QueueError::Full);
        }
        if let Some(failing) = &pending.failing
            && Instant::now() < failing.until
        {
            return Err(QueueError::Unavailable(failing.why.clone()));
        }
        let bytes = size_of_entry(&append.entry);
        if !pending.appends.is_empty() && pending.bytes + bytes > PENDING_BYTES_MAX {
            let why = "too much waits to be written, the disk is too slow";
            return Err(QueueError::Unavailable(why.into()));
        }
        pending.appends.push(append);
        pending.bytes += bytes;
        if pending.idle || pending.gathering && pending.bytes >= GATHER_BYTES {
            pending.idle = false;
            pending.gathering = false;
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Waits for work. `last`: when the last flush began.
    pub(super) fn next(&self, last: Option<Instant>) -> Work {
        let mut pending = self.pending.lock();
        loop {
            if std::mem::take(&mut pending.seal) {
                return Work::Seal;
            }
            if !pending.appends.is_empty() {
                break;
            }
            if pending.closed {
                return Work::Stop;
            }
            pending.idle = true;
            self.wake.wait(&mut pending);
        }
        pending.idle = false;
        if let Some(due) = last.map(|last| last + FLUSH_PACE) {
            while !pending.closed && pending.bytes < GATHER_BYTES && Instant::now() < due {
                pending.gathering = true;
                self.wake.wait_until(&mut pending, due);
            }
            pending.gathering = false;
        }
        Work::Flush(pending.take())
    }

    pub(super) fn ask_to_seal(&self) {
        let mut pending = self.pending.lock();
        pending.seal = true;
        pending.idle = false;
        self.wake.notify_one();
    }

    pub(super) fn close(&self) {
        let mut pending = self.pending.lock();
        pending.closed = true;
        self.wake.notify_all();
    }

    pub(super) fn set_full(&self, full: bool) {
        self.pending.lock().full = full;
    }

    pub(super) fn is_full(&self) -> bool {
        self.pending.lock().full
    }

    /// Refuses appends for a while; `None`: takes them again.
    pub(super) fn set_failing(&self, failing: Option<(Instant, Arc<str>)>) {
        self.pending.lock().failing = failing.map(|(until, why)| Failing { until, why });
    }

    pub(super) fn is_accepting(&self) -> bool {
        let pending = self.pending.lock();
        let failing = pending.failing.as_ref();
        let refuses = failing.is_some_and(|failing| Instant::now() < failing.until);
        !pending.closed && !pending.full && !refuses
    }
}

impl Pending {
    /// As many as one flush takes, in order.
    fn take(&mut self) -> Vec<Append> {
        if self.bytes <= FLUSH_REQUEST_BYTES {
            self.bytes = 0;
            return std::mem::take(&mut self.appends);
        }
        let mut bytes = 0;
        let mut count = 0;
        for append in &self.appends {
            let size = size_of_entry(&append.entry);
            if count > 0 && bytes + size > FLUSH_REQUEST_BYTES {
                break;
            }
            bytes += size;
            count += 1;
        }
        self.bytes -= bytes;
        let rest = self.appends.split_off(count);
        std::mem::replace(&mut self.appends, rest)
    }
}

pub(super) fn shutting_down() -> QueueError {
    QueueError::Unavailable("shutting down".into())
}
