//! A client of the HTTP server API.

use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http::{self, Answer};
use crate::manifest::API_KEY;

/// Calls one server's API with the key of the test manifests.
#[derive(Debug, Clone, Copy)]
pub struct Api(pub SocketAddr);

impl Api {
    /// The HTTP answer to a call.
    pub async fn post(&self, method: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
        let mut all = vec![("Content-Type", "application/json")];
        all.extend_from_slice(headers);
        http::request(
            self.0,
            "POST",
            &format!("/api/{method}"),
            &all,
            body.as_bytes(),
        )
        .await
    }

    /// The whole reply: `{"result": ...}` or `{"error": ...}`.
    pub async fn reply(&self, method: &str, request: Value) -> Result<Value> {
        let answer = self
            .post(method, &[("X-API-Key", API_KEY)], &request.to_string())
            .await?;
        if answer.status != 200 {
            bail!("{method}: HTTP {}: {}", answer.status, answer.text());
        }
        answer.json()
    }

    /// The result; an error reply is an error.
    pub async fn call(&self, method: &str, request: Value) -> Result<Value> {
        let mut reply = self.reply(method, request).await?;
        match reply.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => bail!("{method}: {reply}"),
        }
    }

    /// The code of the error reply.
    pub async fn error(&self, method: &str, request: Value) -> Result<u64> {
        let reply = self.reply(method, request).await?;
        reply["error"]["code"]
            .as_u64()
            .with_context(|| format!("{method} gave no error: {reply}"))
    }
}
