//! Plans as JSON, for `kubectl sluice` and whoever asks the admin port.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use sluice_manager::{PlanSummary, monitor};

use crate::shelf::Key;

pub fn all(plans: &BTreeMap<Key, Arc<PlanSummary>>) -> Value {
    plans.iter().map(|(key, plan)| one(key, plan)).collect()
}

pub fn one(key: &Key, plan: &PlanSummary) -> Value {
    let mut shown = monitor::plan::shown(plan);
    shown["gateway"] = format!("{}/{}", key.0, key.1).into();
    shown
}
