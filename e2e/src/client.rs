//! A raw client of the relay's JSON protocol: sends what a test says, checks nothing by itself.
//!
//! The SDKs hide codes and order; tests that need them exactly use this. It answers pings unless told not to,
//! and keeps pushes that arrive while a reply is awaited. It never reconnects.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

/// Longer than any reply takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How the server closed a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Close {
    pub code: u16,
    pub reason: String,
}

/// An answer to the upgrade request that is no upgrade.
#[derive(Debug, Clone)]
pub struct Refused {
    pub status: u16,
    pub retry_after: Option<String>,
}

/// A byte stream under a WebSocket: TCP or TLS.
trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Pipe for T {}

/// What arrives on a connection.
#[derive(Debug)]
enum Arrival {
    Messages(Vec<Value>),
    Close(Close),
}

/// One connection.
pub struct Client {
    socket: WebSocketStream<Box<dyn Pipe>>,
    next_id: u32,
    arrived: VecDeque<Value>,
    close: Option<Close>,
    /// Answer pings; a test of the pong timeout turns it off.
    pub pongs: bool,
    /// Server pings seen so far.
    pub pings: usize,
}

impl Client {
    /// Opens the WebSocket and sends nothing.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        match Self::try_open(address).await? {
            Ok(client) => Ok(client),
            Err(refused) => bail!("upgrade refused: {refused:?}"),
        }
    }

    /// Opens the WebSocket, or tells how the upgrade was refused.
    pub async fn try_open(address: SocketAddr) -> Result<Result<Self, Refused>> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Self::upgrade(Box::new(stream), address).await
    }

    /// Upgrades a TLS connection that the caller made.
    pub async fn over_tls(stream: TlsStream<TcpStream>, address: SocketAddr) -> Result<Self> {
        match Self::upgrade(Box::new(stream), address).await? {
            Ok(client) => Ok(client),
            Err(refused) => bail!("upgrade refused: {refused:?}"),
        }
    }

    async fn upgrade(stream: Box<dyn Pipe>, address: SocketAddr) -> Result<Result<Self, Refused>> {
        let url = format!("ws://{address}/connection/websocket");
        match timeout(PATIENCE, client_async(url, stream))
            .await
            .context("upgrade not answered")?
        {
            Ok((socket, _)) => Ok(Ok(Self {
                socket,
                next_id: 0,
                arrived: VecDeque::new(),
                close: None,
                pongs: true,
                pings: 0,
            })),
            Err(Error::Http(response)) => Ok(Err(Refused {
                status: response.status().as_u16(),
                retry_after: response
                    .headers()
                    .get("retry-after")
                    .and_then(|v| v.to_str().ok())
                    .map(str::to_owned),
            })),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens and connects; returns the client and the connect result.
    pub async fn connect(address: SocketAddr, token: &str) -> Result<(Self, Value)> {
        let mut client = Self::open(address).await?;
        let result = client.call("connect", json!({ "token": token })).await?;
        Ok((client, result))
    }

    /// Sends one text frame as it is.
    pub async fn send_text(&mut self, text: impl Into<String>) -> Result<()> {
        Ok(self.socket.send(Message::text(text.into())).await?)
    }

    pub async fn send_binary(&mut self, bytes: Vec<u8>) -> Result<()> {
        Ok(self.socket.send(Message::binary(bytes)).await?)
    }

    /// Sends a command and returns its id.
    pub async fn send(&mut self, method: &str, request: Value) -> Result<u32> {
        self.next_id += 1;
        let command = json!({ "id": self.next_id, method: request });
        self.send_text(command.to_string()).await?;
        Ok(self.next_id)
    }

    /// Sends a command and returns its whole reply.
    pub async fn command(&mut self, method: &str, request: Value) -> Result<Value> {
        let id = self.send(method, request).await?;
        self.reply(id).await
    }

    /// Sends a command and returns the result; an error reply is an error.
    pub async fn call(&mut self, method: &str, request: Value) -> Result<Value> {
        let mut reply = self.command(method, request).await?;
        match reply.get_mut(method) {
            Some(result) => Ok(result.take()),
            None => bail!("{method}: {reply}"),
        }
    }

    /// Sends a command and returns the code of its error reply.
    pub async fn error(&mut self, method: &str, request: Value) -> Result<u64> {
        let reply = self.command(method, request).await?;
        reply["error"]["code"]
            .as_u64()
            .ok_or_else(|| anyhow!("{method} gave no error: {reply}"))
    }

    /// The reply to a command sent before.
    pub async fn reply(&mut self, id: u32) -> Result<Value> {
        self.take(|m| m["id"] == id, PATIENCE)
            .await
            .with_context(|| format!("reply {id}"))
    }

    /// The next push, however long it was here.
    pub async fn push(&mut self) -> Result<Value> {
        let mut message = self
            .take(|m| m.get("push").is_some(), PATIENCE)
            .await
            .context("push")?;
        Ok(message["push"].take())
    }

    /// The next push that has this member (`pub`, `join`, `unsubscribe` ...); earlier others are kept.
    pub async fn push_of(&mut self, member: &str) -> Result<Value> {
        let mut message = self
            .take(|m| m["push"].get(member).is_some(), PATIENCE)
            .await
            .with_context(|| format!("push with {member}"))?;
        Ok(message["push"].take())
    }

    /// Every push that arrives until nothing did for `quiet`.
    pub async fn pushes(&mut self, quiet: Duration) -> Result<Vec<Value>> {
        let mut pushes = Vec::new();
        while let Ok(mut message) = self.take(|m| m.get("push").is_some(), quiet).await {
            pushes.push(message["push"].take());
        }
        match &self.close {
            None => Ok(pushes),
            Some(close) => bail!("closed with {close:?}"),
        }
    }

    /// How the server closed; waits for it.
    pub async fn closed(&mut self, within: Duration) -> Result<Close> {
        let deadline = Instant::now() + within;
        while self.close.is_none() {
            self.receive(deadline).await.context("still open")?;
        }
        self.close.clone().context("closed")
    }

    /// Closes without the closing handshake, as a lost link does.
    pub fn cut(self) {
        drop(self.socket);
    }

    /// Takes the first arrived or arriving message that fits.
    async fn take(&mut self, fits: impl Fn(&Value) -> bool, within: Duration) -> Result<Value> {
        let deadline = Instant::now() + within;
        let mut seen = 0;
        loop {
            while seen < self.arrived.len() {
                if fits(&self.arrived[seen]) {
                    return self.arrived.remove(seen).context("just seen");
                }
                seen += 1;
            }
            if let Some(close) = &self.close {
                bail!("closed with {close:?}");
            }
            self.receive(deadline).await?;
        }
    }

    /// Reads one frame and files it.
    async fn receive(&mut self, deadline: Instant) -> Result<()> {
        let frame = timeout_at(deadline, self.socket.next())
            .await
            .context("nothing arrived in time")?;
        match arrival(frame)? {
            Arrival::Close(close) => self.close = Some(close),
            Arrival::Messages(messages) => {
                for message in messages {
                    self.file(message).await?;
                }
            }
        }
        Ok(())
    }

    async fn file(&mut self, message: Value) -> Result<()> {
        if message.as_object().is_some_and(serde_json::Map::is_empty) {
            self.pings += 1;
            if self.pongs {
                self.send_text("{}").await?;
            }
            return Ok(());
        }
        self.arrived.push_back(message);
        Ok(())
    }
}

fn arrival(frame: Option<Result<Message, Error>>) -> Result<Arrival> {
    // 1006 is what the protocol calls an end without a close frame.
    let lost = |why: String| {
        Arrival::Close(Close {
            code: 1006,
            reason: why,
        })
    };
    Ok(match frame {
        None => lost("end of stream".into()),
        Some(Err(error)) => lost(error.to_string()),
        Some(Ok(Message::Close(None))) => Arrival::Close(Close {
            code: 1005,
            reason: String::new(),
        }),
        Some(Ok(Message::Close(Some(CloseFrame { code, reason })))) => Arrival::Close(Close {
            code: code.into(),
            reason: reason.to_string(),
        }),
        Some(Ok(Message::Text(text))) => {
            let lines = text.as_str().lines().filter(|l| !l.trim().is_empty());
            let messages: Result<Vec<Value>, _> = lines.map(serde_json::from_str).collect();
            Arrival::Messages(messages.with_context(|| format!("not JSON lines: {text}"))?)
        }
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Arrival::Messages(Vec::new()),
        Some(Ok(Message::Binary(_) | Message::Frame(_))) => {
            bail!("binary frame on a JSON connection")
        }
    })
}
