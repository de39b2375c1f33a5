//! What the managers see and want, as metrics: read from the latest plans when somebody asks, so that no figure outlives its Gateway.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use sluice_manager::{PlanSummary, PodState};

use super::Fleets;
use crate::shelf::Key;

/// A pod is in one of these.
const STATES: [PodState; 6] = [
    PodState::Warming,
    PodState::Accepting,
    PodState::Fenced,
    PodState::Draining,
    PodState::Drained,
    PodState::Silent,
];

type Plans = BTreeMap<Key, Arc<PlanSummary>>;

/// A figure that each Gateway has one of.
struct Figure {
    name: &'static str,
    help: &'static str,
    of: fn(&PlanSummary) -> Option<f64>,
}

const FIGURES: [Figure; 10] = [
    Figure {
        name: "sluice_manager_connections",
        help: "Clients that are connected, of pods that report",
        of: |plan| Some(plan.connections as f64),
    },
    Figure {
        name: "sluice_manager_replicas_wanted",
        help: "Pods that there are to be",
        of: |plan| Some(f64::from(plan.scale.as_ref()?.wanted)),
    },
    Figure {
        name: "sluice_manager_replicas_wished",
        help: "Pods that the load asks for, before limits",
        of: |plan| Some(f64::from(plan.scale.as_ref()?.wish)),
    },
    Figure {
        name: "sluice_manager_learning",
        help: "1: the manager is new, and neither moves nor scales yet",
        of: |plan| Some(f64::from(u8::from(plan.learning))),
    },
    Figure {
        name: "sluice_manager_plan_wrong",
        help: "1: the plan breaks an invariant, which is a defect of the manager",
        of: |plan| Some(f64::from(u8::from(plan.wrong.is_some()))),
    },
    Figure {
        name: "sluice_manager_requests_waiting",
        help: "Requests of ingest that are to be delivered",
        of: |plan| Some(plan.waiting as f64),
    },
    Figure {
        name: "sluice_manager_request_delay_seconds",
        help: "How long the oldest of them waits",
        of: |plan| Some(plan.oldest.as_secs_f64()),
    },
    Figure {
        name: "sluice_manager_requests_arrived_per_minute",
        help: "Requests of ingest that came",
        of: |plan| Some(plan.arrived_per_minute),
    },
    Figure {
        name: "sluice_manager_requests_delivered_per_minute",
        help: "Requests of ingest that were delivered",
        of: |plan| Some(plan.delivered_per_minute),
    },
    Figure {
        name: "sluice_manager_requests_failed_per_minute",
        help: "Requests of ingest that failed for good",
        of: |plan| Some(plan.failed_per_minute),
    },
];

/// Says nothing while another operator leads.
pub struct FleetMetrics(pub Arc<Fleets>);

impl fmt::Debug for FleetMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FleetMetrics").finish_non_exhaustive()
    }
}

impl Collector for FleetMetrics {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        encode(&self.0.plans().unwrap_or_default(), encoder)
    }
}

fn encode(plans: &Plans, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    // One that is empty would be a name without a figure.
    if plans.is_empty() {
        return Ok(());
    }
    for Figure { name, help, of } in FIGURES {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (key, plan) in plans {
            if let Some(value) = of(plan) {
                metric
                    .encode_family(&labels(key, &[]))?
                    .encode_gauge(&value)?;
            }
        }
    }
    let help = "Pods by what the manager wants of them";
    let mut pods =
        encoder.encode_descriptor("sluice_manager_pods", help, None, MetricType::Gauge)?;
    for (key, plan) in plans {
        for state in STATES {
            let count = plan.pods.values().filter(|pod| pod.state == state).count();
            let word = format!("{state:?}");
            let labels = labels(key, &[("state", &word)]);
            pods.encode_family(&labels)?.encode_gauge(&(count as f64))?;
        }
    }
    let sent: fn((f64, f64)) -> f64 = |(sent, _)| sent;
    let allowed: fn((f64, f64)) -> f64 = |(_, allowed)| allowed;
    for (name, help, of) in [
        (
            "sluice_manager_cap_sent_per_minute",
            "Requests sent under a cap, over all pods",
            sent,
        ),
        (
            "sluice_manager_cap_allowed_per_minute",
            "Requests that pods may send under a cap together",
            allowed,
        ),
    ] {
        let mut caps = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (key, plan) in plans {
            for (cap, figures) in &plan.caps {
                let word = cap.to_string();
                let labels = labels(key, &[("cap", &word)]);
                caps.encode_family(&labels)?.encode_gauge(&of(*figures))?;
            }
        }
    }
    Ok(())
}

fn labels<'a>(key: &'a Key, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut labels = vec![
        ("gateway_namespace", key.0.as_str()),
        ("gateway", key.1.as_str()),
    ];
    labels.extend(more);
    labels
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use prometheus_client::registry::Registry;
    use sluice_e2e::metrics_table::{hold, parse};
    use sluice_manager::{CapKey, PodPlan, ScaleDecision, ScaleReason};

    use super::*;

    #[derive(Debug)]
    struct Fixed(Plans);

    impl Collector for Fixed {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
            super::encode(&self.0, encoder)
        }
    }

    fn page(registry: &Registry) -> String {
        let mut said = String::new();
        text::encode(&mut said, registry).unwrap();
        said
    }

    fn shown(plans: Plans) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Fixed(plans)));
        page(&registry)
    }

    fn of_demo(plan: PlanSummary) -> Plans {
        [(("shop".to_owned(), "demo".to_owned()), Arc::new(plan))].into()
    }

    fn plan() -> PlanSummary {
        let pod = PodPlan {
            state: PodState::Fenced,
            reason: "".into(),
            connections: 7,
            fair: 5.0,
            reporting: true,
            drained: false,
        };
        PlanSummary {
            connections: 12,
            pods: [("a".into(), pod)].into(),
            caps: [(CapKey::Gateway, (590.0, 600.0))].into(),
            ..PlanSummary::default()
        }
    }

    #[test]
    fn the_table_of_the_operator_is_what_it_shows() {
        let mut registry = Registry::default();
        drop(crate::metrics::Metrics::register(&mut registry));
        let scale = ScaleDecision {
            replicas: 2,
            of: 2,
            wanted: 2,
            reason: ScaleReason::Minimum,
            wish: 2,
            limit: None,
            waits: None,
            victim: None,
        };
        let plan = PlanSummary {
            scale: Some(scale),
            ..plan()
        };
        registry.register_collector(Box::new(Fixed(of_demo(plan))));
        hold("operator", parse(&page(&registry)), &[]).unwrap();
    }

    #[test]
    fn figures_bear_their_gateway() {
        let said = shown(of_demo(plan()));
        let gateway = r#"gateway_namespace="shop",gateway="demo""#;
        for line in [
            format!("sluice_manager_connections{{{gateway}}} 12.0\n"),
            format!("sluice_manager_pods{{{gateway},state=\"Fenced\"}} 1.0\n"),
            format!("sluice_manager_pods{{{gateway},state=\"Accepting\"}} 0.0\n"),
            format!("sluice_manager_cap_sent_per_minute{{{gateway},cap=\"gateway\"}} 590.0\n"),
            format!("sluice_manager_cap_allowed_per_minute{{{gateway},cap=\"gateway\"}} 600.0\n"),
        ] {
            assert!(said.contains(&line), "{line}in\n{said}");
        }
        // Nobody decides how many pods there are.
        assert!(!said.contains("sluice_manager_replicas_wanted{"));
    }

    #[test]
    fn who_does_not_lead_says_nothing() {
        assert_eq!(shown(Plans::new()), "# EOF\n");
    }
}
