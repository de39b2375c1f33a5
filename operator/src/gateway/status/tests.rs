use serde_json::json;

use super::*;
use crate::fixtures::pod;

fn now() -> Time {
    serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap()
}

fn problem(reason: Reason, what: &str) -> Problem {
    Problem {
        object: "Gateway n/g".to_owned(),
        field: "spec.x".to_owned(),
        what: what.to_owned(),
        instead: "do this".to_owned(),
        reason,
    }
}

static WHOLE: Applied = Applied {
    writes: 0,
    refused: Vec::new(),
    failed: Vec::new(),
    waiting: Vec::new(),
};

fn facts<'a>(pods: &'a [Arc<PodView>], deployment: &'a Value) -> Facts<'a> {
    Facts {
        generation: Some(3),
        problems: &[],
        warnings: &[],
        paused: false,
        limited: None,
        applied: Some(&WHOLE),
        wanted: Some(2),
        pods,
        deployment: Some(deployment),
        redis: RedisFacts::External { told: None },
        selector: "a=b".to_owned(),
        attached: 0,
        plan: None,
    }
}

fn two_pods() -> Vec<Arc<PodView>> {
    vec![
        Arc::new(pod("a", "10.0.0.1")),
        Arc::new(pod("b", "10.0.0.2")),
    ]
}

fn rolled_out() -> Value {
    json!({
        "metadata": {"generation": 1}, "spec": {"replicas": 2},
        "status": {
            "observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2
        },
    })
}

/// The conditions as `Type=Status Reason`.
fn said(facts: &Facts<'_>) -> Vec<String> {
    let status = status(facts, &GatewayStatus::default(), &now());
    let conditions = status.conditions.iter();
    conditions
        .map(|said| format!("{}={} {}", said.type_, said.status, said.reason))
        .collect()
}

fn message(facts: &Facts<'_>, kind: &str) -> String {
    let status = status(facts, &GatewayStatus::default(), &now());
    let mut conditions = status.conditions.into_iter();
    conditions.find(|said| said.type_ == kind).unwrap().message
}

#[test]
fn all_is_well() {
    let (pods, deployment) = (two_pods(), rolled_out());
    let facts = facts(&pods, &deployment);
    let wanted = [
        "Accepted=True Accepted",
        "ResolvedRefs=True ResolvedRefs",
        "Programmed=True Programmed",
        "RedisReady=True External",
        "Ready=True Ready",
    ];
    assert_eq!(said(&facts), wanted);
    let status = status(&facts, &GatewayStatus::default(), &now());
    assert_eq!(
        (status.ready.as_deref(), status.observed_generation),
        (Some("2/2"), Some(3))
    );
}

#[test]
fn summaries_are_there_from_the_first_look() {
    let deployment = json!({});
    let mut first = facts(&[], &deployment);
    first.deployment = None;
    first.applied = None;
    first.wanted = None;
    let problems = [problem(Reason::Invalid, "bad")];
    first.problems = &problems;
    first.redis = RedisFacts::Unknown;
    let wanted = [
        "Accepted=False Invalid",
        "ResolvedRefs=True ResolvedRefs",
        "Programmed=False Invalid",
        "RedisReady=Unknown Unknown",
        "Ready=False Invalid",
        "Stalled=True Invalid",
    ];
    assert_eq!(said(&first), wanted);
    assert_eq!(message(&first, ACCEPTED), "spec.x: bad; do this");
}

#[test]
fn missing_references_are_told_from_mistakes() {
    let (pods, deployment) = (two_pods(), rolled_out());
    let mut facts = facts(&pods, &deployment);
    let problems = [problem(Reason::RefNotFound, "Secret n/s does not exist")];
    facts.problems = &problems;
    facts.applied = None;
    let said = said(&facts);
    assert_eq!(
        said[..2],
        [
            "Accepted=False RefNotFound",
            "ResolvedRefs=False RefNotFound"
        ]
    );
}

#[test]
fn what_keeps_pods_from_running_is_said_with_what_to_do() {
    let deployment = rolled_out();
    for (trouble, wanted) in [
        (
            "ImagePullBackOff: back-off",
            "write an image that nodes can pull",
        ),
        ("Unschedulable: 0/3 nodes", "add nodes"),
        ("CrashLoopBackOff: x", "kubectl logs --previous"),
    ] {
        let mut broken = pod("b", "10.0.0.2");
        (broken.ready, broken.trouble) = (false, Some(trouble.to_owned()));
        let pods = [Arc::new(pod("a", "10.0.0.1")), Arc::new(broken)];
        let facts = facts(&pods, &deployment);
        let message = message(&facts, READY);
        assert!(
            message.starts_with("1 of 2 pods are ready; b: ") && message.contains(wanted),
            "{message}"
        );
        assert!(said(&facts).contains(&"Reconciling=True Progressing".to_owned()));
    }
}

