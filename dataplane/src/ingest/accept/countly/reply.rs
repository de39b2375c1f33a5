//! Replies in the words of Countly's servers. Pure.

use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use super::super::decision::{Content, Rejected, Reply};
use super::checksum::Mismatch;

pub const SUCCESS: &[u8] = br#"{"result":"Success"}"#;

/// A name of a function, perhaps within objects: anything else could be a script of its own.
const CALLBACK_BYTES_MAX: usize = 128;

/// How this client wants its replies.
#[derive(Default)]
pub struct Replies<'a> {
    callback: Option<&'a str>,
}

impl<'a> Replies<'a> {
    /// A callback that is no function's name is as none.
    pub fn to(callback: Option<&'a [u8]>) -> Self {
        let callback = callback.and_then(|callback| std::str::from_utf8(callback).ok());
        Self {
            callback: callback.filter(|callback| is_function_name(callback)),
        }
    }

    /// `None` stands for the success that almost everyone gets.
    pub fn success_unless_usual(&self) -> Option<Reply> {
        self.callback
            .map(|_| self.with_body(StatusCode::OK, None, Bytes::from_static(SUCCESS)))
    }

    pub fn dropped(&self, rejected: Rejected) -> Reply {
        self.with_body(StatusCode::OK, Some(rejected), Bytes::from_static(SUCCESS))
    }

    pub fn unknown(&self, why: Rejected) -> Reply {
        if why == Rejected::UnknownKeyDiscarded {
            self.dropped(why)
        } else {
            self.refuse(StatusCode::BAD_REQUEST, why, "App does not exist")
        }
    }

    pub fn missing_identity(&self) -> Reply {
        self.missing(r#"Missing parameter "app_key" or "device_id""#)
    }

    pub fn missing_parameter(&self, name: &str) -> Reply {
        self.missing(&format!("Missing parameter \"{name}\""))
    }

    pub fn missing_header(&self, name: &str) -> Reply {
        self.missing(&format!("Missing header \"{name}\""))
    }

    pub fn invalid_parameter(&self, name: &str) -> Reply {
        self.bad(&format!("Invalid parameter \"{name}\""))
    }

    pub fn bad(&self, text: &str) -> Reply {
        self.refuse(StatusCode::BAD_REQUEST, Rejected::InvalidField, text)
    }

    pub fn ignored_device(&self) -> Reply {
        self.refuse(
            StatusCode::OK,
            Rejected::IgnoredDevice,
            "Ignoring device_id",
        )
    }

    pub fn tampered(&self, mismatch: Mismatch) -> Reply {
        let text = match mismatch {
            Mismatch::Absent => "Request does not have checksum",
            Mismatch::Wrong => "Request does not match checksum",
        };
        self.refuse(StatusCode::OK, Rejected::Checksum, text)
    }

    fn missing(&self, text: &str) -> Reply {
        self.refuse(StatusCode::BAD_REQUEST, Rejected::MissingField, text)
    }

    fn refuse(&self, status: StatusCode, rejected: Rejected, text: &str) -> Reply {
        self.with_body(status, Some(rejected), result(text))
    }

    fn with_body(&self, status: StatusCode, rejected: Option<Rejected>, body: Bytes) -> Reply {
        let (content, body) = match self.callback {
            None => (Content::Json, body),
            Some(callback) => {
                let call = [callback.as_bytes(), b"(", &body, b")"].concat();
                (Content::JavaScript, call.into())
            }
        };
        Reply {
            status,
            content,
            body,
            rejected,
        }
    }
}

fn is_function_name(name: &str) -> bool {
    let is_part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '$')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '$')
    };
    name.len() <= CALLBACK_BYTES_MAX && name.split('.').all(is_part)
}

fn result(text: &str) -> Bytes {
    json!({ "result": text }).to_string().into()
}

/// A failure that no dialect decided.
pub fn problem(text: &str) -> Bytes {
    result(text)
}

pub fn preflight() -> Reply {
    Reply {
        status: StatusCode::OK,
        content: Content::Nothing,
        body: Bytes::new(),
        rejected: None,
    }
}

pub fn method_not_allowed() -> Reply {
    Replies::default().refuse(
        StatusCode::METHOD_NOT_ALLOWED,
        Rejected::Method,
        "Method not allowed",
    )
}

pub fn no_such_path() -> Reply {
    Replies::default().refuse(StatusCode::NOT_FOUND, Rejected::Path, "Invalid path")
}
