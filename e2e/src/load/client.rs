//! One client connection: TCP, upgrade, connect and subscribe, then reading with the worker's shared buffer.
//!
//! `Client` keeps bytes of its own only while a frame is incomplete.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};

use super::dialect::{Dialect, Line};
use super::frame;

/// The read buffer all connections of a worker share: large enough for several 64 KiB messages in one read.
const READ_BUFFER_BYTES: usize = 512 * 1024;
/// An upgrade response longer than this is no upgrade response.
const RESPONSE_BYTES_MAX: usize = 8 * 1024;

/// The worker's shared read buffer.
#[derive(Clone)]
pub struct Buffer(Rc<RefCell<Box<[u8]>>>);

impl Default for Buffer {
    fn default() -> Self {
        Self(Rc::new(RefCell::new(
            vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
        )))
    }
}

/// Why there is no connection, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The server answered the upgrade with another status.
    #[error("http {status}")]
    Status {
        /// The status.
        status: u16,
        /// The Retry-After header, seconds.
        retry_after: Option<u64>,
    },
    /// The server closed with this code.
    #[error("close {0}")]
    Close(u16),
    /// The server closed without a word.
    #[error("eof")]
    Eof,
    /// The server refused connect or subscribe.
    #[error("error {0}")]
    Refused(u32),
    /// The connection broke.
    #[error("io {}", .0.kind())]
    Io(#[from] io::Error),
}

/// What one read brought.
#[derive(Clone, Copy, Debug, Default)]
pub struct Read {
    /// Bytes read.
    pub bytes: usize,
    /// Pings to be answered; `Client::answer` does.
    pub pings: u32,
    /// Native pings among the frames; they are answered empty.
    pub native_pings: u32,
}

/// Where and how to connect.
#[derive(Clone)]
pub struct Dial {
    /// The server.
    pub server: SocketAddr,
    /// Local address, if it matters.
    pub source: Option<IpAddr>,
    /// The protocol.
    pub dialect: Dialect,
    /// Room for unsent bytes in the kernel, where the kernel's own choice is too much.
    pub send_buffer_bytes: Option<u32>,
    /// The worker's read buffer.
    pub buffer: Buffer,
}

/// What an individual client wants of its connection.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Its token.
    pub token: Option<String>,
    /// The channel to subscribe to.
    pub receives: Option<String>,
    /// The channel it will publish to (Nchan has it in the address).
    pub publishes: Option<String>,
}

/// The receiving side of a connection.
pub struct Client {
    read: OwnedReadHalf,
    partial: Vec<u8>,
    dialect: Dialect,
    buffer: Buffer,
}

impl Dial {
    /// Opens a connection and upgrades it; nothing is said yet.
    pub async fn open(&self, wish: &Wish) -> Result<(Client, OwnedWriteHalf), Ended> {
        let path = self.dialect.path(
            wish.receives.as_deref().unwrap_or("none"),
            wish.publishes.as_deref().unwrap_or("none"),
        );
        let (stream, rest) = self.upgrade(&path).await?;
        let (read, write) = stream.into_split();
        let client = Client {
            read,
            partial: rest,
            dialect: self.dialect,
            buffer: self.buffer.clone(),
        };
        Ok((client, write))
    }

    /// Opens a connection, upgrades it, connects and subscribes; returns when all replies are there.
    pub async fn connect(&self, wish: &Wish) -> Result<(Client, OwnedWriteHalf), Ended> {
        let receives = wish.receives.as_deref();
        let (mut client, mut write) = self.open(wish).await?;
        let hello = self.dialect.hello(wish.token.as_deref(), receives);
        if hello.is_empty() {
            return Ok((client, write));
        }
        let mut out = Vec::with_capacity(hello.len() + 8);
        frame::encode(frame::TEXT, hello.as_bytes(), &mut out);
        write.write_all(&out).await?;
        let mut awaited = if receives.is_some() { 2 } else { 1 };
        let mut error = 0;
        while awaited > 0 {
            let read = client
                .read(|line| {
                    if let Line::Reply(_, code) = line {
                        awaited -= 1;
                        error = error.max(code);
                    }
                })
                .await?;
            client.answer(read, &mut write).await?;
            if error > 0 {
                return Err(Ended::Refused(error));
            }
        }
        Ok((client, write))
    }

