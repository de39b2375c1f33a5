//! The bytes of a subscription connection: how it is opened, what commands and events look like.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use redis_protocol::codec::Resp3;
use redis_protocol::resp3::types::BytesFrame;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::codec::FramedRead;

use crate::store::redis::limits::CONNECT_TIMEOUT;
use crate::store::redis::settings::Settings;
use crate::store::redis::topology::Address;

/// What is read at once; a longer frame makes it grow for as long as it takes.
const READ_BYTES: usize = 16 << 10;

pub(super) type Incoming = FramedRead<Box<dyn AsyncRead + Send + Unpin>, Resp3>;
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;
pub(super) type Connection = (Incoming, Writer);

/// What a server says by itself or in answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    /// Channel and payload.
    Message(Bytes, Bytes),
    Subscribed(Bytes),
    Unsubscribed(Bytes),
    Refusal(String),
    /// Of no meaning but that the server lives.
    Life,
}

/// Connects and says hello, within [`CONNECT_TIMEOUT`].
pub(super) async fn open(address: &Address, settings: &Settings) -> Result<Connection, String> {
    let opened = timeout(CONNECT_TIMEOUT, async {
        let (incoming, writer) = dial(address, settings).await?;
        greet(incoming, writer, settings).await
    });
    opened.await.map_err(|_| "no answer".to_owned())?
}

async fn dial(address: &Address, settings: &Settings) -> Result<Connection, String> {
    let tcp = TcpStream::connect((&*address.host, address.port)).await;
    let tcp = tcp.map_err(|error| error.to_string())?;
    tcp.set_nodelay(true).map_err(|error| error.to_string())?;
    let Some(tls) = &settings.tls else {
        let (read, write) = tcp.into_split();
        return Ok((framed(Box::new(read)), Box::new(write)));
    };
    let name = tls.server_name.as_deref().unwrap_or(&address.host);
    let name = ServerName::try_from(name.to_owned()).map_err(|error| error.to_string())?;
    let connector = TlsConnector::from(Arc::clone(&tls.client));
    let stream = connector.connect(name, tcp).await;
    let (read, write) = tokio::io::split(stream.map_err(|error| error.to_string())?);
    Ok((framed(Box::new(read)), Box::new(write)))
}

fn framed(read: Box<dyn AsyncRead + Send + Unpin>) -> Incoming {
    FramedRead::with_capacity(read, Resp3::default(), READ_BYTES)
}

async fn greet(
    mut incoming: Incoming,
    mut writer: Writer,
    settings: &Settings,
) -> Result<Connection, String> {
    let mut words: Vec<&[u8]> = vec![b"HELLO", b"3"];
    if let Some(password) = &settings.password {
        let username = settings.username.as_deref().unwrap_or("default");
        words.extend([b"AUTH", username.as_bytes(), password.expose()]);
    }
    let mut text = BytesMut::new();
    command(&mut text, &words);
    let write = async {
        writer.write_all(&text).await?;
        writer.flush().await
    };
    write.await.map_err(|error| error.to_string())?;
    match incoming.next().await {
        None => Err("closed".to_owned()),
        Some(Err(error)) => Err(error.to_string()),
        Some(Ok(frame)) => match heard(frame) {
            Heard::Refusal(error) => Err(error),
            Heard::Message(..) | Heard::Subscribed(_) | Heard::Unsubscribed(_) | Heard::Life => {
                Ok((incoming, writer))
            }
        },
    }
}

/// Appends a command in the form that servers take.
pub(super) fn command(text: &mut BytesMut, words: &[&[u8]]) {
    let length: usize = words.iter().map(|word| word.len() + 16).sum();
    text.reserve(length + 16);
    text.put_slice(format!("*{}\r\n", words.len()).as_bytes());
    for word in words {
        text.put_slice(format!("${}\r\n", word.len()).as_bytes());
        text.put_slice(word);
        text.put_slice(b"\r\n");
    }
}

pub(super) fn heard(frame: BytesFrame) -> Heard {
    match frame {
        BytesFrame::SimpleError { data, .. } => Heard::Refusal(data.to_string()),
        BytesFrame::BlobError { data, .. } => {
            Heard::Refusal(String::from_utf8_lossy(&data).into_owned())
        }
        BytesFrame::Push { data, .. } => pushed(data).unwrap_or(Heard::Life),
        BytesFrame::Array { .. }
        | BytesFrame::BigNumber { .. }
        | BytesFrame::BlobString { .. }
        | BytesFrame::Boolean { .. }
        | BytesFrame::ChunkedString(_)
        | BytesFrame::Double { .. }
        | BytesFrame::Hello { .. }
        | BytesFrame::Map { .. }
        | BytesFrame::Null
        | BytesFrame::Number { .. }
        | BytesFrame::Set { .. }
        | BytesFrame::SimpleString { .. }
        | BytesFrame::VerbatimString { .. } => Heard::Life,
    }
}

fn pushed(data: Vec<BytesFrame>) -> Option<Heard> {
    let mut words = data.into_iter();
    let kind = words.next().and_then(text_of)?;
    let channel = words.next().and_then(text_of)?;
    match &kind[..] {
        b"smessage" => Some(Heard::Message(channel, words.next().and_then(text_of)?)),
        b"ssubscribe" => Some(Heard::Subscribed(channel)),
        b"sunsubscribe" => Some(Heard::Unsubscribed(channel)),
        _ => None,
    }
}

fn text_of(frame: BytesFrame) -> Option<Bytes> {
    if let BytesFrame::BlobString { data, .. } | BytesFrame::SimpleString { data, .. } = frame {
        Some(data)
    } else {
        None
    }
}
