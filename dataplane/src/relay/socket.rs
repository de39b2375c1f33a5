//! The two kinds of transport under a WebSocket: TCP, and TLS over TCP.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::limits::{KERNEL_RECEIVE_BYTES, KERNEL_UNSENT_BYTES};

/// A transport while HTTP is spoken on it.
pub enum Transport {
    Plain(TcpStream),
    /// Boxed: TLS state is large.
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// A transport that frames are read from and written to through a shared reference: the hub's flush writes while
/// the connection's task waits to read.
pub enum Socket {
    Plain(TcpStream),
    Tls(RefCell<Box<TlsStream<TcpStream>>>),
}

impl From<Transport> for Socket {
    fn from(transport: Transport) -> Self {
        let tcp = match &transport {
            Transport::Plain(tcp) => tcp,
            Transport::Tls(tls) => tls.get_ref().0,
        };
        // Without these bounds the kernel gives a busy client megabytes, which count as this process's memory in a container.
        // A socket that does not take them works all the same.
        let socket = SockRef::from(tcp);
        let _ = socket.set_tcp_notsent_lowat(KERNEL_UNSENT_BYTES);
        let _ = socket.set_recv_buffer_size(KERNEL_RECEIVE_BYTES);
        match transport {
            Transport::Plain(tcp) => Self::Plain(tcp),
            Transport::Tls(tls) => Self::Tls(RefCell::new(tls)),
        }
    }
}

impl Socket {
    /// Reads what is there. `Ok(0)` is the end of the stream.
    pub fn poll_read(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => loop {
                ready!(tcp.poll_read_ready(cx))?;
                match tcp.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    outcome => return Poll::Ready(outcome),
                }
            },
            Self::Tls(tls) => {
                let mut tls = tls.borrow_mut();
                let mut buffer = ReadBuf::new(buffer);
                ready!(Pin::new(&mut **tls).poll_read(cx, &mut buffer))?;
                Poll::Ready(Ok(buffer.filled().len()))
            }
        }
    }
}
