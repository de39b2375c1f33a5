//! Events: what a person who looks at a Gateway would want to know has happened.
//!
//! Which there are is a pure function of two lists of conditions. Writing one is never worth failing for.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::DynamicObject;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use sluice_crds::conditions::{
    ACCEPTED, CONFIGURATION_WARNING, PAUSED, PROGRAMMED, READY, REDIS_READY,
};
use sluice_crds::gateway::Gateway;
use tokio::time::timeout;
use tracing::debug;

use crate::cluster::Writer;
use crate::leader::WRITE_TIMEOUT;

/// Conditions whose changes are told.
const TOLD: [&str; 6] = [
    ACCEPTED,
    PROGRAMMED,
    REDIS_READY,
    READY,
    CONFIGURATION_WARNING,
    PAUSED,
];
/// The API server takes no longer notes.
const NOTE_BYTES_MAX: usize = 1000;

pub struct Events {
    recorder: Recorder,
}

/// Something to tell.
#[derive(Debug, PartialEq, Eq)]
struct Note {
    warning: bool,
    reason: String,
    action: String,
    text: String,
}

impl Events {
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter {
            controller: "sluice-operator".to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
        }
    }

    /// Tells what has become true or untrue of a Gateway.
    pub async fn of_conditions(
        &self,
        writer: &Writer,
        gateway: &DynamicObject,
        former: &[Condition],
        now: &[Condition],
    ) {
        let reference = reference(gateway);
        for note in notes(former, now) {
            if !writer.may_write() {
                return;
            }
            let event = Event {
                type_: if note.warning {
                    EventType::Warning
                } else {
                    EventType::Normal
                },
                reason: note.reason,
                note: Some(note.text),
                action: note.action,
                secondary: None,
            };
            let published = self.recorder.publish(&event, &reference);
            match timeout(WRITE_TIMEOUT, published).await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => debug!(%failure, "event not written"),
                Err(_) => debug!("event not written in time"),
            }
        }
    }
}

fn reference(gateway: &DynamicObject) -> k8s_openapi::api::core::v1::ObjectReference {
    let metadata = &gateway.metadata;
    k8s_openapi::api::core::v1::ObjectReference {
        api_version: Some(Gateway::api_version(&()).into_owned()),
        kind: Some(Gateway::kind(&()).into_owned()),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        resource_version: metadata.resource_version.clone(),
        field_path: None,
    }
}

/// Of conditions that changed their status or reason. What is unknown is not told.
fn notes(former: &[Condition], now: &[Condition]) -> Vec<Note> {
    let changed = now.iter().filter(|condition| {
        let kind = condition.type_.as_str();
        let same = former.iter().any(|former| {
            former.type_ == condition.type_
                && former.status == condition.status
                && former.reason == condition.reason
        });
        // That something begins well is told by Ready alone.
        let first = !former.iter().any(|former| former.type_ == condition.type_);
        let is_dull = first && condition.status == "True" && kind != READY && !is_negative(kind);
        TOLD.contains(&kind) && !same && !is_dull && condition.status != "Unknown"
    });
    changed.map(note).collect()
}

fn is_negative(kind: &str) -> bool {
    matches!(kind, CONFIGURATION_WARNING | PAUSED)
}

fn note(condition: &Condition) -> Note {
    let holds = condition.status == "True";
    let kind = condition.type_.as_str();
    let mut text = condition.message.clone();
    if text.len() > NOTE_BYTES_MAX {
        let end = (0..=NOTE_BYTES_MAX).rev();
        let end = end.into_iter().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or_default());
        text.push_str("...");
    }
    // Reasons of different conditions may be the same word.
    let reason = match (kind, holds) {
        (READY | CONFIGURATION_WARNING, true) => kind.to_owned(),
        (PAUSED, true) => condition.reason.clone(),
        (_, true) => kind.to_owned(),
        (READY, false) => format!("Not{kind}"),
        (_, false) => condition.reason.clone(),
    };
    Note {
        warning: if is_negative(kind) {
            kind != PAUSED
        } else {
            !holds
        },
        reason,
        action: format!("Set{kind}"),
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, status: &str, reason: &str) -> Condition {
        serde_json::from_value(serde_json::json!({
            "type": kind, "status": status, "reason": reason, "message": "m",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }))
        .unwrap()
    }

    #[test]
    fn changes_are_told_once() {
        let good = [
            condition(ACCEPTED, "True", "Accepted"),
            condition(READY, "False", "PodsNotReady"),
        ];
        let told: Vec<_> = notes(&[], &good)
            .into_iter()
            .map(|note| note.reason)
            .collect();
        assert_eq!(told, ["NotReady"]);
        assert_eq!(notes(&good, &good), []);
        let bad = [
            condition(ACCEPTED, "False", "Invalid"),
            condition(READY, "False", "Invalid"),
        ];
        let told: Vec<_> = notes(&good, &bad)
            .into_iter()
            .map(|note| (note.warning, note.reason))
            .collect();
        assert_eq!(
            told,
            [(true, "Invalid".to_owned()), (true, "NotReady".to_owned())]
        );
        let ready = [
            condition(ACCEPTED, "True", "Accepted"),
            condition(READY, "True", "Ready"),
        ];
        let told: Vec<_> = notes(&bad, &ready)
            .into_iter()
            .map(|note| (note.warning, note.reason))
            .collect();
        assert_eq!(
            told,
            [(false, "Accepted".to_owned()), (false, "Ready".to_owned())]
        );
    }
}
