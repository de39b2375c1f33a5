//! Answers of the server API as JSON.
//!
//! Shapes are Centrifugo's. A payload that is not JSON, as Protobuf clients may send, goes out as base64 in a field
//! with the prefix `b64`, so that an answer is always valid JSON.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use super::request::Method;
use crate::relay::codes;
use crate::relay::protocol::{self, ErrorReply};
use crate::store::{PresenceCount, Published, StoreError, StreamRead};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum ApiError {
    #[error("internal server error")]
    Internal,
    #[error("unknown channel")]
    UnknownChannel,
    #[error("not found")]
    NotFound,
    /// The answer would be larger than an answer may be.
    #[error("limit exceeded")]
    LimitExceeded,
    #[error("bad request")]
    BadRequest,
    #[error("not available")]
    NotAvailable,
    /// The channel's readers cannot take more now.
    #[error("too many requests")]
    TooManyRequests,
    #[error("unrecoverable position")]
    UnrecoverablePosition,
}

impl ApiError {
    pub(super) fn code(self) -> u32 {
        match self {
            Self::Internal => codes::ERROR_INTERNAL.code,
            Self::UnknownChannel => codes::ERROR_UNKNOWN_CHANNEL.code,
            Self::NotFound => codes::ERROR_METHOD_NOT_FOUND.code,
            Self::LimitExceeded => codes::ERROR_LIMIT_EXCEEDED.code,
            Self::BadRequest => codes::ERROR_BAD_REQUEST.code,
            Self::NotAvailable => codes::ERROR_NOT_AVAILABLE.code,
            Self::TooManyRequests => codes::ERROR_TOO_MANY_REQUESTS.code,
            Self::UnrecoverablePosition => codes::ERROR_UNRECOVERABLE_POSITION.code,
        }
    }

    /// For callers that want errors as HTTP statuses.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::UnknownChannel | Self::NotFound => StatusCode::NOT_FOUND,
            Self::LimitExceeded | Self::BadRequest | Self::NotAvailable => StatusCode::BAD_REQUEST,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::UnrecoverablePosition => StatusCode::RANGE_NOT_SATISFIABLE,
        }
    }

    pub(super) fn json(self) -> String {
        // The messages need no escaping.
        format!(r#"{{"code":{},"message":"{self}"}}"#, self.code())
    }
}

impl From<ErrorReply> for ApiError {
    fn from(error: ErrorReply) -> Self {
        match error.code {
            code if code == codes::ERROR_UNKNOWN_CHANNEL.code => Self::UnknownChannel,
            code if code == codes::ERROR_BAD_REQUEST.code => Self::BadRequest,
            _ => Self::Internal,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::Internal,
            StoreError::UnrecoverablePosition => Self::UnrecoverablePosition,
        }
    }
}

/// The JSON of a result, or the error in its place.
pub(super) type Answer = Result<String, ApiError>;

/// The result of commands that have nothing to say.
pub(super) const NOTHING: &str = "{}";

