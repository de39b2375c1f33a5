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

pub(crate) struct Client {
    address: SocketAddr,
}

impl Client {
    pub(crate) fn new(mut address: SocketAddr) -> Self {
        // What a gateway binds to is not always what one can connect to.
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        Self { address }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, String> {
        self.ask(Method::GET, path).await
    }

    pub(crate) async fn post(&self, path: &str) -> Result<Value, String> {
        self.ask(Method::POST, path).await
    }

    /// What is no JSON. `None`: there is no such path.
    pub(crate) async fn text(&self, path: &str) -> Result<Option<String>, String> {
        let (status, body) = self.answer(Method::GET, path).await?;
        match status {
            StatusCode::OK => Ok(Some(String::from_utf8_lossy(&body).into_owned())),
            StatusCode::NOT_FOUND => Ok(None),
            status => Err(refusal(status)),
        }
    }

    async fn answer(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), String> {
        tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(method, path))
            .await
            .map_err(|_| format!("no answer from the admin port {} in time", self.address))?
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Value, String> {
        let (status, body) = self.answer(method, path).await?;
        let value = serde_json::from_slice::<Value>(&body).ok();
        if status.is_success() {
            return value.ok_or_else(|| "the answer is not JSON".to_owned());
        }
        let problem = value.as_ref().and_then(|value| value["error"].as_str());
        Err(match (problem, status) {
            (Some(problem), _) => problem.to_owned(),
            (None, StatusCode::NOT_FOUND) => "this gateway has no ingest".to_owned(),
            (None, status) => refusal(status),
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

fn refusal(status: StatusCode) -> String {
    format!("the admin port answers with status {}", status.as_u16())
}
