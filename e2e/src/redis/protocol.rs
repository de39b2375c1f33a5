//! The little of RESP2 that a test needs to ask a server something: one request, one reply.
//!
//! On purpose not the client library of the data plane, whose view of the servers is what is tested.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than a server that is there takes on a busy machine.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resp {
    Simple(String),
    /// Inside an array only: as a whole reply it is `CallError::Refused`.
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    Nil,
    Array(Vec<Resp>),
}

impl Resp {
    /// A number, also one that stands in a string.
    #[must_use]
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(n) => Some(*n),
            Self::Simple(_) | Self::Bulk(_) => self.to_string().parse().ok(),
            Self::Error(_) | Self::Nil | Self::Array(_) => None,
        }
    }

    /// The elements of an array; nothing for any other reply.
    #[must_use]
    pub fn items(&self) -> &[Resp] {
        match self {
            Self::Array(items) => items,
            Self::Simple(_) | Self::Error(_) | Self::Int(_) | Self::Bulk(_) | Self::Nil => &[],
        }
    }
}

/// The text of a reply; elements are set apart by spaces.
impl fmt::Display for Resp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) | Self::Error(text) => f.write_str(text),
            Self::Int(n) => write!(f, "{n}"),
            Self::Bulk(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Self::Nil => f.write_str("(nil)"),
            Self::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    let gap = if i == 0 { "" } else { " " };
                    write!(f, "{gap}{item}")?;
                }
                Ok(())
            }
        }
    }
}

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server answered with an error.
    #[error("{0}")]
    Refused(String),
    #[error("no answer from redis: {0}")]
    Connection(#[from] io::Error),
    #[error("no answer from redis in time")]
    Timeout,
}

/// Asks a server, whoever started it, once and over a connection of its own, with a password or a user and a password.
pub async fn ask(
    address: SocketAddr,
    credentials: &[&str],
    words: &[&str],
) -> Result<Resp, CallError> {
    let asked = async {
        let stream = TcpStream::connect(address).await?;
        let mut connection = Connection::new(Box::new(stream));
        connection.call(&[&["AUTH"], credentials].concat()).await?;
        connection.call(words).await
    };
    let answered = timeout(ASK_TIMEOUT, asked).await;
    answered.unwrap_or(Err(CallError::Timeout))
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A connection for one request at a time.
pub(crate) struct Connection(BufReader<Box<dyn Stream>>);

impl Connection {
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        Self(BufReader::new(stream))
    }

    pub(crate) async fn call(&mut self, words: &[&str]) -> Result<Resp, CallError> {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        self.0.get_mut().write_all(&request).await?;
        self.0.get_mut().flush().await?;
        match self.reply().await? {
            Resp::Error(text) => Err(CallError::Refused(text)),
            reply @ (Resp::Simple(_)
            | Resp::Int(_)
            | Resp::Bulk(_)
            | Resp::Nil
            | Resp::Array(_)) => Ok(reply),
        }
    }

    async fn reply(&mut self) -> io::Result<Resp> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).ok_or_else(|| strange(line))?;
        Ok(match kind {
            "+" => Resp::Simple(rest.to_owned()),
            "-" => Resp::Error(rest.to_owned()),
            ":" => Resp::Int(rest.parse().map_err(|_| strange(line))?),
            "$" | "*" if rest == "-1" => Resp::Nil,
            "$" => {
                let length: usize = rest.parse().map_err(|_| strange(line))?;
                let mut bytes = vec![0; length + 2];
                self.0.read_exact(&mut bytes).await?;
                bytes.truncate(length);
                Resp::Bulk(bytes)
            }
            "*" => {
                let count: usize = rest.parse().map_err(|_| strange(line))?;
                let mut items = Vec::new();
                for _ in 0..count {
                    items.push(Box::pin(self.reply()).await?);
                }
                Resp::Array(items)
            }
            _ => return Err(strange(line)),
        })
    }
}

fn strange(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not RESP: {line}"))
}
