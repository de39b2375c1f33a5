//! One connection to one server, on the client library; the only file that knows it.
//!
//! A link lives for one pass and is never used again after an error: nothing is repeated, redirected or waited for
//! behind the caller's back. Passwords are in `Connector` only and never shown.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, Server, ServerConfig, TlsConfig, TlsConnector,
    UnresponsiveConfig,
};
use fred::types::{Builder, ClusterHash, CustomCommand, RespVersion, Value};
use redis_protocol::resp3::types::BytesFrame;
use rustls::ClientConfig;
use tokio::task::AbortHandle;
use tokio::time::timeout;

/// Pods are one hop away; the rest is for a server that does not get a processor.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3);

/// How all servers of one Redis are reached; only the address differs.
#[derive(Clone)]
pub struct Connector {
    pub port: u16,
    pub username: Option<String>,
    pub password: Option<String>,
    pub tls: Option<Arc<ClientConfig>>,
    /// What certificates must name, when that is not the address.
    pub server_name: Option<String>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("port", &self.port)
            .field("username", &self.username)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// Why a server's answer is missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("not reached: {0}")]
    Connect(String),
    /// The server says so; the first word tells errors apart.
    #[error("refused: {0}")]
    Refused(String),
    #[error("no answer in time")]
    Timeout,
    #[error("connection lost: {0}")]
    Lost(String),
    #[error("an answer that is none")]
    Strange,
}

/// Cut when dropped.
pub(super) struct Link {
    client: Client,
    task: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Connector {
    #[must_use]
    pub fn address(&self, ip: IpAddr) -> SocketAddr {
        SocketAddr::new(ip, self.port)
    }

    pub(super) async fn connect(&self, ip: IpAddr) -> Result<Link, LinkError> {
        let failed = |error: Error| LinkError::Connect(describe(&error));
        let client = self.client(ip).map_err(failed)?;
        let task = match timeout(CONNECT_TIMEOUT * 2, client.init()).await {
            Ok(task) => task.map_err(failed)?.abort_handle(),
            Err(_) => return Err(LinkError::Timeout),
        };
        Ok(Link { client, task })
    }

    fn client(&self, ip: IpAddr) -> Result<Client, Error> {
        let host = ip.to_string();
        let server = match &self.server_name {
            Some(name) => Server::new_with_tls(host, self.port, Some(name.clone())),
            None => Server::new(host, self.port),
        };
        let tls = self.tls.as_ref().map(|config| {
            let connector = tokio_rustls::TlsConnector::from(Arc::clone(config));
            TlsConfig::from(TlsConnector::Rustls(connector))
        });
        let config = Config {
            fail_fast: true,
            username: self.username.clone(),
            password: self.password.clone(),
            // Never the library's cluster mode: each server is asked for its own view.
            server: ServerConfig::Centralized { server },
            version: RespVersion::RESP3,
            tls,
            ..Config::default()
        };
        Builder::from_config(config)
            .with_connection_config(|connection| {
                *connection = ConnectionConfig {
                    connection_timeout: CONNECT_TIMEOUT,
                    internal_command_timeout: CONNECT_TIMEOUT,
                    max_command_attempts: 1,
                    max_redirections: 1,
                    disable_cluster_health_check: true,
                    unresponsive: UnresponsiveConfig {
                        max_timeout: None,
                        ..UnresponsiveConfig::default()
                    },
                    ..ConnectionConfig::default()
                };
            })
            .with_performance_config(|performance| {
                *performance = PerformanceConfig {
                    default_command_timeout: COMMAND_TIMEOUT,
                    broadcast_channel_capacity: 4,
                    ..PerformanceConfig::default()
                };
            })
            .build()
    }
}

impl Link {
    pub(super) async fn call(&self, words: &[&str]) -> Result<Reply, LinkError> {
        let (name, args) = words.split_first().ok_or(LinkError::Strange)?;
        let command = CustomCommand::new(*name, ClusterHash::FirstKey, false);
        let args: Vec<Value> = args.iter().map(|word| Value::from(*word)).collect();
        // The library's own limit is the shorter one; this is for a library that stands still.
        let sent = timeout(COMMAND_TIMEOUT * 2, self.client.custom_raw(command, args)).await;
        match sent {
            Err(_) => Err(LinkError::Timeout),
            Ok(Ok(frame)) => Reply::from_frame(frame).map_err(LinkError::Refused),
            Ok(Err(error)) => Err(classify(&error)),
        }
    }

    /// Of a command that answers with a text.
    pub(super) async fn text(&self, words: &[&str]) -> Result<String, LinkError> {
        match self.call(words).await? {
            Reply::Text(text) => Ok(text),
            Reply::Nil | Reply::Integer(_) | Reply::List(_) => Err(LinkError::Strange),
        }
    }
}

/// The server's errors begin with a word in capitals; the library hands them on under many kinds.
fn classify(error: &Error) -> LinkError {
    let details = error.details();
    let word = details.split_ascii_whitespace().next().unwrap_or_default();
    if word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return LinkError::Refused(details.to_owned());
    }
    if matches!(error.kind(), ErrorKind::Timeout) {
        return LinkError::Timeout;
    }
    LinkError::Lost(describe(error))
}

fn describe(error: &Error) -> String {
    match error.details() {
        "" => error.kind().to_str().to_owned(),
        details => details.to_owned(),
    }
}

/// What a server answered, without the library's types. Maps are lists of keys and values in turn.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Reply {
    Nil,
    Integer(i64),
    Text(String),
    List(Vec<Reply>),
}

impl Reply {
    pub(super) fn list(&self) -> &[Reply] {
        match self {
            Self::List(list) => list,
            Self::Nil | Self::Integer(_) | Self::Text(_) => &[],
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Nil | Self::Integer(_) | Self::List(_) => None,
        }
    }

    /// `Err` is the text of an error reply.
    fn from_frame(frame: BytesFrame) -> Result<Self, String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let list = |frames: Vec<BytesFrame>| {
            let replies = frames.into_iter().map(Self::from_frame);
            replies.collect::<Result<_, _>>().map(Self::List)
        };
        Ok(match frame {
            BytesFrame::Null | BytesFrame::Hello { .. } => Self::Nil,
            BytesFrame::Number { data, .. } => Self::Integer(data),
            BytesFrame::Boolean { data, .. } => Self::Integer(i64::from(data)),
            BytesFrame::Double { data, .. } => Self::Text(data.to_string()),
            BytesFrame::BlobString { data, .. }
            | BytesFrame::SimpleString { data, .. }
            | BytesFrame::VerbatimString { data, .. }
            | BytesFrame::BigNumber { data, .. }
            | BytesFrame::ChunkedString(data) => Self::Text(text(&data)),
            BytesFrame::SimpleError { data, .. } => return Err(data.to_string()),
            BytesFrame::BlobError { data, .. } => return Err(text(&data)),
            BytesFrame::Array { data, .. } | BytesFrame::Push { data, .. } => return list(data),
            BytesFrame::Set { data, .. } => return list(data.into_iter().collect()),
            BytesFrame::Map { data, .. } => {
                return list(
                    data.into_iter()
                        .flat_map(|(key, value)| [key, value])
                        .collect(),
                );
            }
        })
    }
}
