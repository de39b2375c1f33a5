//! One connection to one server, on the client library; the only file that knows it.
//!
//! A link that misbehaved once (no answer in time, an input error, `CLUSTERDOWN`) is *dead*: it is cut at once, what was in
//! flight on it ends with [`Fault::Unknown`], and its owner makes a new one. The library's own ways of recovering are
//! all switched off (the feature `custom-reconnect-errors` has to stay off too): it waits for servers that are gone and repeats what must not be repeated.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike;
use fred::types::config::{
    Config, ConnectionConfig, PerformanceConfig, Server, ServerConfig, TcpConfig, TlsConfig,
    TlsConnector, UnresponsiveConfig,
};
use fred::types::{Builder, ClusterHash, CustomCommand, RespVersion, Value};
use tokio::task::AbortHandle;

use super::limits::{COMMAND_TIMEOUT, CONNECT_TIMEOUT};
use super::reply::Reply;
use super::settings::Settings;
use super::topology::Address;

/// Why a command got no answer that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The server did not carry it out, and says where or when to try again.
    NotDone(Hint),
    /// It may have been carried out, or not. The link is dead.
    Unknown(String),
    /// The server refused it for good: the text of its error.
    Refused(String),
}

/// What a server that did not carry a command out said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// The slot's owner is elsewhere.
    Moved(String),
    /// This once, elsewhere: the slot is on the move.
    Ask(String),
    NoScript,
    /// Not now: loading, no replica in reach, a replica itself.
    Later(String),
}

pub(super) struct Link {
    client: Client,
    abort: AbortHandle,
    dead: Arc<AtomicBool>,
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Moved(text) | Self::Ask(text) | Self::Later(text) => f.write_str(text),
            Self::NoScript => f.write_str("script not known"),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Link {
    /// Gives up after [`CONNECT_TIMEOUT`], also with a server that takes connections and says nothing.
    pub(super) async fn connect(address: &Address, settings: &Settings) -> Result<Self, String> {
        let client = build(address, settings).map_err(|error| describe(&error))?;
        let task = client.init().await.map_err(|error| describe(&error))?;
        let abort = task.abort_handle();
        let dead = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&dead);
        // The library's handle goes on taking commands after its task has ended.
        tokio::spawn(async move {
            let _ = task.await;
            ended.store(true, Ordering::Relaxed);
        });
        Ok(Self {
            client,
            abort,
            dead,
        })
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Cuts the connection at once.
    pub(super) fn kill(&self) {
        self.dead.store(true, Ordering::Relaxed);
        self.abort.abort();
    }

    /// One command; its answer within [`COMMAND_TIMEOUT`].
    pub(super) async fn send(
        &self,
        command: &'static str,
        args: Vec<Bytes>,
    ) -> Result<Reply, Fault> {
        if self.is_dead() {
            return Err(Fault::NotDone(Hint::Later("connection lost".to_owned())));
        }
        let args: Vec<Value> = args.into_iter().map(Value::Bytes).collect();
        let command = CustomCommand::new_static(command, ClusterHash::FirstKey, false);
        // The library's own timeout is the shorter one; this is for the case that its task stands still.
        let sent = tokio::time::timeout(COMMAND_TIMEOUT * 2, self.client.custom_raw(command, args));
        let error = match sent.await {
            Err(_) => "no answer".to_owned(),
            Ok(Ok(frame)) => match Reply::from_frame(frame) {
                Ok(reply) => return Ok(reply),
                Err(error) => error,
            },
            Ok(Err(error)) => {
                // Kinds are no classes: many server errors are `Unknown`. The text is the server's.
                let is_local = matches!(
                    error.kind(),
                    ErrorKind::Timeout
                        | ErrorKind::IO
                        | ErrorKind::Canceled
                        | ErrorKind::Backpressure
                );
                if is_local {
                    self.kill();
                    return Err(Fault::Unknown(describe(&error)));
                }
                error.details().to_owned()
            }
        };
        let fault = classify(error);
        if matches!(fault, Fault::Unknown(_)) {
            self.kill();
        }
        Err(fault)
    }
}

/// What an error's text means.
fn classify(error: String) -> Fault {
    let word = error.split_ascii_whitespace().next().unwrap_or_default();
    match word {
        "MOVED" => Fault::NotDone(Hint::Moved(error)),
        "ASK" => Fault::NotDone(Hint::Ask(error)),
        "NOSCRIPT" => Fault::NotDone(Hint::NoScript),
        "READONLY" | "LOADING" | "MASTERDOWN" | "TRYAGAIN" | "NOREPLICAS" => {
            Fault::NotDone(Hint::Later(error))
        }
        // The library hands this answer to commands as well that the server carried out.
        "CLUSTERDOWN" => Fault::Unknown(error),
        // The server's errors begin with a word in capitals; anything else is the library's.
        _ if word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_uppercase()) => {
            Fault::Refused(error)
        }
        _ => Fault::Unknown(error),
    }
}

fn build(address: &Address, settings: &Settings) -> Result<Client, Error> {
    let tls = settings.tls.as_ref().map(|tls| {
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&tls.client));
        TlsConfig::from(TlsConnector::Rustls(connector))
    });
    let server = match settings
        .tls
        .as_ref()
        .and_then(|tls| tls.server_name.clone())
    {
        Some(name) => Server::new_with_tls(&*address.host, address.port, Some(name)),
        None => Server::new(&*address.host, address.port),
    };
    let config = Config {
        fail_fast: true,
        username: settings.username.clone(),
        password: settings
            .password
            .as_ref()
            .map(|password| String::from_utf8_lossy(password.expose()).into_owned()),
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
                // Far above what callers have in flight: a refused command would leave the library's counter wrong.
                max_command_buffer_len: 0,
                disable_cluster_health_check: true,
                unresponsive: UnresponsiveConfig {
                    max_timeout: None,
                    ..UnresponsiveConfig::default()
                },
                tcp: TcpConfig {
                    nodelay: Some(true),
                    ..TcpConfig::default()
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

fn describe(error: &Error) -> String {
    let details = error.details();
    if details.is_empty() {
        error.kind().to_str().to_owned()
    } else {
        details.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_classified_by_their_first_word() {
        let moved = "MOVED 3999 127.0.0.1:6381";
        assert_eq!(
            classify(moved.to_owned()),
            Fault::NotDone(Hint::Moved(moved.to_owned()))
        );
        for later in [
            "READONLY You can't write",
            "LOADING Redis is loading",
            "NOREPLICAS Not enough",
        ] {
            assert!(
                matches!(classify(later.to_owned()), Fault::NotDone(Hint::Later(_))),
                "{later}"
            );
        }
        for unknown in [
            "CLUSTERDOWN The cluster is down",
            "channel closed",
            "",
            "Connection reset",
        ] {
            assert!(
                matches!(classify(unknown.to_owned()), Fault::Unknown(_)),
                "{unknown}"
            );
        }
        for refused in [
            "ERR wrong number",
            "OOM command not allowed",
            "WRONGTYPE x",
            "MISCONF y",
        ] {
            assert!(
                matches!(classify(refused.to_owned()), Fault::Refused(_)),
                "{refused}"
            );
        }
    }
}
