//! A connection's timers: pings and pongs, expiry.

use std::rc::Rc;

use super::Connection;
use crate::relay::codes;
use crate::relay::heartbeat::Beat;
use crate::relay::limits::{PING_BEHIND_BYTES_MIN, PONG_BEHIND_BYTES_MIN, PONG_EXTENSIONS_MAX};
use crate::relay::session::Step;
use crate::relay::worker::Worker;

impl Connection {
    pub(super) fn pong(&self) {
        let mut heartbeat = self.heartbeat.get();
        match heartbeat.pong() {
            Ok(()) => self.heartbeat.set(heartbeat),
            Err(disconnect) => self.request_close(disconnect),
        }
    }

    pub(super) async fn tick(self: &Rc<Self>, worker: &Rc<Worker>) {
        let settings = worker.heartbeat();
        let mut heartbeat = self.heartbeat.get();
        match heartbeat.beat(worker.clock_ms(), settings) {
            Beat::Nothing => {}
            Beat::Ping => {
                self.heard_bytes.set(0);
                self.sent_bytes.set(0);
                self.extensions.set(0);
                self.send_frame(worker, worker.ping_frame(self.encoding));
            }
            Beat::Close(disconnect) => {
                if disconnect == codes::DISCONNECT_NO_PONG && self.may_be_late(worker) {
                    heartbeat.extend(worker.clock_ms(), settings);
                } else {
                    self.request_close(disconnect);
                }
            }
        }
        self.heartbeat.set(heartbeat);
        let step = worker.with_env(self, |env| {
            let mut session = self.session.borrow_mut();
            match session.expiry_due_ms(env) {
                Some(due_ms) if due_ms <= env.now_ms => session.expire(env),
                _ => Step::default(),
            }
        });
        self.carry_out(worker, step).await;
        self.flush(worker);
    }

    /// Whether ping or pong may be stuck behind messages that take their time: a client that goes on taking or sending much
    /// is alive. In overload silence may be the server's own, so a client gets that time whatever it does.
    fn may_be_late(&self, worker: &Worker) -> bool {
        if self.paused.get() {
            return true;
        }
        let heard_bytes = self.heard_bytes.replace(0) as usize;
        let sent_bytes = self.sent_bytes.replace(0) as usize;
        self.extensions.set(self.extensions.get().saturating_add(1));
        let patient = self.extensions.get() <= PONG_EXTENSIONS_MAX;
        if worker.is_overloaded() {
            return patient || heard_bytes > 0 || sent_bytes > 0;
        }
        let bulk = heard_bytes >= PONG_BEHIND_BYTES_MIN || sent_bytes >= PING_BEHIND_BYTES_MIN;
        bulk && patient
    }

    /// On the worker's clock.
    pub(super) fn due_ms(&self, worker: &Worker) -> u64 {
        let beat_ms = self.heartbeat.get().due_ms();
        let expiry = worker.with_env(self, |env| {
            self.session
                .borrow()
                .expiry_due_ms(env)
                .map(|due_ms| due_ms.saturating_sub(env.now_ms))
        });
        // Rounded up, so that the timer never fires just before its time.
        expiry.map_or(beat_ms, |in_ms| {
            beat_ms.min(worker.clock_ms().saturating_add(in_ms).saturating_add(1))
        })
    }
}
