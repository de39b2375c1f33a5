//! What a server answered, without the client library's types.

use bytes::Bytes;
use redis_protocol::resp3::types::BytesFrame;

/// An answer that is no error. Maps are lists of keys and values in turn.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    Nil,
    Integer(i64),
    Bytes(Bytes),
    List(Vec<Reply>),
}

impl Reply {
    /// `Err` holds the text of an error reply.
    pub(super) fn from_frame(frame: BytesFrame) -> Result<Self, String> {
        let text = |bytes: Bytes| String::from_utf8_lossy(&bytes).into_owned();
        let list = |frames: Vec<BytesFrame>| {
            let replies = frames.into_iter().map(Self::from_frame);
            replies.collect::<Result<_, _>>().map(Self::List)
        };
        Ok(match frame {
            BytesFrame::Null => Self::Nil,
            BytesFrame::Number { data, .. } => Self::Integer(data),
            BytesFrame::Boolean { data, .. } => Self::Integer(i64::from(data)),
            BytesFrame::BlobString { data, .. }
            | BytesFrame::SimpleString { data, .. }
            | BytesFrame::VerbatimString { data, .. }
            | BytesFrame::BigNumber { data, .. }
            | BytesFrame::ChunkedString(data) => Self::Bytes(data),
            BytesFrame::Double { data, .. } => Self::Bytes(data.to_string().into()),
            BytesFrame::SimpleError { data, .. } => return Err(data.to_string()),
            BytesFrame::BlobError { data, .. } => return Err(text(data)),
            BytesFrame::Array { data, .. } | BytesFrame::Push { data, .. } => return list(data),
            BytesFrame::Set { data, .. } => return list(data.into_iter().collect()),
            BytesFrame::Map { data, .. } => {
                return list(
                    data.into_iter()
                        .flat_map(|(key, value)| [key, value])
                        .collect(),
                );
            }
            BytesFrame::Hello { .. } => Self::Nil,
        })
    }

    pub fn integer(&self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(*number),
            Self::Bytes(bytes) => std::str::from_utf8(bytes).ok()?.parse().ok(),
            Self::Nil | Self::List(_) => None,
        }
    }

    pub fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Nil | Self::Integer(_) | Self::List(_) => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(self.bytes()?).ok()
    }

    /// An empty slice for anything else than a list.
    pub fn list(&self) -> &[Reply] {
        match self {
            Self::List(list) => list,
            Self::Nil | Self::Integer(_) | Self::Bytes(_) => &[],
        }
    }

    pub fn into_list(self) -> Vec<Reply> {
        match self {
            Self::List(list) => list,
            Self::Nil | Self::Integer(_) | Self::Bytes(_) => Vec::new(),
        }
    }
}