#[test]
fn quotas_that_refuse_pods_are_said() {
    let deployment = json!({"spec": {"replicas": 2}, "status": {"conditions": [
        {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    ]}});
    let message = message(&facts(&[], &deployment), READY);
    assert_eq!(message, "0 of 2 pods are ready; exceeded quota");
}

#[test]
fn a_rollout_is_in_progress_and_ready() {
    let pods = two_pods();
    let mut deployment = rolled_out();
    for (status, wanted) in [
        (
            json!({"observedGeneration": 0}),
            "the Deployment has just been changed",
        ),
        (
            json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 1}),
            "1 of 2 pods are of the new kind",
        ),
        (
            json!({"observedGeneration": 1, "replicas": 3, "updatedReplicas": 2}),
            "1 pods of the old kind are ending",
        ),
        (
            json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2}),
            "0 of 2 pods are available",
        ),
    ] {
        deployment["status"] = status;
        let facts = facts(&pods, &deployment);
        assert_eq!(message(&facts, RECONCILING), wanted);
        assert!(said(&facts).contains(&"Ready=True Ready".to_owned()));
    }
}

#[test]
fn managed_redis_speaks_for_itself() {
    let (pods, deployment) = (two_pods(), rolled_out());
    let mut facts = facts(&pods, &deployment);
    facts.redis = RedisFacts::Managed {
        ready: false,
        reason: "ShardDown",
        message: "shard 0 has no primary".to_owned(),
        status: RedisStatus::default(),
    };
    let said = said(&facts);
    assert!(said.contains(&"RedisReady=False ShardDown".to_owned()));
    assert!(said.contains(&"Ready=False RedisNotReady".to_owned()));
}

#[test]
fn an_external_redis_is_judged_by_its_answer_and_by_the_pods() {
    let (pods, deployment) = (two_pods(), rolled_out());
    let failed = || Some(Err("redis:6379: not reached".to_owned()));
    for (told, pods, wanted, text) in [
        (None, &pods[..], "RedisReady=True External", "pods reach it"),
        (None, &[], "RedisReady=Unknown External", "not been asked"),
        (
            Some(Ok("Redis 7.2 answers".to_owned())),
            &[],
            "RedisReady=True External",
            "Redis 7.2",
        ),
        (
            failed(),
            &pods[..],
            "RedisReady=True External",
            "the operator does not",
        ),
        (
            failed(),
            &[],
            "RedisReady=False Unreachable",
            "not reached; see that spec.redis.external",
        ),
    ] {
        let mut facts = facts(pods, &deployment);
        facts.redis = RedisFacts::External { told };
        assert!(said(&facts).contains(&wanted.to_owned()), "{wanted}");
        assert!(message(&facts, REDIS_READY).contains(text), "{text}");
    }
}

#[test]
fn nothing_is_made_of_a_paused_gateway() {
    let (pods, deployment) = (two_pods(), rolled_out());
    let mut facts = facts(&pods, &deployment);
    (facts.paused, facts.applied) = (true, None);
    let said = said(&facts);
    assert!(said.contains(&"Programmed=Unknown Paused".to_owned()));
    assert!(said.contains(&"Paused=True ReconciliationPaused".to_owned()));
    assert!(said.contains(&"Ready=True Ready".to_owned()));
}

#[test]
fn many_problems_are_counted() {
    let problems: Vec<Problem> = (0..20)
        .map(|n| problem(Reason::Invalid, &n.to_string()))
        .collect();
    let text = listed(&problems);
    assert_eq!(text.lines().count(), SHOWN_MAX + 1);
    assert!(text.ends_with("and 12 more"), "{text}");
}

fn plan(scale: sluice_manager::ScaleDecision) -> Option<Arc<PlanSummary>> {
    let plan = PlanSummary {
        scale: Some(scale),
        ..PlanSummary::default()
    };
    Some(Arc::new(plan))
}

#[test]
fn what_limits_scaling_and_who_goes_is_said() {
    let (pods, deployment) = (two_pods(), rolled_out());
    let decision = sluice_manager::ScaleDecision {
        replicas: 2,
        of: 2,
        wanted: 2,
        reason: sluice_manager::ScaleReason::Asked,
        wish: 5,
        limit: Some(ScaleLimit::Maximum),
        waits: None,
        victim: None,
    };
    let mut facts = facts(&pods, &deployment);
    facts.plan = plan(decision.clone());
    assert!(said(&facts).contains(&"ScalingLimited=True Maximum".to_owned()));
    assert!(message(&facts, SCALING_LIMITED).starts_with("5 pods would be needed"));
    facts.plan = plan(sluice_manager::ScaleDecision {
        limit: Some(ScaleLimit::Paused),
        ..decision.clone()
    });
    assert!(message(&facts, SCALING_LIMITED).contains("spec.operation.scaling: Active"));
    facts.plan = plan(sluice_manager::ScaleDecision {
        limit: Some(ScaleLimit::Paused),
        wish: 2,
        victim: Some("b".into()),
        ..decision
    });
    let said = said(&facts);
    assert!(!said.iter().any(|said| said.starts_with("ScalingLimited")));
    // It is ready, and not yet as it is to be.
    assert!(said.contains(&"Ready=True Ready".to_owned()));
    assert!(message(&facts, RECONCILING).contains("b is drained before it is removed"));
}
