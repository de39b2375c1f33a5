//! Calls that need the upstream's own answer: from the worker that took them to the delivery thread and back.
//!
//! They are not queued and not retried. They take their places from a reserved part of the upstream's limits.

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use http_body_util::combinators::BoxBody;
use sluice_crds::config::Application;
use tokio::sync::{mpsc, oneshot};

use super::entry::StoredRequest;

/// The upstream's body, streamed.
pub type Body = BoxBody<Bytes, ProxyError>;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// No upstream can take it now: 503 with Retry-After.
    #[error("no upstream can take the call now")]
    Busy,
    /// The upstream did not answer in time: 504.
    #[error("the upstream did not answer in time")]
    Timeout,
    /// The connection failed, or broke in the middle: 502.
    #[error("the upstream failed: {0}")]
    Failed(Arc<str>),
}

pub struct Call {
    pub request: StoredRequest,
    /// `None`: unknown, the gateway's upstreams.
    pub application: Option<Arc<Application>>,
    pub reply: oneshot::Sender<Result<Response<Body>, ProxyError>>,
}

/// Calls on their way to the delivery thread: more than this many waiting means that it cannot keep up.
const WAITING_CALLS_MAX: usize = 1024;

#[derive(Clone)]
pub struct Proxy(mpsc::Sender<Call>);

impl Proxy {
    pub fn new() -> (Self, mpsc::Receiver<Call>) {
        let (sender, receiver) = mpsc::channel(WAITING_CALLS_MAX);
        (Self(sender), receiver)
    }

    pub async fn call(
        &self,
        request: StoredRequest,
        application: Option<Arc<Application>>,
    ) -> Result<Response<Body>, ProxyError> {
        let (reply, answer) = oneshot::channel();
        let call = Call {
            request,
            application,
            reply,
        };
        self.0.try_send(call).map_err(|_| ProxyError::Busy)?;
        answer.await.unwrap_or(Err(ProxyError::Busy))
    }
}
