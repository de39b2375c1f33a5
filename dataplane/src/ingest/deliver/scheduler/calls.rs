//! Calls that need the upstream's own answer: they ask for a place and get it before what is queued.

use std::time::Instant;

use super::{GroupId, Scheduler, UpstreamId};
use crate::ingest::deliver::hold::{Held, Hold};
use crate::ingest::limiter::Class;

/// A call counts as one request, whatever it asks for.
const CALL_COST: u32 = 1;

impl Scheduler {
    /// Takes a place for a call of an application (empty: an unknown one), or says what is in the way.
    pub(in crate::ingest::deliver) fn call(
        &mut self,
        application: &str,
        now: Instant,
    ) -> Result<UpstreamId, Held> {
        if let Some(why) = self.stopped
            && why == Hold::Draining
        {
            return Err(Held { why, until: None });
        }
        let (group, application) = self.call_scope(application);
        let any_waits = self.knows_entries();
        let application_waits = application.is_some_and(|id| {
            let lanes = self.applications[id].lanes.iter();
            lanes.copied().any(|lane| self.lanes[lane].window.len() > 0)
        });
        if let Some(application) = application
            && let Some(cap) = &mut self.applications[application].cap
            && let Err(at) = cap.check_call(application_waits, CALL_COST, now)
        {
            return Err(Held {
                why: Hold::Cap,
                until: Some(at),
            });
        }
        if let Some(cap) = &mut self.cap
            && let Err(at) = cap.check_call(any_waits, CALL_COST, now)
        {
            return Err(Held {
                why: Hold::GlobalCap,
                until: Some(at),
            });
        }
        let upstream = self.choose(group, None, Class::Proxied, now)?;
        self.take_tokens(application, upstream, Class::Proxied, CALL_COST, now);
        Ok(upstream)
    }

    fn call_scope(&self, application: &str) -> (GroupId, Option<usize>) {
        let known = self.application_of.get(application).copied();
        let group = known.map_or(self.default_group, |id| self.applications[id].group);
        (group, known)
    }
}
