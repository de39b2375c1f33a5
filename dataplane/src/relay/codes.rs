//! Error, unsubscribe and disconnect codes of the client protocol.
//!
//! Disconnect codes 3000-3499 and 4000-4499 make SDKs reconnect, 3500-3999 and 4500-4999 are terminal. Load
//! shedding uses only codes of the first kind.

use super::protocol::ErrorReply;

const fn error(code: u32, message: &'static str, temporary: bool) -> ErrorReply {
    ErrorReply {
        code,
        message,
        temporary,
    }
}

pub const ERROR_INTERNAL: ErrorReply = error(100, "internal server error", true);
pub const ERROR_UNKNOWN_CHANNEL: ErrorReply = error(102, "unknown channel", false);
pub const ERROR_PERMISSION_DENIED: ErrorReply = error(103, "permission denied", false);
pub const ERROR_METHOD_NOT_FOUND: ErrorReply = error(104, "method not found", false);
pub const ERROR_ALREADY_SUBSCRIBED: ErrorReply = error(105, "already subscribed", false);
pub const ERROR_LIMIT_EXCEEDED: ErrorReply = error(106, "limit exceeded", false);
pub const ERROR_BAD_REQUEST: ErrorReply = error(107, "bad request", false);
pub const ERROR_NOT_AVAILABLE: ErrorReply = error(108, "not available", false);
pub const ERROR_TOKEN_EXPIRED: ErrorReply = error(109, "token expired", false);
pub const ERROR_TOO_MANY_REQUESTS: ErrorReply = error(111, "too many requests", true);
pub const ERROR_UNRECOVERABLE_POSITION: ErrorReply = error(112, "unrecoverable position", false);

/// Why the server closes a connection; sent in the WebSocket close frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disconnect {
    pub code: u16,
    pub reason: std::borrow::Cow<'static, str>,
}

const fn disconnect(code: u16, reason: &'static str) -> Disconnect {
    Disconnect {
        code,
        reason: std::borrow::Cow::Borrowed(reason),
    }
}

pub const DISCONNECT_SHUTDOWN: Disconnect = disconnect(3001, "shutdown");
pub const DISCONNECT_EXPIRED: Disconnect = disconnect(3005, "connection expired");
pub const DISCONNECT_SUB_EXPIRED: Disconnect = disconnect(3006, "subscription expired");
pub const DISCONNECT_SLOW: Disconnect = disconnect(3008, "slow");
pub const DISCONNECT_INSUFFICIENT_STATE: Disconnect = disconnect(3010, "insufficient state");
/// Somewhere else: SDKs connect again as after a lost connection.
pub const DISCONNECT_FORCE_RECONNECT: Disconnect = disconnect(3011, "force reconnect");
pub const DISCONNECT_NO_PONG: Disconnect = disconnect(3012, "no pong");
pub const DISCONNECT_TOO_MANY_REQUESTS: Disconnect = disconnect(3013, "too many requests");
pub const DISCONNECT_INVALID_TOKEN: Disconnect = disconnect(3500, "invalid token");
pub const DISCONNECT_BAD_REQUEST: Disconnect = disconnect(3501, "bad request");
pub const DISCONNECT_STALE: Disconnect = disconnect(3502, "stale");
pub const DISCONNECT_FORCE: Disconnect = disconnect(3503, "force disconnect");
pub const DISCONNECT_INAPPROPRIATE_PROTOCOL: Disconnect =
    disconnect(3506, "inappropriate protocol");
pub const DISCONNECT_NOT_AVAILABLE: Disconnect = disconnect(3508, "not available");
/// WebSocket's own codes.
pub const CLOSE_NORMAL: Disconnect = disconnect(1000, "");
pub const CLOSE_PROTOCOL_ERROR: Disconnect = disconnect(1002, "protocol error");
pub const CLOSE_INVALID_PAYLOAD: Disconnect = disconnect(1007, "invalid utf-8");
pub const CLOSE_TOO_BIG: Disconnect = disconnect(1009, "message size limit");

/// Unsubscribe push codes: from 2500 on SDKs subscribe again by themselves.
pub const UNSUBSCRIBE_SERVER: (u32, &str) = (2000, "server unsubscribe");
pub const UNSUBSCRIBE_INSUFFICIENT: (u32, &str) = (2500, "insufficient state");
pub const UNSUBSCRIBE_EXPIRED: (u32, &str) = (2501, "subscription expired");
