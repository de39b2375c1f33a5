//! Client listeners: sockets, accepting, certificates. What a socket speaks is the relay's business.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use crate::drain::{Phase, Watcher};
use crate::relay::Relay;
use crate::tls::Certificates;

/// Connections the kernel completes for us while we are busy: a reconnect storm's first second.
const BACKLOG: i32 = 4_096;
/// After a failed accept (out of descriptors, mostly) there is no point in trying again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A bound port.
pub struct Listener {
    pub name: String,
    pub address: SocketAddr,
    socket: TcpListener,
    certificates: Option<Arc<Certificates>>,
}

impl Listener {
    /// Binds the first of the addresses that works; all interfaces are tried as IPv6 first, and that may be off.
    pub fn bind(
        name: &str,
        candidates: &[IpAddr],
        port: u16,
        certificates: Option<Arc<Certificates>>,
    ) -> io::Result<Self> {
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for candidate in candidates {
            match bind(SocketAddr::new(*candidate, port)) {
                Ok(socket) => {
                    let address = socket.local_addr()?;
                    return Ok(Self {
                        name: name.to_owned(),
                        address,
                        socket,
                        certificates,
                    });
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Accepts until the drain begins. Closing the socket tells clients to go elsewhere.
    pub async fn accept(self, relay: Relay, mut drain: Watcher) {
        let mut failing = false;
        loop {
            let accepted = tokio::select! {
                _ = drain.after(Phase::Serving) => return,
                accepted = async {
                    let permit = relay.ready_for_socket().await;
                    self.socket.accept().await.map(|(tcp, _)| (tcp, permit))
                } => accepted,
            };
            match accepted.and_then(|(tcp, permit)| {
                tcp.set_nodelay(true)?;
                Ok((tcp.into_std()?, permit))
            }) {
                Ok((tcp, permit)) => {
                    failing = false;
                    let tls = self
                        .certificates
                        .as_ref()
                        .map(|certificates| certificates.current());
                    relay.serve(tcp, tls, permit);
                }
                Err(error) => {
                    // Once per spell of failures: this can happen thousands of times a second.
                    if !failing {
                        tracing::warn!(%error, listener = %self.name, "accept failed");
                    }
                    failing = true;
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
