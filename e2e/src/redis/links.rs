//! Network links between single processes and the servers of a cluster, which a test can cut.
//!
//! Every server announces the port of a proxy in this process, so everybody reaches it through the proxy. Whose connection it
//! is, the kernel tells (`/proc`); it is asked once when a link is cut and once for each connection that is opened
//! afterwards, because its table also lists the thousands of sockets that earlier tests have closed. A cut link is silent:
//! what was open stays open and carries nothing, and new connections are taken and never answered, as with a network that
//! drops packets.

use std::collections::{HashMap, HashSet};
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

/// Both ports of a socket, its own first: one's own alone may be that of several sockets with different other ends.
type Ports = (u16, u16);

/// By server (its place among the cluster's nodes), the processes from which nothing passes, and the sockets of theirs.
type Cuts = HashMap<usize, Cut>;

#[derive(Default)]
struct Cut {
    pids: HashSet<u32>,
    sockets: HashSet<Ports>,
}

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
    pub fn cut(&self, pid: u32, nodes: &[usize]) -> Result<()> {
        let sockets = sockets_of(pid)?;
        self.cuts.send_modify(|cuts| {
            for node in nodes {
                let cut = cuts.entry(*node).or_default();
                cut.pids.insert(pid);
                cut.sockets.extend(&sockets);
            }
        });
        Ok(())
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
        let ports = (peer.port(), port);
        note_owner(&cuts, node, ports).await;
        let gate = Gate {
            ports,
            node,
            cuts: cuts.subscribe(),
        };
        // How a connection ends is its ends' affair.
        connections.spawn(async move { drop(forward(client, server, gate).await) });
        while connections.try_join_next().is_some() {}
    }
}

/// A new connection of a process that is cut off is cut as well.
async fn note_owner(cuts: &watch::Sender<Cuts>, node: usize, ports: Ports) {
    let pids = match cuts.borrow().get(&node) {
        Some(cut) => cut.pids.clone(),
        None => return,
    };
    let owns = move |pid: &u32| sockets_of(*pid).is_ok_and(|sockets| sockets.contains(&ports));
    let owned = tokio::task::spawn_blocking(move || pids.iter().any(owns));
    if owned.await.unwrap_or(false) {
        cuts.send_modify(|cuts| {
            if let Some(cut) = cuts.get_mut(&node) {
                cut.sockets.insert(ports);
            }
        });
    }
}

/// Lets the bytes of one connection pass, or not.
#[derive(Clone)]
struct Gate {
    /// Of the client, and of the proxy.
    ports: Ports,
    node: usize,
    cuts: watch::Receiver<Cuts>,
}

impl Gate {
    /// Waits while the link is cut.
    async fn pass(&mut self) {
        let open = |cuts: &Cuts| {
            let cut = cuts.get(&self.node);
            !cut.is_some_and(|cut| cut.sockets.contains(&self.ports))
        };
        // Fails when the test is over.
        drop(self.cuts.wait_for(open).await);
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

/// The TCP sockets that a process has open.
fn sockets_of(pid: u32) -> Result<HashSet<Ports>> {
    let files = fs::read_dir(format!("/proc/{pid}/fd"))?;
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    let inodes: HashSet<String> = links
        .filter_map(|link| {
            let name = link.to_str()?.strip_prefix("socket:[")?;
            Some(name.trim_end_matches(']').to_owned())
        })
        .collect();
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp"))?;
    let ports = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (local, remote) = (fields.nth(1)?, fields.next()?);
        let inode = fields.nth(6)?;
        let port = |address: &str| u16::from_str_radix(address.split_once(':')?.1, 16).ok();
        inodes
            .contains(inode)
            .then_some((port(local)?, port(remote)?))
    };
    Ok(table.lines().skip(1).filter_map(ports).collect())
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
        let own = sockets_of(std::process::id())?;
        assert!(own.contains(&ports) && !own.contains(&(ports.0, 1)));
        assert!(!sockets_of(1).is_ok_and(|others| others.contains(&ports)));
        Ok(())
    }
}
