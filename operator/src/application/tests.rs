use super::*;

fn outcome(attached: bool, reasons: &[Reason]) -> ApplicationOutcome {
    let problem = |reason: &Reason| Problem {
        object: "Application n/a".to_owned(),
        field: "spec.keys[0]".to_owned(),
        what: "bad".to_owned(),
        instead: "do this".to_owned(),
        reason: *reason,
    };
    ApplicationOutcome {
        namespace: "n".to_owned(),
        name: "a".to_owned(),
        attached,
        problems: reasons.iter().map(problem).collect(),
    }
}

fn said(findings: &[Finding]) -> Vec<String> {
    let said = findings.iter();
    said.map(|finding| {
        format!(
            "{}={} {}",
            finding.kind,
            finding.status.name(),
            finding.reason
        )
    })
    .collect()
}

#[test]
fn outcomes_become_conditions() {
    for (outcome, sound, served, wanted) in [
        (
            outcome(true, &[]),
            true,
            true,
            ["Accepted=True Accepted", "Ready=True Ready"],
        ),
        (
            outcome(true, &[]),
            true,
            false,
            ["Accepted=True Accepted", "Ready=False GatewayNotReady"],
        ),
        (
            outcome(false, &[]),
            false,
            true,
            ["Accepted=True Accepted", "Ready=False GatewayInvalid"],
        ),
        (
            outcome(false, &[Reason::Conflicted]),
            true,
            true,
            ["Accepted=False Conflicted", "Ready=False Conflicted"],
        ),
        (
            outcome(false, &[Reason::RefNotFound, Reason::NotAllowed]),
            true,
            true,
            ["Accepted=False NotAllowed", "Ready=False NotAllowed"],
        ),
    ] {
        let found = said(&findings(&outcome, sound, served));
        assert_eq!([found[0].as_str(), found[2].as_str()], wanted);
    }
}

#[test]
fn one_that_lost_some_keys_is_served_with_a_warning() {
    let found = findings(&outcome(true, &[Reason::Conflicted]), true, true);
    let wanted = "ConfigurationWarning=True Conflicted";
    assert!(said(&found).contains(&wanted.to_owned()));
}