    /// The TCP connection and the upgrade; whatever came behind the response is returned with the stream.
    async fn upgrade(&self, path: &str) -> Result<(TcpStream, Vec<u8>), Ended> {
        let socket = TcpSocket::new_v4()?;
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        if let Some(bytes) = self.send_buffer_bytes {
            socket.set_send_buffer_size(bytes)?;
        }
        let mut stream = socket.connect(self.server).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            self.server
        );
        stream.write_all(request.as_bytes()).await?;
        let mut response = Vec::with_capacity(256);
        let end = loop {
            if stream.read_buf(&mut response).await? == 0 || response.len() > RESPONSE_BYTES_MAX {
                return Err(Ended::Eof);
            }
            if let Some(at) = memchr::memmem::find(&response, b"\r\n\r\n") {
                break at + 4;
            }
        };
        let rest = response.split_off(end);
        let head = String::from_utf8_lossy(&response).to_ascii_lowercase();
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .unwrap_or(0);
        if status != 101 {
            let after = head
                .split("retry-after:")
                .nth(1)
                .and_then(|rest| rest.split("\r\n").next());
            return Err(Ended::Status {
                status,
                retry_after: after.and_then(|s| s.trim().parse().ok()),
            });
        }
        Ok((stream, rest))
    }
}

impl Client {
    /// Waits for bytes and hands every complete line to `each`, except pings, which it counts. Cancel-safe.
    pub async fn read(&mut self, mut each: impl FnMut(Line)) -> Result<Read, Ended> {
        self.read_text(|line, _| each(line)).await
    }

    /// The same, with the text of each line.
    pub async fn read_text(&mut self, mut each: impl FnMut(Line, &[u8])) -> Result<Read, Ended> {
        poll_fn(|context| {
            let mut buffer = self.buffer.0.borrow_mut();
            let mut into = ReadBuf::new(&mut buffer);
            std::task::ready!(Pin::new(&mut self.read).poll_read(context, &mut into))?;
            let fresh = into.filled();
            if fresh.is_empty() {
                return std::task::Poll::Ready(Err(Ended::Eof));
            }
            let mut found = Read {
                bytes: fresh.len(),
                ..Read::default()
            };
            if self.partial.is_empty() {
                let taken = take_frames(self.dialect, fresh, &mut found, &mut each)?;
                self.partial.extend_from_slice(&fresh[taken..]);
            } else {
                self.partial.extend_from_slice(fresh);
                let taken = take_frames(self.dialect, &self.partial, &mut found, &mut each)?;
                self.partial.drain(..taken);
            }
            if self.partial.is_empty() {
                // An idle connection keeps no memory.
                self.partial = Vec::new();
            }
            std::task::Poll::Ready(Ok(found))
        })
        .await
    }

    /// Answers the pings a read brought.
    pub async fn answer(&self, read: Read, write: &mut OwnedWriteHalf) -> Result<(), Ended> {
        if read.pings + read.native_pings == 0 {
            return Ok(());
        }
        let mut out = Vec::new();
        read.pongs(&mut out);
        Ok(write.write_all(&out).await?)
    }
}

impl Read {
    /// Appends the answers to the pings.
    pub fn pongs(self, out: &mut Vec<u8>) {
        for _ in 0..self.pings {
            frame::encode(frame::TEXT, b"{}", out);
        }
        for _ in 0..self.native_pings {
            frame::encode(frame::PONG, b"", out);
        }
    }
}

/// Takes all complete frames off `bytes` and says how many bytes they were.
fn take_frames(
    dialect: Dialect,
    bytes: &[u8],
    found: &mut Read,
    each: &mut impl FnMut(Line, &[u8]),
) -> Result<usize, Ended> {
    let mut at = 0;
    while let Some((opcode, payload, length)) = frame::decode(&bytes[at..]) {
        at += length;
        match opcode {
            frame::CLOSE => return Err(Ended::Close(frame::close_code(payload))),
            frame::PING => found.native_pings += 1,
            frame::PONG => {}
            _ => {
                for line in payload
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.is_empty())
                {
                    match dialect.recognise(line) {
                        Line::Ping => found.pings += 1,
                        other @ (Line::Delivery(_) | Line::Reply(..) | Line::Other) => {
                            each(other, line);
                        }
                    }
                }
            }
        }
    }
    Ok(at)
}