/// `{"result":…}` or `{"error":…}`.
pub(super) fn response(answer: &Answer) -> String {
    match answer {
        Ok(result) => format!(r#"{{"result":{result}}}"#),
        Err(error) => format!(r#"{{"error":{}}}"#, error.json()),
    }
}

/// An answer to the old form of the API, with the command's id.
pub(super) fn old_response(id: u32, answer: &Answer) -> String {
    let response = response(answer);
    if id == 0 {
        response
    } else {
        format!(r#"{{"id":{id},{}"#, &response[1..])
    }
}

/// An answer in a batch, under the name of its method.
pub(super) fn batch_reply(outcome: &Result<(Method, String), ApiError>) -> String {
    match outcome {
        Ok((method, result)) => format!(r#"{{"{}":{result}}}"#, method.name()),
        Err(error) => format!(r#"{{"error":{}}}"#, error.json()),
    }
}

/// An object with one array of JSON values.
pub(super) fn list(name: &str, values: &[String]) -> String {
    format!(r#"{{"{name}":[{}]}}"#, values.join(","))
}

fn encode(value: &impl Serialize) -> Answer {
    serde_json::to_string(value).map_err(|_| ApiError::Internal)
}

/// A payload under one of two names.
fn json_or_base64(payload: &[u8]) -> (Option<&RawValue>, Option<String>) {
    if payload.is_empty() {
        return (None, None);
    }
    match serde_json::from_slice(payload) {
        Ok(json) => (Some(json), None),
        Err(_) => (None, Some(STANDARD.encode(payload))),
    }
}

pub(super) fn published(published: &Published) -> Answer {
    #[derive(Default, Serialize)]
    struct Result<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
        #[serde(skip_serializing_if = "str::is_empty")]
        epoch: &'a str,
    }
    let position = published.position.as_ref();
    encode(&position.map_or_else(Result::default, |position| Result {
        offset: Some(position.offset).filter(|offset| *offset != 0),
        epoch: &position.epoch,
    }))
}

#[derive(Serialize)]
struct ClientInfo<'a> {
    user: &'a str,
    client: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    conn_info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64conn_info: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    chan_info: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    b64chan_info: Option<String>,
}

impl<'a> From<&'a protocol::ClientInfo> for ClientInfo<'a> {
    fn from(info: &'a protocol::ClientInfo) -> Self {
        let (conn_info, b64conn_info) = json_or_base64(&info.conn_info);
        let (chan_info, b64chan_info) = json_or_base64(&info.chan_info);
        Self {
            user: &info.user,
            client: &info.client,
            conn_info,
            b64conn_info,
            chan_info,
            b64chan_info,
        }
    }
}

pub(super) fn presence(clients: &[Arc<protocol::ClientInfo>]) -> Answer {
    #[derive(Serialize)]
    struct Result<'a> {
        presence: BTreeMap<&'a str, ClientInfo<'a>>,
    }
    let presence = clients
        .iter()
        .map(|info| (&*info.client, ClientInfo::from(&**info)))
        .collect();
    encode(&Result { presence })
}

pub(super) fn presence_stats(count: PresenceCount) -> String {
    format!(
        r#"{{"num_clients":{},"num_users":{}}}"#,
        count.clients, count.users
    )
}

pub(super) fn history(read: &StreamRead) -> Answer {
    #[derive(Serialize)]
    struct Publication<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        b64data: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        info: Option<ClientInfo<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        tags: BTreeMap<&'a str, &'a str>,
    }
    #[derive(Serialize)]
    struct Result<'a> {
        publications: Vec<Publication<'a>>,
        epoch: &'a str,
        offset: u64,
    }
    let publications = read.publications.iter().map(|publication| {
        let (data, b64data) = json_or_base64(&publication.data);
        Publication {
            data,
            b64data,
            info: publication.info.as_deref().map(ClientInfo::from),
            offset: Some(publication.offset).filter(|offset| *offset != 0),
            tags: publication
                .tags
                .iter()
                .map(|(key, value)| (&**key, &**value))
                .collect(),
        }
    });
    encode(&Result {
        publications: publications.collect(),
        epoch: &read.top.epoch,
        offset: read.top.offset,
    })
}

/// Clients by channel.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Channels {
    channels: BTreeMap<String, Channel>,
}

#[derive(Default, Serialize, Deserialize)]
struct Channel {
    num_clients: u32,
}

impl Channels {
    pub(super) fn add(&mut self, name: &str, num_clients: u32) {
        if let Some(channel) = self.channels.get_mut(name) {
            channel.num_clients = channel.num_clients.saturating_add(num_clients);
        } else {
            self.channels
                .insert(name.to_owned(), Channel { num_clients });
        }
    }

    /// Adds what another process has.
    pub(super) fn merge(&mut self, other: Self) {
        for (name, channel) in other.channels {
            self.add(&name, channel.num_clients);
        }
    }

    pub(super) fn json(&self) -> Answer {
        encode(self)
    }
}

/// This process.
#[derive(Serialize)]
pub(super) struct Node<'a> {
    pub(super) uid: &'a str,
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    pub(super) num_clients: usize,
    pub(super) num_users: usize,
    pub(super) num_channels: usize,
    /// Seconds.
    pub(super) uptime: u64,
    pub(super) num_subs: u64,
}

impl Node<'_> {
    pub(super) fn json(&self) -> Answer {
        encode(self)
    }
}
