//! HTTP on a client listener: from a new socket to requests, in HTTP/1.x and HTTP/2, and to WebSockets.
//!
//! HTTP/1.x is read by our own strict reader: a library hides what makes a request ambiguous (a length beside a transfer
//! coding, say), and owns buffers that waiting connections would keep. HTTP/2 is hyper's. `route` says whose a request
//! is; nothing here knows what it means.

pub mod chunked;
pub mod h1;
pub mod h2;
pub mod head;
pub mod route;
#[cfg(test)]
pub(crate) mod tests;
pub mod websocket;
pub mod wire;
pub mod write;

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;

use self::wire::Wire;
use super::limits::HANDSHAKE_DEADLINE;
use super::socket::Transport;
use super::worker::Worker;
use crate::ingest::accept::Peer;

pub(super) use self::route::text;

/// A socket on its way from the listener to a worker.
pub struct Accepted(Mutex<Option<Handover>>);

pub struct Handover {
    pub tcp: std::net::TcpStream,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Counts the sockets that are neither WebSockets yet nor kept for ingest requests.
    pub permit: OwnedSemaphorePermit,
}

impl Accepted {
    pub fn new(handover: Handover) -> Self {
        Self(Mutex::new(Some(handover)))
    }

    pub(super) fn take(&self) -> Option<Handover> {
        self.0.lock().take()
    }
}

/// A socket's place on its worker; dropping it gives the place back.
pub struct Place(Rc<Worker>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.shared().socket_gone(self.0.index());
    }
}

/// Speaks HTTP on a new socket; if it becomes a WebSocket, a task of its own goes on with it.
pub(super) async fn serve(worker: Rc<Worker>, handover: Handover) {
    let Handover { tcp, tls, permit } = handover;
    let place = Place(Rc::clone(&worker));
    let peer = tcp.peer_addr().map(|address| Peer {
        address: address.ip(),
        secure: tls.is_some(),
    });
    let (peer, tcp) = match (peer, TcpStream::from_std(tcp)) {
        (Ok(peer), Ok(tcp)) => (peer, tcp),
        (Err(error), _) => {
            tracing::debug!(%error, "client is gone");
            return;
        }
        (_, Err(error)) => {
            tracing::warn!(%error, "socket not usable");
            return;
        }
    };
    let Some(config) = tls else {
        let wire = Wire::new(worker, Transport::Plain(tcp));
        return h1::run(wire, peer, permit, place).await;
    };
    let accept = TlsAcceptor::from(config).accept(tcp);
    let tls = match Box::pin(tokio::time::timeout(HANDSHAKE_DEADLINE, accept)).await {
        Ok(Ok(tls)) => Box::new(tls),
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let is_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    if is_http2 {
        let transport = Transport::Tls(tls);
        Box::pin(h2::run(worker, transport, Bytes::new(), peer, permit)).await;
        drop(place);
    } else {
        let wire = Wire::new(worker, Transport::Tls(tls));
        h1::run(wire, peer, permit, place).await;
    }
}
