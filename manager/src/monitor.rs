//! What people are shown of a fleet: how it is now, how it was in the last hours, and the JSON API over that.
//!
//! The fleet's owner records a little every tick and answers questions between two of its mails; everything else is made when
//! somebody looks. Requests and settings are not the manager's: a [`api::Host`] has them.

use std::sync::Arc;
use std::time::Instant;

use sluice_proto::fleet::Past;

use crate::plan::PlanSummary;
use crate::planner::Planner;
use crate::policy::Policy;
use crate::view::View;

pub mod api;
mod history;
pub mod page;
mod past;
pub mod plan;
mod series;
pub mod settings;
mod snapshot;

pub use self::history::Columns;
use self::history::History;
pub use self::snapshot::{Application, Flow, Pod, Scale, Snapshot, Upstream};

/// What is remembered beside what the planner knows.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    history: History,
}

/// A fleet, as its owner lends it to whoever asks.
pub struct Looked<'a> {
    view: &'a View,
    policy: &'a Policy,
    plan: &'a Arc<PlanSummary>,
    history: &'a History,
    now: Instant,
    unix_s: u64,
}

impl Recorder {
    pub(crate) fn look<'a>(
        &'a self,
        planner: &'a Planner,
        now: Instant,
        unix_s: u64,
    ) -> Looked<'a> {
        Looked {
            view: planner.view(),
            policy: planner.policy(),
            plan: planner.summary(),
            history: &self.history,
            now,
            unix_s,
        }
    }

    /// What a process says of the time before this manager.
    pub(crate) fn learn(&mut self, instance: &Arc<str>, past: &Past, unix_s: u64) {
        self.history.learn(instance, past, unix_s);
    }

    /// How it is now becomes a part of how it was.
    pub(crate) fn record(&mut self, planner: &Planner, now: Instant, unix_s: u64) {
        let looked = self.look(planner, now, unix_s);
        let applications = looked.applications();
        let flow = snapshot::flow(looked.view, looked.policy, &applications, now);
        let plan = Arc::clone(looked.plan);
        let messages = looked.messages();
        self.history.record(
            unix_s,
            [
                flow.arrived_per_minute,
                flow.delivered_per_minute,
                flow.failed_per_minute,
                flow.waiting as f64,
                flow.oldest_seconds,
                plan.connections as f64,
                messages.0,
                messages.1,
            ],
        );
        for one in &applications {
            let flow = &one.flow;
            let values = [
                flow.arrived_per_minute,
                flow.delivered_per_minute,
                flow.failed_per_minute,
                flow.waiting as f64,
                flow.oldest_seconds,
            ];
            self.history.record_application(unix_s, &one.name, values);
        }
        let configured = &planner.policy().applications;
        self.history.retain(|name| configured.contains(name));
    }
}

impl Looked<'_> {
    pub fn snapshot(&self) -> Snapshot {
        snapshot::snapshot(self.view, self.policy, self.plan, self.now)
    }

    pub fn applications(&self) -> Vec<Application> {
        snapshot::applications(self.view, self.policy, self.now)
    }

    pub fn plan(&self) -> Arc<PlanSummary> {
        Arc::clone(self.plan)
    }

    /// Of the last so many seconds. `None`: there is no such application, or too many.
    pub fn series(&self, application: Option<&str>, seconds: u64) -> Option<Columns> {
        let since = self.unix_s.saturating_sub(seconds);
        self.history.since(application, since, self.unix_s)
    }

    /// Per second, in and out.
    fn messages(&self) -> (f64, f64) {
        let heard = self
            .view
            .pods
            .values()
            .filter_map(|pod| pod.fresh(self.now));
        heard.fold((0.0, 0.0), |(into, out), heard| {
            (
                into + heard.rates.messages_in,
                out + heard.rates.messages_out,
            )
        })
    }
}

#[cfg(test)]
mod tests;
