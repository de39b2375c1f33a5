//! Who takes new clients: pods below their fair share, and never none.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use super::PodState;
use crate::facts::PodName;
use crate::limits::DWELL;
use crate::policy::{Policy, Rebalance};
use crate::view::{PodView, View};

/// A pod is above its share from here, and no longer from there.
const START: f64 = 1.10;
const STOP: f64 = 1.05;
/// Fewer clients too many are noise.
const SURPLUS_MIN: f64 = 200.0;
/// Of what a pod is meant to carry; the same.
const SURPLUS_PART: f64 = 0.02;

/// What a pod is in, and since when.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Steered {
    pub(crate) state: PodState,
    pub(crate) since: Instant,
    pub(crate) reason: Arc<str>,
    /// Connections that would be its part.
    pub(crate) fair: f64,
    /// Fenced because it has too many.
    pub(crate) surplus: bool,
}

pub(crate) type Steering = BTreeMap<PodName, Steered>;

/// What is known of one pod while it is decided.
struct Draft {
    state: PodState,
    reason: String,
    fair: f64,
    surplus: bool,
}

/// `victim`: the pod that is to be removed.
pub(crate) fn steer(
    view: &View,
    policy: &Policy,
    victim: Option<&PodName>,
    before: &Steering,
    now: Instant,
) -> Steering {
    let anyone_reports = view.pods.values().any(|pod| pod.heard.is_some());
    let mut drafts: BTreeMap<&PodName, Draft> = BTreeMap::new();
    for (name, pod) in &view.pods {
        let (state, reason) = alone(pod, victim == Some(name), anyone_reports, now);
        let reason = reason.to_owned();
        drafts.insert(
            name,
            Draft {
                state,
                reason,
                fair: 0.0,
                surplus: false,
            },
        );
    }
    excuse_mass_silence(&mut drafts);
    prefer_current(view, &mut drafts);
    share(view, &mut drafts);
    if policy.steering && policy.rebalance != Rebalance::Off {
        fence_surplus(view, policy, before, now, &mut drafts);
    }
    let someone = drafts.values().any(|draft| draft.state.takes_new());
    if !someone || !policy.steering {
        let relent =
            |draft: &&mut Draft| matches!(draft.state, PodState::Fenced | PodState::Silent);
        for draft in drafts.values_mut().filter(relent) {
            draft.state = PodState::Accepting;
            draft.surplus = false;
            draft.reason = "nobody else takes new clients".to_owned();
        }
    }
    let steered = |(name, draft): (&PodName, Draft)| {
        let same = before
            .get(name)
            .filter(|before| before.state == draft.state);
        let steered = Steered {
            state: draft.state,
            since: same.map_or(now, |before| before.since),
            reason: draft.reason.into(),
            fair: draft.fair,
            surplus: draft.surplus,
        };
        (name.clone(), steered)
    };
    drafts.into_iter().map(steered).collect()
}

/// By what is known of this pod only.
fn alone(
    pod: &PodView,
    victim: bool,
    anyone_reports: bool,
    now: Instant,
) -> (PodState, &'static str) {
    let empty = |why: &'static str| match pod.heard.is_some() && pod.connections() == 0 {
        true => (PodState::Drained, why),
        false => (PodState::Draining, why),
    };
    if pod.ends() {
        return empty("it was told to end");
    }
    if !pod.ready() {
        return (PodState::Warming, "it is not ready");
    }
    if pod.drain_requested() {
        return empty("it was asked to be drained");
    }
    if victim {
        return empty("it is to be removed");
    }
    if anyone_reports && pod.is_silent(now) {
        return (PodState::Silent, "it does not report");
    }
    (PodState::Accepting, "")
}

/// When most are silent it is likelier that the manager does not hear.
fn excuse_mass_silence(drafts: &mut BTreeMap<&PodName, Draft>) {
    let is_up = |draft: &&Draft| matches!(draft.state, PodState::Accepting | PodState::Silent);
    let up = drafts.values().filter(is_up).count();
    let silent = drafts
        .values()
        .filter(|draft| draft.state == PodState::Silent)
        .count();
    if silent * 2 <= up {
        return;
    }
    for draft in drafts
        .values_mut()
        .filter(|draft| draft.state == PodState::Silent)
    {
        draft.state = PodState::Accepting;
        draft.reason = "most pods do not report, so that says nothing of this one".to_owned();
    }
}

/// Clients that come to a pod that is replaced next would have to move again.
fn prefer_current(view: &View, drafts: &mut BTreeMap<&PodName, Draft>) {
    let is_current = |name: &PodName| view.pods.get(name).is_some_and(PodView::current);
    let current = drafts
        .iter()
        .any(|(name, draft)| draft.state.takes_new() && is_current(name));
    if !current {
        return;
    }
    for (name, draft) in drafts.iter_mut() {
        if draft.state.takes_new() && !is_current(name) {
            draft.state = PodState::Fenced;
            draft.reason = "it is of an old revision".to_owned();
        }
    }
}

/// The part of all connections that would be each pod's that stays.
fn share(view: &View, drafts: &mut BTreeMap<&PodName, Draft>) {
    let stays = |draft: &Draft| draft.state.takes_new();
    let staying = drafts.iter().filter(|(_, draft)| stays(draft));
    let staying: Vec<&PodView> = staying.map(|(name, _)| &view.pods[*name]).collect();
    let weights: f64 = staying.iter().map(|pod| pod.weight()).sum();
    let connections: u64 = staying.iter().map(|pod| pod.connections()).sum();
    for (name, draft) in drafts.iter_mut().filter(|(_, draft)| stays(draft)) {
        draft.fair =
            connections as f64 * view.pods[*name].weight() / f64::max(weights, f64::EPSILON);
    }
}

fn fence_surplus(
    view: &View,
    policy: &Policy,
    before: &Steering,
    now: Instant,
    drafts: &mut BTreeMap<&PodName, Draft>,
) {
    let noise = SURPLUS_MIN.max(policy.scaling.connections_per_replica as f64 * SURPLUS_PART);
    let ready = drafts
        .values()
        .filter(|draft| draft.state.takes_new())
        .count();
    let mut above: Vec<(f64, PodName)> = Vec::new();
    for (name, draft) in drafts.iter() {
        let pod = &view.pods[*name];
        if !draft.state.takes_new() || pod.fresh(now).is_none() {
            continue;
        }
        let has = pod.connections() as f64;
        let was = before.get(*name).filter(|before| before.surplus);
        let young = before.get(*name).is_some_and(|before| {
            now.saturating_duration_since(before.since) < DWELL
                && matches!(before.state, PodState::Fenced | PodState::Accepting)
        });
        let is_above = match was {
            Some(_) => young || has > draft.fair * STOP,
            None => !young && has > draft.fair * START && has > draft.fair + noise,
        };
        if is_above {
            above.push((has / draft.fair.max(1.0), (*name).clone()));
        }
    }
    above.sort_by(|(a, x), (b, y)| b.total_cmp(a).then_with(|| x.cmp(y)));
    // The others have to carry what comes.
    above.truncate(ready / 2);
    for (ratio, name) in above {
        let Some(draft) = drafts.get_mut(&name) else {
            continue;
        };
        draft.state = PodState::Fenced;
        draft.surplus = true;
        draft.reason = format!("it has {:.0} % of its share", ratio * 100.0);
    }
}
