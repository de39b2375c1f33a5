//! What the API asks of the process that it runs in.

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ALLOW, HeaderName, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode, request};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::json_answer;
use crate::fleet::Fleet;

/// Namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct GatewayName {
    pub namespace: String,
    pub name: String,
}

/// What somebody may who looks at the monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rights {
    /// To look at requests, with what is in them.
    pub requests: bool,
    /// To replay and to discard them.
    pub replay: bool,
    /// To change settings.
    pub edit: bool,
}

/// An object in which settings are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    Gateway,
    Application { namespace: String, name: String },
}

/// Another content for an object.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Of the object that the viewer saw.
    pub generation: i64,
    /// What is to be otherwise in its `spec`, as a merge patch: `null` takes a field away.
    pub spec: Map<String, Value>,
}

/// What the manager does not know itself: whoever looks, and what is not reported. Made for one question.
#[async_trait]
pub trait Host: Send + Sync {
    /// Those that are led here and that the viewer may see.
    async fn gateways(&self) -> Result<Vec<GatewayName>, Refusal>;

    /// What the viewer may; `Err`: not even look.
    async fn rights(&self, gateway: &GatewayName) -> Result<Rights, Refusal>;

    /// `None`: it is not led here.
    fn fleet(&self, gateway: &GatewayName) -> Option<Fleet>;

    /// Asks a data plane: `path` and query as on its admin port.
    async fn requests(
        &self,
        gateway: &GatewayName,
        head: &request::Parts,
        path: &str,
    ) -> Result<Answer, Refusal>;

    /// What is in force.
    async fn settings(&self, gateway: &GatewayName) -> Result<Answer, Refusal>;

    async fn written(&self, gateway: &GatewayName, object: &Written) -> Result<Answer, Refusal>;

    /// `dry`: only says what would become of it.
    async fn edit(
        &self,
        gateway: &GatewayName,
        object: &Written,
        edit: Edit,
        dry: bool,
    ) -> Result<Answer, Refusal>;
}

pub type Answer = Response<Bytes>;

/// Why there is no other answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    status: StatusCode,
    shown: Value,
    header: Option<(HeaderName, &'static str)>,
}

impl Refusal {
    /// `{"error": ...}`.
    pub fn new(status: StatusCode, problem: &str) -> Self {
        Self::of(status, json!({ "error": problem }))
    }

    /// `shown` has an `error` in words.
    pub fn of(status: StatusCode, shown: Value) -> Self {
        Self {
            status,
            shown,
            header: None,
        }
    }

    pub fn not_found(problem: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, problem)
    }

    pub fn not_allowed(methods: &'static str) -> Self {
        Self {
            header: Some((ALLOW, methods)),
            ..Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                &format!("expected {methods}"),
            )
        }
    }

    /// Nobody is known to ask. `challenge`: what would make somebody known.
    pub fn unauthenticated(challenge: &'static str, problem: &str) -> Self {
        Self {
            header: Some((WWW_AUTHENTICATE, challenge)),
            ..Self::new(StatusCode::UNAUTHORIZED, problem)
        }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let mut answer = json_answer(refusal.status, &refusal.shown);
        if let Some((name, value)) = refusal.header {
            answer
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}
