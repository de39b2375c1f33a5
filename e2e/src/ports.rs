//! Ports of 127.0.0.1 for the servers of tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};
use tokio::net::TcpSocket;

/// Below the kernel's range for outgoing connections, so that no client takes a port between choice and use.
static PORTS: Ports = Ports::new(18_000, 12_000);

/// A port of 127.0.0.1 that is free now and that no other test of this process got.
pub fn free_port() -> Result<u16> {
    PORTS.next(|port| is_free((Ipv4Addr::LOCALHOST, port).into()))
}

/// A range of ports, each given once in a round that begins anywhere.
pub struct Ports {
    first: u16,
    count: u16,
    next: OnceLock<AtomicU16>,
}

impl Ports {
    pub const fn new(first: u16, count: u16) -> Self {
        Self {
            first,
            count,
            next: OnceLock::new(),
        }
    }

    /// The next port that will do.
    pub fn next(&self, will_do: impl Fn(u16) -> bool) -> Result<u16> {
        let next = self
            .next
            .get_or_init(|| AtomicU16::new(fastrand::u16(..self.count)));
        for _ in 0..self.count {
            let port = self.first + next.fetch_add(1, Ordering::Relaxed) % self.count;
            if will_do(port) {
                return Ok(port);
            }
        }
        bail!("no free port")
    }
}

/// Whether a server could listen here.
///
/// It binds and does not listen: what another thread forks meanwhile holds the socket until it is another program,
/// and a listening one would keep the server, and other questions, from the port for that time.
pub fn is_free(address: SocketAddr) -> bool {
    let bound = TcpSocket::new_v4().and_then(|socket| {
        socket.set_reuseaddr(true)?;
        socket.bind(address)
    });
    bound.is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_port_is_free_until_somebody_listens() -> Result<()> {
        let port = free_port()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let question = TcpSocket::new_v4()?;
        question.set_reuseaddr(true)?;
        question.bind(address)?;
        assert!(is_free(address), "a question beside it");
        let server = TcpListener::bind(address)?;
        assert!(!is_free(address), "somebody listens");
        drop(server);
        assert!(is_free(address), "and has gone");
        Ok(())
    }
}
