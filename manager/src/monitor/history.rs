//! What is remembered of a fleet: of all of it, and of each application.
//!
//! What was before the manager it learns of data planes, for all of the fleet; of applications it begins with nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use sluice_proto::fleet::Past;

use super::past::Before;
use super::series::{Resolution, Series, Stretch, Sum};

/// Ten minutes, two hours, a day: 88 KB.
const FLEET: [Resolution; 3] = [
    Resolution {
        step_s: 1,
        kept: 600,
    },
    Resolution {
        step_s: 10,
        kept: 720,
    },
    Resolution {
        step_s: 60,
        kept: 1_440,
    },
];
/// Two minutes, one hour, six hours: 17 KB each.
const APPLICATION: [Resolution; 3] = [
    Resolution {
        step_s: 1,
        kept: 120,
    },
    Resolution {
        step_s: 10,
        kept: 360,
    },
    Resolution {
        step_s: 60,
        kept: 360,
    },
];
/// With more applications those that come later have no series: 35 MB.
const APPLICATIONS_MAX: usize = 2_000;

pub(crate) const FLEET_FIELDS: [&str; 8] = [
    "arrivedPerMinute",
    "deliveredPerMinute",
    "failedPerMinute",
    "waiting",
    "oldestSeconds",
    "connections",
    "messagesInPerSecond",
    "messagesOutPerSecond",
];
const FLEET_SUMS: [Sum; 8] = [
    Sum::Mean,
    Sum::Mean,
    Sum::Mean,
    Sum::Most,
    Sum::Most,
    Sum::Mean,
    Sum::Mean,
    Sum::Mean,
];
pub(crate) const APPLICATION_FIELDS: [&str; 5] = [
    "arrivedPerMinute",
    "deliveredPerMinute",
    "failedPerMinute",
    "waiting",
    "oldestSeconds",
];
const APPLICATION_SUMS: [Sum; 5] = [Sum::Mean, Sum::Mean, Sum::Mean, Sum::Most, Sum::Most];

#[derive(Debug, Clone)]
pub(crate) struct History {
    fleet: Series<8>,
    /// When the first was recorded.
    began_s: Option<u64>,
    before: Before,
    applications: BTreeMap<Arc<str>, Series<5>>,
}

/// Points of several figures, a column each. `null`: nothing is known of that time.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Columns {
    pub step_seconds: u64,
    /// Unix seconds at which the first point begins.
    pub from: u64,
    pub columns: BTreeMap<&'static str, Vec<Option<f32>>>,
}

impl Default for History {
    fn default() -> Self {
        Self {
            fleet: Series::new(FLEET_SUMS, &FLEET),
            began_s: None,
            before: Before::default(),
            applications: BTreeMap::new(),
        }
    }
}

impl History {
    /// In the order of [`FLEET_FIELDS`].
    pub(crate) fn record(&mut self, now_s: u64, values: [f64; 8]) {
        self.began_s.get_or_insert(now_s);
        self.fleet.record(now_s, values);
    }

    /// What a process says of the time before.
    pub(crate) fn learn(&mut self, instance: &Arc<str>, past: &Past, now_s: u64) {
        let until_s = self.began_s.unwrap_or(now_s);
        self.before.learn(instance, past, until_s);
    }

    /// In the order of [`APPLICATION_FIELDS`].
    pub(crate) fn record_application(&mut self, now_s: u64, name: &Arc<str>, values: [f64; 5]) {
        if let Some(series) = self.applications.get_mut(name) {
            series.record(now_s, values);
        } else if self.applications.len() < APPLICATIONS_MAX {
            let mut series = Series::new(APPLICATION_SUMS, &APPLICATION);
            series.record(now_s, values);
            self.applications.insert(Arc::clone(name), series);
        }
    }

    /// Applications that are gone are forgotten.
    pub(crate) fn retain(&mut self, is_there: impl Fn(&Arc<str>) -> bool) {
        self.applications.retain(|name, _| is_there(name));
    }

    /// `application`: `None` for all of the fleet. `None`: nothing is known of it.
    pub(crate) fn since(
        &self,
        application: Option<&str>,
        since_s: u64,
        now_s: u64,
    ) -> Option<Columns> {
        match application {
            None => {
                let mut shown = self.fleet.since(since_s, now_s)?;
                let until_s = if shown.points.is_empty() {
                    now_s
                } else {
                    shown.from_s
                };
                let mut all = self.before.between(since_s, until_s, shown.step_s);
                if let Some((from_s, _)) = all.first() {
                    shown.from_s = *from_s;
                    let points = all.drain(..).map(|(_, point)| point);
                    shown.points.splice(..0, points);
                }
                Some(columns(&FLEET_FIELDS, &shown))
            }
            Some(name) => {
                let series = self.applications.get(name)?;
                let shown = series.since(since_s, now_s);
                shown.map(|shown| columns(&APPLICATION_FIELDS, &shown))
            }
        }
    }
}

fn columns<const N: usize>(names: &[&'static str; N], shown: &Stretch<N>) -> Columns {
    let column = |field: usize| {
        let points = shown.points.iter().map(|point| point[field]);
        points
            .map(|value| value.is_finite().then_some(value))
            .collect()
    };
    let columns = names.iter().enumerate();
    Columns {
        step_seconds: shown.step_s,
        from: shown.from_s,
        columns: columns
            .map(|(field, name)| (*name, column(field)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_before_the_manager_is_shown_before_what_it_saw() {
        let point = sluice_proto::fleet::PastPoint {
            arrived_per_minute: 7.0,
            ..Default::default()
        };
        let past = Past {
            from_s: 900,
            points: vec![Some(point); 20],
        };
        let mut history = History::default();
        history.learn(&"a".into(), &past, 1_000);
        let shown = history.since(None, 960, 1_000).unwrap();
        assert_eq!(shown.columns["arrivedPerMinute"], [Some(7.0); 40]);
        for now_s in 1_005..1_010 {
            history.record(now_s, [1.0; 8]);
        }
        history.learn(&"b".into(), &past, 1_010);
        let shown = history.since(None, 980, 1_010).unwrap();
        let arrived = &shown.columns["arrivedPerMinute"];
        assert_eq!((shown.from, arrived.len()), (980, 30));
        // Twenty seconds of both processes, but that one alone was there for the last five before the manager.
        assert_eq!(arrived[..20], [Some(14.0); 20]);
        assert_eq!(arrived[25..], [Some(1.0); 5]);
    }

    #[test]
    fn applications_are_remembered_up_to_a_number() {
        let mut history = History::default();
        for n in 0..APPLICATIONS_MAX + 5 {
            let name: Arc<str> = format!("app-{n:05}").into();
            history.record_application(1_000, &name, [1.0, 2.0, 3.0, 4.0, 5.0]);
        }
        assert_eq!(history.applications.len(), APPLICATIONS_MAX);
        let shown = history.since(Some("app-00000"), 900, 1_000).unwrap();
        assert_eq!(shown.columns["failedPerMinute"], [Some(3.0)]);
        assert!(history.since(Some("app-02004"), 900, 1_000).is_none());
        history.retain(|name| &**name == "app-00001");
        assert!(history.since(Some("app-00000"), 900, 1_000).is_none());
        assert!(history.since(None, 900, 1_000).unwrap().columns["waiting"].is_empty());
    }
}
