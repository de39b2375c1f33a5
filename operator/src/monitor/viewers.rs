//! Whoever looks at the monitor, as the API server knows him: it is asked with his own token, and what he may is remembered for seconds.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use kube::{Client, Config};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use sluice_manager::monitor::api::{GatewayName, Refusal, Rights};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::warn;

use super::unauthenticated;

/// The page asks once a second; a right that was taken away is gone after this.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Questions whose answers are remembered: four for a gateway that somebody looks at.
const ANSWERS_MAX: usize = 10_000;
/// Of a token that is none the API server is not asked each time.
const ASKED_AT_A_TIME: usize = 16;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// An object has less than 2 MiB.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Namespaces that are asked about one by one, for somebody who may not see all.
const NAMESPACES_MAX: usize = 200;
const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
const GROUP: &str = "sluice.dev";

pub struct Viewers {
    /// Says nothing of who asks by itself.
    client: Client,
    answers: Mutex<HashMap<Asked, (Instant, Said)>>,
    asking: Semaphore,
}

/// A question of somebody. The token itself is not kept.
type Asked = ([u8; 32], Question);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Question {
    verb: &'static str,
    subresource: &'static str,
    /// Empty: all.
    namespace: String,
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Yes,
    No,
    /// The token is nobody's.
    Nobody,
}

/// What the API server answered.
pub(super) struct FromServer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Viewers {
    /// A way to the API server without what the operator is known by there.
    pub fn new(mut config: Config) -> anyhow::Result<Self> {
        config.auth_info = kube::config::AuthInfo::default();
        Ok(Self::by(Client::try_from(config)?))
    }

    pub(super) fn by(client: Client) -> Self {
        Self {
            client,
            answers: Mutex::default(),
            asking: Semaphore::new(ASKED_AT_A_TIME),
        }
    }

    /// What he may do with a gateway; `Err`: he may not see it.
    pub(super) async fn rights(
        &self,
        token: &str,
        gateway: &GatewayName,
    ) -> Result<Rights, Refusal> {
        let about = |verb, subresource| Question {
            verb,
            subresource,
            namespace: gateway.namespace.clone(),
            name: gateway.name.clone(),
        };
        if !self.may(token, about("get", "")).await? {
            let problem = "you may not get this gateway";
            return Err(Refusal::new(StatusCode::FORBIDDEN, problem));
        }
        let requests = try_join(
            self.may(token, about("get", "requests")),
            self.may(token, about("update", "requests")),
        );
        let ((requests, replay), edit) =
            try_join(requests, self.may(token, about("patch", ""))).await?;
        Ok(Rights {
            requests,
            replay,
            edit,
        })
    }

    /// Those of the gateways that he may see.
    pub(super) async fn seen(
        &self,
        token: &str,
        all: Vec<GatewayName>,
    ) -> Result<Vec<GatewayName>, Refusal> {
        let about = |namespace: &str| Question {
            verb: "get",
            subresource: "",
            namespace: namespace.to_owned(),
            name: String::new(),
        };
        if self.may(token, about("")).await? {
            return Ok(all);
        }
        let namespaces: BTreeSet<&str> = all.iter().map(|one| one.namespace.as_str()).collect();
        let asked = namespaces.into_iter().take(NAMESPACES_MAX);
        let asked = asked.map(async |namespace| {
            let may = self.may(token, about(namespace)).await?;
            Ok::<_, Refusal>(may.then(|| namespace.to_owned()))
        });
        let mut seen = BTreeSet::new();
        for answer in join_all(asked).await {
            seen.extend(answer?);
        }
        let mut gateways = all;
        gateways.retain(|one| seen.contains(&one.namespace));
        Ok(gateways)
    }

    async fn may(&self, token: &str, question: Question) -> Result<bool, Refusal> {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let asked = (hash, question);
        let said = match self.remembered(&asked) {
            Some(said) => said,
            None => {
                let said = self.review(token, &asked.1).await?;
                self.remember(asked, said);
                said
            }
        };
        match said {
            Said::Yes => Ok(true),
            Said::No => Ok(false),
            Said::Nobody => Err(unauthenticated("the token is not one of this cluster")),
        }
    }

    fn remembered(&self, asked: &Asked) -> Option<Said> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, said) = answers.get(asked)?;
        (at.elapsed() < REMEMBERED).then_some(*said)
    }

    fn remember(&self, asked: Asked, said: Said) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() >= ANSWERS_MAX {
            answers.retain(|_, (at, _)| at.elapsed() < REMEMBERED);
        }
        if answers.len() < ANSWERS_MAX {
            answers.insert(asked, (Instant::now(), said));
        }
    }

    async fn review(&self, token: &str, question: &Question) -> Result<Said, Refusal> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "group": GROUP, "resource": "gateways", "subresource": question.subresource,
                "verb": question.verb, "namespace": question.namespace, "name": question.name,
            }},
        });
        let said = self
            .call(token, Method::POST, REVIEWS, Some(&review))
            .await?;
        match said.status {
            status if status.is_success() => {
                let may = said.body["status"]["allowed"] == Value::Bool(true);
                Ok(if may { Said::Yes } else { Said::No })
            }
            StatusCode::UNAUTHORIZED => Ok(Said::Nobody),
            // Somebody who may not even ask may nothing.
            StatusCode::FORBIDDEN => Ok(Said::No),
            _ => Err(unavailable(&said.body)),
        }
    }

    /// Asks the API server in somebody's name. A `PATCH` is a merge patch.
    pub(super) async fn call(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<FromServer, Refusal> {
        let kind = if method == Method::PATCH {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
            .map_err(|_| unauthenticated("the token is not one of this cluster"))?;
        bearer.set_sensitive(true);
        let body = body.map_or_else(Body::empty, |body| {
            Body::from(body.to_string().into_bytes())
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(AUTHORIZATION, bearer)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, kind)
            .body(body)
            .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "there is no such object"))?;
        let asked = async {
            let _one = self.asking.acquire().await.ok()?;
            let answer = self.client.send(request).await;
            let answer = answer
                .inspect_err(|failure| warn!(%failure, "the API server was not reached"))
                .ok()?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
            let body = body.collect().await.ok()?.to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            Some(FromServer { status, body })
        };
        let said = timeout(REQUEST_TIMEOUT, asked).await.ok().flatten();
        said.ok_or_else(|| unavailable(&Value::Null))
    }
}

fn unavailable(said: &Value) -> Refusal {
    let why = said["message"].as_str().unwrap_or("it was not reached");
    let problem = format!("the API server does not answer: {why}");
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, &problem)
}
