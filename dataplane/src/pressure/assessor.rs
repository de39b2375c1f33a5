//! The pure core: samples in, level out, with hysteresis.
//!
//! Up at once, because overload does not wait; down one level at a time, each after a calm time, because shed clients
//! come back as soon as they may and would otherwise swing the level to and fro.

use std::time::{Duration, Instant};

use super::Level;

/// One measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sample {
    /// The largest smoothed delay over all workers.
    pub loop_delay: Duration,
    pub memory_bytes: u64,
    /// 0: unknown, memory is not judged. The same for the other limit.
    pub memory_limit_bytes: u64,
    pub egress_queue_bytes: u64,
    pub egress_limit_bytes: u64,
    /// Clients that cannot be served as fast as messages come to them.
    pub clients_behind: u64,
    pub clients: u64,
}

/// Which measure asked for the level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    LoopDelay,
    Memory,
    EgressQueue,
    ClientsBehind,
}

impl Cause {
    pub fn name(self) -> &'static str {
        match self {
            Self::LoopDelay => "loop_delay",
            Self::Memory => "memory",
            Self::EgressQueue => "egress_queue",
            Self::ClientsBehind => "clients_behind",
        }
    }
}

/// A level is entered when any measure is above these, and held while any is.
#[derive(Debug, Clone, Copy)]
struct Thresholds {
    loop_delay: Duration,
    memory_percent: u64,
    egress_percent: u64,
    clients_behind_percent: u64,
}

/// Clients that are behind are no reason to refuse others: these add no messages yet.
const NEVER: u64 = 100;
/// With fewer clients than this, some of them being behind says nothing about the process.
const CLIENTS_JUDGED_MIN: u64 = 100;

/// A game's server list may be half a second late, its messages may not: 200 ms of loop delay are seen by players.
const ENTER_SHED_QUERIES: Thresholds = Thresholds {
    loop_delay: Duration::from_millis(200),
    memory_percent: 70,
    egress_percent: 50,
    clients_behind_percent: 10,
};
/// Half the delay, or ten points of the limit: far enough below that the work let in again does not lead straight back.
const LEAVE_SHED_QUERIES: Thresholds = Thresholds {
    loop_delay: Duration::from_millis(100),
    memory_percent: 60,
    egress_percent: 40,
    clients_behind_percent: 2,
};
/// A handshake costs more than anything else a client does, TLS above all. 85 % of memory leaves room for the queues of
/// the connections that are here.
const ENTER_SHED_CONNECTIONS: Thresholds = Thresholds {
    loop_delay: Duration::from_millis(500),
    memory_percent: 85,
    egress_percent: 80,
    clients_behind_percent: NEVER,
};
const LEAVE_SHED_CONNECTIONS: Thresholds = Thresholds {
    loop_delay: Duration::from_millis(250),
    memory_percent: 75,
    egress_percent: 70,
    clients_behind_percent: NEVER,
};

/// How long all measures must be calm before the level falls by one: longer than SDKs wait before they try again, so
/// that a retry wave is felt before the next step.
pub(super) const CALM: Duration = Duration::from_secs(2);

impl Thresholds {
    fn exceeded_by(&self, sample: &Sample) -> Option<Cause> {
        if sample.loop_delay > self.loop_delay {
            Some(Cause::LoopDelay)
        } else if above(
            sample.memory_bytes,
            sample.memory_limit_bytes,
            self.memory_percent,
        ) {
            Some(Cause::Memory)
        } else if above(
            sample.egress_queue_bytes,
            sample.egress_limit_bytes,
            self.egress_percent,
        ) {
            Some(Cause::EgressQueue)
        } else if sample.clients >= CLIENTS_JUDGED_MIN
            && above(
                sample.clients_behind,
                sample.clients,
                self.clients_behind_percent,
            )
        {
            Some(Cause::ClientsBehind)
        } else {
            None
        }
    }
}

fn above(value: u64, limit: u64, percent: u64) -> bool {
    limit > 0 && u128::from(value) * 100 > u128::from(limit) * u128::from(percent)
}

/// Remembers the level and since when it is calm.
#[derive(Debug)]
pub struct Assessor {
    level: Level,
    cause: Option<Cause>,
    calm_since: Option<Instant>,
}

impl Default for Assessor {
    fn default() -> Self {
        Self {
            level: Level::Normal,
            cause: None,
            calm_since: None,
        }
    }
}

impl Assessor {
    pub fn update(&mut self, now: Instant, sample: Sample) -> Level {
        let (wanted, cause) = wanted(&sample);
        if wanted > self.level {
            self.level = wanted;
            self.cause = cause;
            self.calm_since = None;
            return self.level;
        }
        let Some((leave, below)) = way_down(self.level) else {
            return self.level;
        };
        if leave.exceeded_by(&sample).is_some() {
            self.calm_since = None;
            return self.level;
        }
        let calm_since = *self.calm_since.get_or_insert(now);
        if now.saturating_duration_since(calm_since) >= CALM {
            self.level = below;
            self.calm_since = None;
        }
        self.level
    }

    /// What last raised the level.
    pub fn cause(&self) -> Option<Cause> {
        self.cause
    }
}

fn wanted(sample: &Sample) -> (Level, Option<Cause>) {
    if let Some(cause) = ENTER_SHED_CONNECTIONS.exceeded_by(sample) {
        (Level::ShedConnections, Some(cause))
    } else if let Some(cause) = ENTER_SHED_QUERIES.exceeded_by(sample) {
        (Level::ShedQueries, Some(cause))
    } else {
        (Level::Normal, None)
    }
}

/// What holds the level, and the level under it.
fn way_down(level: Level) -> Option<(Thresholds, Level)> {
    match level {
        Level::Normal => None,
        Level::ShedQueries => Some((LEAVE_SHED_QUERIES, Level::Normal)),
        Level::ShedConnections => Some((LEAVE_SHED_CONNECTIONS, Level::ShedQueries)),
    }
}
