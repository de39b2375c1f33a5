//! The conditions of Gateways and Applications: their types and reasons, and how one changes.
//!
//! Summaries (`Accepted` to `Ready`) are always there; the others only while they are true. The text of a condition says
//! what is and what to do.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::{Schema, SchemaGenerator, json_schema};

/// Everything the user wrote can be carried out.
pub const ACCEPTED: &str = "Accepted";
/// Every object that is referred to was found.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// The objects that serve the gateway are as this generation wants them.
pub const PROGRAMMED: &str = "Programmed";
pub const REDIS_READY: &str = "RedisReady";
/// Clients are served as wanted.
pub const READY: &str = "Ready";
/// Something was accepted that may not be what the user wants.
pub const CONFIGURATION_WARNING: &str = "ConfigurationWarning";
/// There are fewer or more pods than was asked for, on purpose.
pub const SCALING_LIMITED: &str = "ScalingLimited";
pub const PAUSED: &str = "Paused";
/// kstatus: on the way to what is wanted.
pub const RECONCILING: &str = "Reconciling";
/// kstatus: will not get there without somebody's help.
pub const STALLED: &str = "Stalled";

/// Longer texts are cut: the API server refuses more than 32768 characters.
const MESSAGE_CHARS_MAX: usize = 2048;

/// A condition as it is found, without its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub kind: &'static str,
    pub status: Status,
    pub reason: &'static str,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    True,
    False,
    Unknown,
}

impl Status {
    pub fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl Finding {
    pub fn new(
        kind: &'static str,
        status: impl Into<Status>,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            status: status.into(),
            reason,
            message: message.into(),
        }
    }
}

/// The conditions that the findings make of the former ones. The time of a condition changes with its status only.
pub fn merge(
    former: &[Condition],
    findings: &[Finding],
    generation: Option<i64>,
    now: &Time,
) -> Vec<Condition> {
    let condition = |finding: &Finding| {
        let status = finding.status.name();
        let same = former
            .iter()
            .find(|former| former.type_ == finding.kind && former.status == status);
        Condition {
            type_: finding.kind.to_owned(),
            status: status.to_owned(),
            reason: finding.reason.to_owned(),
            message: cut(&finding.message),
            observed_generation: generation,
            last_transition_time: same.map_or(now, |same| &same.last_transition_time).clone(),
        }
    };
    findings.iter().map(condition).collect()
}

fn cut(message: &str) -> String {
    let mut chars = message.chars();
    let kept: String = chars.by_ref().take(MESSAGE_CHARS_MAX).collect();
    if chars.next().is_some() {
        format!("{kept}...")
    } else {
        kept
    }
}

/// As the API conventions want conditions.
pub(crate) fn conditions_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {"type": "string", "maxLength": 316, "description": "What is said to be so."},
                "status": {
                    "type": "string", "enum": ["True", "False", "Unknown"],
                    "description": "Whether it is so."
                },
                "reason": {
                    "type": "string", "minLength": 1, "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                    "description": "Why, as one word for programs."
                },
                "message": {
                    "type": "string", "maxLength": 32768,
                    "description": "Why, and what to do, for people."
                },
                "observedGeneration": {
                    "type": "integer", "format": "int64", "minimum": 0,
                    "description": "The generation of the spec that this is about."
                },
                "lastTransitionTime": {
                    "type": "string", "format": "date-time",
                    "description": "When the status was last another."
                }
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Time {
        let time = format!("2026-01-01T00:00:{second:02}Z");
        serde_json::from_value(time.into()).unwrap()
    }

    #[test]
    fn time_changes_with_the_status_only() {
        let found = |status: bool, message: &str| Finding::new(READY, status, "R", message);
        let first = merge(&[], &[found(true, "a")], Some(1), &at(1));
        let same = merge(&first, &[found(true, "b")], Some(2), &at(2));
        assert_eq!(same[0].last_transition_time, at(1));
        assert_eq!(
            (same[0].message.as_str(), same[0].observed_generation),
            ("b", Some(2))
        );
        let other = merge(&same, &[found(false, "b")], Some(2), &at(3));
        assert_eq!(other[0].last_transition_time, at(3));
    }

    #[test]
    fn what_is_not_found_any_more_goes_and_long_texts_are_cut() {
        let paused = Finding::new(PAUSED, true, "R", "ü".repeat(5000));
        let first = merge(&[], &[paused], None, &at(1));
        assert_eq!(first[0].message.chars().count(), MESSAGE_CHARS_MAX + 3);
        assert_eq!(merge(&first, &[], None, &at(2)), []);
    }
}
