//! What a dialect decides about a request, and what it decides by. Pure.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::table::Tenant;
use crate::store::queue::OrderingKey;

/// Why a request was neither queued nor answered by an upstream; a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rejected {
    /// Not HTTP as its RFCs have it.
    Malformed,
    Path,
    Method,
    MissingField,
    InvalidField,
    UnknownKey,
    /// Of an unknown key, answered with success and dropped as the user wishes.
    UnknownKeyDiscarded,
    Checksum,
    /// Device ids that stand for "tracking is off".
    IgnoredDevice,
    /// A bulk request in which nothing can be used.
    EmptyBulk,
    BodyTooLarge,
    BodyTooSlow,
    /// The client went away, or its body was not what it had announced.
    BodyBroken,
    Concurrency,
    BodyMemory,
    Overload,
    QueueFull,
    QueueUnavailable,
}

impl Rejected {
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "Malformed",
            Self::Path => "Path",
            Self::Method => "Method",
            Self::MissingField => "MissingField",
            Self::InvalidField => "InvalidField",
            Self::UnknownKey => "UnknownKey",
            Self::UnknownKeyDiscarded => "UnknownKeyDiscarded",
            Self::Checksum => "Checksum",
            Self::IgnoredDevice => "IgnoredDevice",
            Self::EmptyBulk => "EmptyBulk",
            Self::BodyTooLarge => "BodyTooLarge",
            Self::BodyTooSlow => "BodyTooSlow",
            Self::BodyBroken => "BodyBroken",
            Self::Concurrency => "Concurrency",
            Self::BodyMemory => "BodyMemory",
            Self::Overload => "Overload",
            Self::QueueFull => "QueueFull",
            Self::QueueUnavailable => "QueueUnavailable",
        }
    }
}

/// A request as dialects see it.
#[derive(Clone, Copy)]
pub struct Incoming<'a> {
    pub method: &'a Method,
    /// Without `?`; empty when there is none.
    pub query: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    Json,
    JavaScript,
    /// No body at all.
    Nothing,
}

/// An answer made here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: StatusCode,
    pub content: Content,
    pub body: Bytes,
    /// `None`: an answer to a question, or the success of a queued request.
    pub rejected: Option<Rejected>,
}

/// Where a request is to be queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routed<'a> {
    pub tenant: &'a Tenant,
    pub key: OrderingKey,
    pub barrier: OrderingKey,
    pub cost: u32,
    /// Once the queue holds it; `None`: the dialect's usual answer.
    pub success: Option<Reply>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Decision<'a> {
    Queue(Routed<'a>),
    /// The caller wants the upstream's own answer. `None`: it cannot be told whose call it is.
    Proxy(Option<&'a Tenant>),
    Reply(Reply),
}
