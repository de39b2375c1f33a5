//! What must be true of any plan. Runs after each tick; says what is wrong in words: builds for tests end by it, others
//! show it in the plan, in a metric and in the log.

use sluice_proto::fleet::Steering;

use super::PlanSummary;
use crate::planner::{Planner, Tick};
use crate::policy::ScalingMode;

/// Rounding of sums.
const EPSILON: f64 = 1e-6;

/// The first thing that is wrong with what `planner` has just decided. `before`: the plan before it.
pub(crate) fn check(planner: &Planner, tick: &Tick, before: &PlanSummary) -> Result<(), String> {
    someone_takes_new(&tick.summary)?;
    orders_fit_states(tick)?;
    shares_fit(planner, tick)?;
    scale_is_bounded(planner, &tick.summary)?;
    let same_term = before.version.term == tick.summary.version.term;
    if same_term && tick.summary.version < before.version {
        return Err("the generation fell".to_owned());
    }
    Ok(())
}

fn someone_takes_new(plan: &PlanSummary) -> Result<(), String> {
    use super::PodState::{Accepting, Fenced, Silent};
    let could = plan
        .pods
        .values()
        .any(|pod| matches!(pod.state, Fenced | Silent));
    let does = plan.pods.values().any(|pod| pod.state == Accepting);
    if could && !does {
        return Err("no pod takes new clients although some could".to_owned());
    }
    Ok(())
}

fn orders_fit_states(tick: &Tick) -> Result<(), String> {
    for (pod, directive) in &tick.directives {
        let planned = tick.summary.pods.get(pod);
        let Some(planned) = planned else {
            return Err(format!("{pod} has a directive and no plan"));
        };
        let takes = planned.state.takes_new() || planned.state == super::PodState::Warming;
        if takes != (directive.steering == Steering::Accept) {
            return Err(format!(
                "{pod} is {:?} and told {:?}",
                planned.state, directive.steering
            ));
        }
        let numbers = directive
            .shares
            .iter()
            .flat_map(|share| [share.per_minute, share.safe_per_minute]);
        if numbers
            .into_iter()
            .any(|number| !number.is_finite() || number < 0.0)
        {
            return Err(format!("{pod} is told a share that is no number"));
        }
    }
    Ok(())
}

/// Together pods never come to believe in more than a cap, unless they did so already: it was lowered, or they say they do.
fn shares_fit(planner: &Planner, tick: &Tick) -> Result<(), String> {
    for (key, cap) in &planner.policy().caps {
        let (before, after) = tick.believed.get(key).copied().unwrap_or_default();
        if after > before.max(*cap) + EPSILON {
            return Err(format!(
                "pods may send {after} under {key}, which is capped at {cap}"
            ));
        }
    }
    Ok(())
}

fn scale_is_bounded(planner: &Planner, plan: &PlanSummary) -> Result<(), String> {
    let Some(scale) = &plan.scale else {
        return Ok(());
    };
    let scaling = &planner.policy().scaling;
    if let Some(victim) = &scale.victim
        && !plan.pods.contains_key(victim)
    {
        return Err(format!("{victim} is to be removed and does not exist"));
    }
    let asked = match scaling.mode {
        ScalingMode::Given(asked) => asked,
        ScalingMode::Managed | ScalingMode::Fixed => scaling.max,
    };
    if scale.wanted.max(scale.replicas) > asked.max(scale.of) {
        return Err(format!(
            "{} pods are wanted, {asked} are the most",
            scale.wanted
        ));
    }
    // All at once only where they drain by themselves.
    let managed = scaling.mode == ScalingMode::Managed;
    if managed && scale.replicas + 1 < scale.of {
        return Err(format!("{} pods go at once", scale.of - scale.replicas));
    }
    if scaling.paused && managed && scale.replicas != scale.of {
        return Err("pods come or go although scaling is paused".to_owned());
    }
    Ok(())
}
