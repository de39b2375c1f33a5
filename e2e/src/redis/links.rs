//! Network links between single processes and the servers of a cluster, which a test can cut.
//!
//! Every server announces the port of a proxy in this process, so everybody reaches it through the proxy. Whose connection it
//! is, the kernel tells (`/proc`). A cut link is silent: what was open stays open and carries nothing, and new
//! connections are taken and never answered, as with a network that drops packets.

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::RedisCluster;

/// Pairs of process and server (its place among the cluster's nodes) between which nothing passes.
type Cuts = HashSet<(u32, usize)>;

/// Proxies before all servers of a cluster; gone when dropped.
pub struct Links {
    cuts: Arc<watch::Sender<Cuts>>,
    _proxies: JoinSet<()>,
}

impl Links {
    /// To be called before clients connect: addresses that were learned before lead around the proxies.
    pub async fn before(cluster: &RedisCluster) -> Result<Self> {
        let cuts = Arc::new(watch::Sender::new(Cuts::new()));
        let mut proxies = JoinSet::new();
        for (node, server) in cluster.nodes().iter().enumerate() {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let port = listener.local_addr()?.port();
            let announce = ["CONFIG", "SET", "cluster-announce-port", &port.to_string()];
            server.call(&announce).await?;
            proxies.spawn(serve(listener, server.address(), node, Arc::clone(&cuts)));
        }
        Ok(Self {
            cuts,
            _proxies: proxies,
        })
    }

    /// Nothing passes between the process and these servers any more.
    pub fn cut(&self, pid: u32, nodes: &[usize]) {
        self.cuts
            .send_modify(|cuts| cuts.extend(nodes.iter().map(|node| (pid, *node))));
    }

    /// Everything passes again; bytes that were held back too.
    pub fn mend(&self) {
        self.cuts.send_modify(Cuts::clear);
    }
}

async fn serve(
    listener: TcpListener,
    server: SocketAddr,
    node: usize,
    cuts: Arc<watch::Sender<Cuts>>,
) {
    let mut connections = JoinSet::new();
    let port = listener.local_addr().map_or(0, |address| address.port());
    while let Ok((client, peer)) = listener.accept().await {
        let gate = Gate {
            ports: (peer.port(), port),
            node,
            cuts: cuts.subscribe(),
        };
        // How a connection ends is its ends' affair.
        connections.spawn(async move { drop(forward(client, server, gate).await) });
        while connections.try_join_next().is_some() {}
    }
}

/// Lets the bytes of one connection pass, or not.
#[derive(Clone)]
struct Gate {
    /// Of the client, and of the proxy.
    ports: (u16, u16),
    node: usize,
    cuts: watch::Receiver<Cuts>,
}

impl Gate {
    /// Waits while the link is cut.
    async fn pass(&mut self) {
        loop {
            let cuts = self.cuts.borrow_and_update().clone();
            let mut owners = cuts.iter().filter(|(_, node)| *node == self.node);
            if !owners.any(|(pid, _)| owns(*pid, self.ports)) {
                return;
            }
            if self.cuts.changed().await.is_err() {
                return;
            }
        }
    }
}

async fn forward(client: TcpStream, server: SocketAddr, mut gate: Gate) -> Result<()> {
    gate.pass().await;
    let upstream = TcpStream::connect(server).await?;
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = upstream.into_split();
    tokio::select! {
        done = copy(from_client, to_server, gate.clone()) => done,
        done = copy(from_server, to_client, gate) => done,
    }
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut gate: Gate) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        gate.pass().await;
        if read == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// Whether the process has the socket with these ports, its own and the other end's: one's own alone may be that of several
/// sockets with different other ends.
fn owns(pid: u32, (own, other): (u16, u16)) -> bool {
    let Ok(table) = fs::read_to_string(format!("/proc/{pid}/net/tcp")) else {
        return false;
    };
    let (own, other) = (format!(":{own:04X}"), format!(":{other:04X}"));
    let inodes: HashSet<String> = table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (local, remote) = (fields.nth(1)?, fields.next()?);
            let inode = fields.nth(6)?;
            let is_it = local.ends_with(&own) && remote.ends_with(&other);
            is_it.then(|| format!("socket:[{inode}]"))
        })
        .collect();
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    files
        .filter_map(|file| fs::read_link(file.ok()?.path()).ok())
        .any(|link| link.to_str().is_some_and(|link| inodes.contains(link)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_its_process() -> Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        let ports = (client.local_addr()?.port(), port);
        assert!(owns(std::process::id(), ports));
        assert!(!owns(1, ports) && !owns(std::process::id(), (ports.0, 1)));
        Ok(())
    }
}
