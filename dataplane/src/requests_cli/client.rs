//! One question to the admin port, one answer. Errors are sentences for people.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// The gateway bounds its own work below this.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A page of requests, or one with its body.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

pub(super) struct Client {
    address: SocketAddr,
}

impl Client {
    pub(super) fn new(mut address: SocketAddr) -> Self {
        // What a gateway binds to is not always what one can connect to.
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Self { address }
    }

    pub(super) async fn get(&self, path: &str) -> Result<Value, String> {
        self.ask(Method::GET, path).await
    }

    pub(super) async fn post(&self, path: &str) -> Result<Value, String> {
        self.ask(Method::POST, path).await
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Value, String> {
        let (status, body) = tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(method, path))
            .await
            .map_err(|_| format!("no answer from the admin port {} in time", self.address))??;
        let value = serde_json::from_slice::<Value>(&body).ok();
        if status.is_success() {
            return value.ok_or_else(|| "the answer is not JSON".to_owned());
        }
        let problem = value.as_ref().and_then(|value| value["error"].as_str());
        Err(match (problem, status) {
            (Some(problem), _) => problem.to_owned(),
            (None, StatusCode::NOT_FOUND) => "this gateway has no ingest".to_owned(),
            (None, status) => format!("the admin port answers with status {}", status.as_u16()),
        })
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), String> {
        let failed = |failure: &dyn std::fmt::Display| {
            format!("no answer from the admin port {}: {failure}", self.address)
        };
        let stream = TcpStream::connect(self.address)
            .await
            .map_err(|failure| failed(&failure))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|failure| failed(&failure))?;
        let host = HeaderValue::try_from(self.address.to_string());
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, host.map_err(|failure| failed(&failure))?)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::new()))
            .map_err(|failure| failed(&failure))?;
        let answer = async {
            let response = sender
                .send_request(request)
                .await
                .map_err(|failure| failed(&failure))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect();
            let body = body.await.map_err(|failure| failed(&failure))?;
            Ok((status, body.to_bytes()))
        };
        tokio::pin!(answer);
        tokio::pin!(connection);
        // The connection has to be turned for the answer to come; its own end tells nothing more.
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            _ = &mut connection => answer.await,
        }
    }
}
