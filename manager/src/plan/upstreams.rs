//! What an upstream takes, levelled between pods: one that came late would else find everything taken by the others, whose
//! limits were there first. Advisory: the data planes' own limits protect the upstream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use crate::facts::PodName;
use crate::view::View;

use super::throttle::fill;

/// Ceilings together are so much above what the upstream takes now: how much it takes is for the data planes to find out.
const ABOVE: f64 = 1.25;
/// A pod can always measure.
const FLOOR: f64 = 0.05;
/// Without a backlog for it.
const HEADROOM: f64 = 1.5;

pub(crate) type Ceilings = BTreeMap<PodName, BTreeMap<Arc<str>, f64>>;

/// Per second; who has none is not limited.
pub(crate) fn level(view: &View, now: Instant) -> Ceilings {
    let mut wants: BTreeMap<Arc<str>, Vec<(&PodName, f64, bool)>> = BTreeMap::new();
    let mut limited: BTreeMap<Arc<str>, bool> = BTreeMap::new();
    for (name, pod) in &view.pods {
        let Some(heard) = pod.fresh(now) else {
            continue;
        };
        for upstream in &heard.report.upstreams {
            let rate = heard.rates.upstream.get(&upstream.name).copied();
            let wants = wants.entry(upstream.name.clone()).or_default();
            wants.push((name, rate.unwrap_or_default(), upstream.wanted));
            *limited.entry(upstream.name.clone()).or_default() |=
                upstream.pace_per_second.is_some();
        }
    }
    let mut ceilings = Ceilings::new();
    for (upstream, wants) in wants {
        let total: f64 = wants.iter().map(|(_, rate, _)| rate).sum();
        if wants.len() < 2 || !limited[&upstream] || total <= 0.0 {
            continue;
        }
        let floor = total * FLOOR;
        let each = wants.iter().map(|(_, rate, wanted)| match wanted {
            true => f64::INFINITY,
            false => (rate * HEADROOM).max(floor),
        });
        let parts = fill(total * ABOVE, &each.collect::<Vec<_>>());
        for ((pod, _, _), part) in wants.iter().zip(parts) {
            let of_pod = ceilings.entry((*pod).clone()).or_default();
            of_pod.insert(upstream.clone(), part.max(floor));
        }
    }
    ceilings
}
