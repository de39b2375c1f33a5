//! The objects in which settings are written, read and changed in the name of whoever looks: what the API server says is what he is told.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use sluice_manager::monitor::api::{self, Answer, Edit, GatewayName, Refusal, Written};
use tracing::info;

use super::unauthenticated;
use super::viewers::{FromServer, Viewers};

/// By this name the API server knows which fields were changed here.
const FIELD_MANAGER: &str = "sluice-monitor";
/// Status is written beside; each time only the version differs.
const TRIES: usize = 5;
/// A name that is a part of a path as it is.
const NAME_CHARS: fn(char) -> bool =
    |c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';

/// What the viewer sees of an object.
pub(super) fn shown(object: &Value) -> Answer {
    let metadata = &object["metadata"];
    let conditions = object["status"]["conditions"].as_array();
    let ready = conditions
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready");
    let shown = json!({
        "kind": object["kind"],
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "generation": metadata["generation"],
        "spec": object["spec"],
        "ready": ready.map(|ready| json!({
            "status": ready["status"],
            "reason": ready["reason"],
            "message": ready["message"],
            "generation": ready["observedGeneration"],
        })),
    });
    api::json_answer(StatusCode::OK, &shown)
}

pub(super) async fn find(
    viewers: &Viewers,
    token: &str,
    gateway: &GatewayName,
    object: &Written,
) -> Result<Value, Refusal> {
    let path = path(gateway, object).ok_or_else(no_such_object)?;
    let said = viewers.call(token, Method::GET, &path, None).await?;
    let found = accepted(said)?;
    match object {
        Written::Application { namespace, .. } if !belongs(&found, namespace, gateway) => {
            Err(no_such_object())
        }
        Written::Application { .. } | Written::Gateway => Ok(found),
    }
}

/// Changes an object if it still is what the viewer saw.
pub(super) async fn edit(
    viewers: &Viewers,
    token: &str,
    gateway: &GatewayName,
    object: &Written,
    edit: &Edit,
    dry: bool,
) -> Result<Value, Refusal> {
    let mut path = path(gateway, object).ok_or_else(no_such_object)?;
    path += &format!("?fieldManager={FIELD_MANAGER}&fieldValidation=Strict");
    if dry {
        path += "&dryRun=All";
    }
    for _ in 0..TRIES {
        let found = find(viewers, token, gateway, object).await?;
        let patch = patch(&found, edit)?;
        let said = viewers
            .call(token, Method::PATCH, &path, Some(&patch))
            .await?;
        // Its status was written since; if it was the spec, that is seen next.
        if said.status == StatusCode::CONFLICT {
            continue;
        }
        let edited = accepted(said)?;
        if !dry {
            let of = format!("{}/{}", gateway.namespace, gateway.name);
            info!(gateway = %of, object = %path, "changed at the monitor");
        }
        return Ok(edited);
    }
    let problem = "it is being changed all the time: try again";
    Err(Refusal::new(StatusCode::CONFLICT, problem))
}

/// What the API server is asked for.
fn patch(found: &Value, edit: &Edit) -> Result<Value, Refusal> {
    let metadata = &found["metadata"];
    if metadata["generation"].as_i64() != Some(edit.generation) {
        let problem = "somebody else has changed it since you looked: look at it again";
        return Err(Refusal::new(StatusCode::CONFLICT, problem));
    }
    Ok(json!({
        "metadata": {"resourceVersion": metadata["resourceVersion"]},
        "spec": edit.spec,
    }))
}

/// The object, or why there is none, in the API server's words.
fn accepted(said: FromServer) -> Result<Value, Refusal> {
    let FromServer { status, body } = said;
    if status.is_success() {
        return Ok(body);
    }
    let message = body["message"]
        .as_str()
        .unwrap_or("the API server refuses it");
    if status == StatusCode::UNAUTHORIZED {
        return Err(unauthenticated(message));
    }
    let causes = body["details"]["causes"].as_array();
    let causes: Vec<Value> = causes
        .into_iter()
        .flatten()
        .map(|cause| json!({ "field": cause["field"], "message": cause["message"] }))
        .collect();
    let shown = json!({ "error": message, "causes": causes });
    Err(Refusal::of(status, shown))
}

/// `None`: it cannot be the name of an object.
fn path(gateway: &GatewayName, object: &Written) -> Option<String> {
    let (namespace, kind, name) = match object {
        Written::Gateway => (&gateway.namespace, "gateways", &gateway.name),
        Written::Application { namespace, name } => (namespace, "applications", name),
    };
    let is_name = |text: &str| !text.is_empty() && text.chars().all(NAME_CHARS);
    (is_name(namespace) && is_name(name))
        .then(|| format!("/apis/sluice.dev/v1alpha1/namespaces/{namespace}/{kind}/{name}"))
}

fn belongs(application: &Value, namespace: &str, gateway: &GatewayName) -> bool {
    let reference = &application["spec"]["gatewayRef"];
    let of = reference["namespace"].as_str().unwrap_or(namespace);
    reference["name"] == gateway.name.as_str() && of == gateway.namespace
}

fn no_such_object() -> Refusal {
    Refusal::not_found("there is no such object of this gateway")
}
