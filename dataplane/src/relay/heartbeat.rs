//! When to ping, when a pong is overdue, when a silent connection is stale. Pure; times are milliseconds of one
//! monotonic clock.

use sluice_crds::config;

use super::codes::{self, Disconnect};
use super::limits::CONNECT_DEADLINE;

#[derive(Debug, Clone, Copy)]
enum State {
    /// Waits for the connect command.
    Unconnected {
        deadline_ms: u64,
    },
    Idle {
        ping_at_ms: u64,
    },
    /// A ping is out.
    Waiting {
        ping_at_ms: u64,
        pong_by_ms: u64,
    },
}

#[derive(Debug, Clone, Copy)]
pub struct Heartbeat(State);

#[derive(Debug, PartialEq, Eq)]
pub enum Beat {
    Nothing,
    Ping,
    Close(Disconnect),
}

impl Heartbeat {
    pub fn new(now_ms: u64) -> Self {
        Self(State::Unconnected {
            deadline_ms: now_ms + CONNECT_DEADLINE.as_millis() as u64,
        })
    }

    /// The client connected. `spread` in 0..1 keeps clients that came together from being pinged together.
    pub fn connected(&mut self, now_ms: u64, settings: config::Heartbeat, spread: f64) {
        let interval_ms = settings.interval.as_millis() as f64;
        let first_ms = (interval_ms * (0.5 + spread / 2.0)) as u64;
        self.0 = State::Idle {
            ping_at_ms: now_ms + first_ms,
        };
    }

    pub fn pong(&mut self) -> Result<(), Disconnect> {
        match self.0 {
            State::Waiting { ping_at_ms, .. } => {
                self.0 = State::Idle { ping_at_ms };
                Ok(())
            }
            State::Unconnected { .. } | State::Idle { .. } => Err(codes::DISCONNECT_BAD_REQUEST),
        }
    }

    /// The client lives although its pong has not come: it gets the time once more.
    pub fn extend(&mut self, now_ms: u64, settings: config::Heartbeat) {
        if let State::Waiting { pong_by_ms, .. } = &mut self.0 {
            *pong_by_ms = now_ms + settings.timeout.as_millis() as u64;
        }
    }

    /// When `beat` has something to do.
    pub fn due_ms(&self) -> u64 {
        match self.0 {
            State::Unconnected { deadline_ms } => deadline_ms,
            State::Idle { ping_at_ms } => ping_at_ms,
            State::Waiting { pong_by_ms, .. } => pong_by_ms,
        }
    }

    pub fn beat(&mut self, now_ms: u64, settings: config::Heartbeat) -> Beat {
        if now_ms < self.due_ms() {
            return Beat::Nothing;
        }
        match self.0 {
            State::Unconnected { .. } => Beat::Close(codes::DISCONNECT_STALE),
            State::Waiting { .. } => Beat::Close(codes::DISCONNECT_NO_PONG),
            State::Idle { .. } => {
                self.0 = State::Waiting {
                    ping_at_ms: now_ms + settings.interval.as_millis() as u64,
                    pong_by_ms: now_ms + settings.timeout.as_millis() as u64,
                };
                Beat::Ping
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SETTINGS: config::Heartbeat = config::Heartbeat {
        interval: Duration::from_secs(25),
        timeout: Duration::from_secs(8),
    };

    #[test]
    fn a_client_that_answers_is_pinged_at_the_interval() {
        let mut heartbeat = Heartbeat::new(0);
        heartbeat.connected(1_000, SETTINGS, 0.0);
        assert_eq!(heartbeat.due_ms(), 13_500);
        assert_eq!(heartbeat.beat(13_499, SETTINGS), Beat::Nothing);
        assert_eq!(heartbeat.beat(13_500, SETTINGS), Beat::Ping);
        assert_eq!(heartbeat.due_ms(), 21_500);
        heartbeat.pong().unwrap();
        assert_eq!(heartbeat.due_ms(), 38_500);
        assert_eq!(heartbeat.pong(), Err(codes::DISCONNECT_BAD_REQUEST));
    }

    #[test]
    fn silence_is_closed_with_its_code() {
        let mut stale = Heartbeat::new(0);
        assert_eq!(
            stale.beat(10_000, SETTINGS),
            Beat::Close(codes::DISCONNECT_STALE)
        );
        let mut silent = Heartbeat::new(0);
        silent.connected(0, SETTINGS, 1.0);
        assert_eq!(silent.beat(25_000, SETTINGS), Beat::Ping);
        assert_eq!(
            silent.beat(33_000, SETTINGS),
            Beat::Close(codes::DISCONNECT_NO_PONG)
        );
    }
}
