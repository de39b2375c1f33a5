//! What a server knows of its users, and whether their requests come as their devices sent them.
//!
//! Pure. A device numbers its requests with `seq` from 1; a request that merges devices names the last number of the
//! old one with `old_seq`. Requests without numbers are carried out all the same.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ring::digest;

use super::parameters::Parameters;
use super::record::{Outcome, Stats, UserSummary};

/// Numbers of one device that may be missing at a time: a device that jumped further is not followed any more.
const MISSING_MAX: usize = 100_000;

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Who {
    pub app: Arc<str>,
    pub device: Arc<str>,
}

#[derive(Debug, Default)]
struct User {
    /// Hash and timestamp of the last request.
    last: Option<[u8; 20]>,
    last_seq: u64,
    missing: BTreeSet<u64>,
    applied: u64,
    session: bool,
    in_service: u32,
    merged: bool,
}

/// All users.
#[derive(Debug, Default)]
pub struct Oracle {
    users: HashMap<Who, User>,
}

/// What the duplicate filter compares: two requests are the same if all of this is.
#[must_use]
pub fn fingerprint(query: &str, body: &[u8], timestamp: &str) -> [u8; 20] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    for part in [query.as_bytes(), b"&", body, b"\n", timestamp.as_bytes()] {
        context.update(part);
    }
    let mut hash = [0; 20];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

impl Oracle {
    /// A request of this user begins to be served.
    pub fn begin(&mut self, who: &Who, stats: &mut Stats) {
        let user = self.users.entry(who.clone()).or_default();
        if user.in_service > 0 {
            stats.overlaps += 1;
        }
        user.in_service += 1;
    }

    /// It was not served to its end.
    pub fn abandon(&mut self, who: &Who) {
        if let Some(user) = self.users.get_mut(who) {
            user.in_service = user.in_service.saturating_sub(1);
        }
    }

    /// It is served: carried out, unless it is the same as the user's last one.
    pub fn finish(
        &mut self,
        who: &Who,
        parameters: &Parameters,
        fingerprint: [u8; 20],
        stats: &mut Stats,
    ) -> Outcome {
        self.abandon(who);
        let user = self.users.entry(who.clone()).or_default();
        if user.last == Some(fingerprint) {
            stats.duplicates_ignored += 1;
            return Outcome::DuplicateIgnored;
        }
        user.last = Some(fingerprint);
        if user.merged {
            stats.after_merge += 1;
        }
        user.session(parameters, stats);
        let outcome = match parameters.number("seq") {
            Some(seq) if !user.count(seq, stats) => Outcome::Repeated,
            _ => Outcome::Applied,
        };
        if outcome == Outcome::Repeated {
            stats.repeated += 1;
        } else {
            user.applied += 1;
            stats.applied += 1;
        }
        if let Some(old) = parameters
            .get("old_device_id")
            .filter(|old| **old != *who.device)
        {
            let old = Who {
                app: Arc::clone(&who.app),
                device: old.into(),
            };
            self.merge(&old, who, parameters.number("old_seq"), stats);
        }
        outcome
    }

    fn merge(&mut self, old: &Who, new: &Who, old_seq: Option<u64>, stats: &mut Stats) {
        stats.merges += 1;
        let from = self.users.entry(old.clone()).or_default();
        let complete = from.missing.is_empty() && old_seq.is_none_or(|seq| seq == from.last_seq);
        if !complete || from.in_service > 0 {
            stats.merges_early += 1;
        }
        from.merged = true;
        let session = std::mem::take(&mut from.session);
        if let Some(into) = self.users.get_mut(new) {
            into.session |= session;
            into.merged = false;
        }
    }

    /// All users, for comparison with what their devices got acknowledged.
    pub fn summaries(&self) -> impl Iterator<Item = UserSummary> {
        self.users.iter().map(|(who, user)| UserSummary {
            app: who.app.to_string(),
            device: who.device.to_string(),
            last_seq: user.last_seq,
            applied: user.applied,
            missing: user.missing.len() as u64,
        })
    }
}

impl User {
    /// Whether the number is new.
    fn count(&mut self, seq: u64, stats: &mut Stats) -> bool {
        if seq > self.last_seq {
            let jumped = self.last_seq + 1..seq;
            let room = MISSING_MAX - self.missing.len();
            for number in jumped.take(room) {
                self.missing.insert(number);
                stats.missing += 1;
            }
            self.last_seq = seq;
            return true;
        }
        let late = self.missing.remove(&seq);
        if late {
            stats.missing -= 1;
            stats.out_of_order += 1;
        }
        late
    }

    fn session(&mut self, parameters: &Parameters, stats: &mut Stats) {
        let goes_on =
            parameters.get("session_duration").is_some() || parameters.get("end_session").is_some();
        if parameters.get("begin_session").is_some() {
            self.session = true;
        } else if goes_on && !self.session {
            stats.session_orphans += 1;
        }
        if parameters.get("end_session").is_some() {
            self.session = false;
        }
    }
}

#[cfg(test)]
mod tests;
