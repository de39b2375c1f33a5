//! What one pass sees: the pods, and what the server of each says when asked.
//!
//! Asks only, changes nothing, and needs no more than `PASS_TIMEOUT` whatever the servers do. A server that does not
//! answer is an answer too (`Answer::Down`); what that means is for `topology` and `plan` to judge.

use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;

use super::info::Info;
use super::link::{Connector, Link, LinkError};
use super::nodes::{Line, NodeId, parse};
use super::topology::Shape;

/// For all servers at once: they are asked side by side. A server that loads, or does not get a processor, may be slow.
const PASS_TIMEOUT: Duration = Duration::from_secs(5);
/// The user whose switch is the seal.
pub(super) const REPLICATION_USER: &str = "replication";

/// A pod of one of the StatefulSets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    pub name: String,
    pub uid: String,
    /// Of which shard's StatefulSet.
    pub shard: u32,
    pub ordinal: u32,
    /// Where it runs; `None`: nowhere yet.
    pub node: Option<String>,
    pub ip: Option<IpAddr>,
    /// The kubelet says so, or, of a node that is gone, said so until the node was found to be gone.
    pub is_ready: bool,
    /// Made from another revision of its StatefulSet than the wanted one.
    pub is_outdated: bool,
    /// Has a deletion timestamp.
    pub is_deleting: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    pub pods: Vec<Seen>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub pod: Pod,
    pub answer: Answer,
}

impl Seen {
    #[must_use]
    pub fn view(&self) -> Option<&NodeView> {
        match &self.answer {
            Answer::Up(view) => Some(view),
            Answer::Loading | Answer::Down(_) => None,
        }
    }
}

/// What a server said of itself and of the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Up(Box<NodeView>),
    /// It reads its data and will answer later.
    Loading,
    /// Why there is no answer.
    Down(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Without a cluster a server has no name; its pod's stands for it.
    pub id: NodeId,
    /// All it knows of, itself too.
    pub table: Vec<Line>,
    pub role: Role,
    pub offset: u64,
    pub keys: u64,
    /// `cluster_state:ok`; always so without a cluster.
    pub is_state_ok: bool,
    /// Writes an append-only file, and the last write of it was in order.
    pub is_persisting: bool,
    pub uptime_s: u64,
    /// Its own clock.
    pub clock_ms: u64,
    /// Lets nobody replicate from it.
    pub is_sealed: bool,
    pub version: String,
}

impl NodeView {
    #[must_use]
    pub fn line(&self, id: &NodeId) -> Option<&Line> {
        self.table.iter().find(|line| line.id == *id)
    }

    /// What it says of itself.
    #[must_use]
    pub fn own(&self) -> Option<&Line> {
        self.table.iter().find(|line| line.flags.myself)
    }

    /// Whom it follows.
    #[must_use]
    pub fn primary(&self) -> Option<&NodeId> {
        self.own().and_then(|line| line.primary.as_ref())
    }

    #[must_use]
    pub fn follow(&self) -> Option<&Follow> {
        match &self.role {
            Role::Replica(follow) => Some(follow),
            Role::Primary(_) => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    Primary(Vec<Attached>),
    Replica(Follow),
}

/// A replica as its primary sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached {
    pub ip: IpAddr,
    pub is_online: bool,
}

/// A replica's link to its primary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Follow {
    /// Where it looks for its primary.
    pub host: Option<IpAddr>,
    pub is_link_up: bool,
    pub is_syncing: bool,
    /// `None`: it is up, or has not been up since the server's start.
    pub link_down_s: Option<u64>,
}

/// Asks the server of each pod.
pub async fn observe(pods: Vec<Pod>, shape: Shape, redis: &Connector) -> Observation {
    let asked = pods.into_iter().map(|pod| async move {
        let answer = match pod.ip {
            None => Answer::Down("the pod has no address yet".to_owned()),
            Some(ip) => match timeout(PASS_TIMEOUT, ask(ip, &pod.name, shape, redis)).await {
                Ok(Ok(view)) => Answer::Up(Box::new(view)),
                Ok(Err(LinkError::Refused(text))) if text.starts_with("LOADING") => Answer::Loading,
                Ok(Err(error)) => Answer::Down(error.to_string()),
                Err(_) => Answer::Down(format!("no answer within {PASS_TIMEOUT:?}")),
            },
        };
        Seen { pod, answer }
    });
    Observation {
        pods: join_all(asked).await,
    }
}

async fn ask(
    ip: IpAddr,
    pod: &str,
    shape: Shape,
    redis: &Connector,
) -> Result<NodeView, LinkError> {
    let link = redis.connect(ip).await?;
    let sections = ["INFO", "replication", "persistence", "server", "keyspace"];
    let info = link.text(&sections).await?;
    let info = Info::parse(&info);
    if info.is("loading", "1") {
        return Err(LinkError::Refused("LOADING".to_owned()));
    }
    let (id, table, is_state_ok, is_sealed) = match shape {
        Shape::Standalone => (NodeId::new(pod), Vec::new(), true, false),
        Shape::Cluster { .. } => {
            let state = link.text(&["CLUSTER", "INFO"]).await?;
            let table = parse(&link.text(&["CLUSTER", "NODES"]).await?);
            let own = table.iter().find(|line| line.flags.myself);
            let id = own.map(|line| line.id.clone()).ok_or(LinkError::Strange)?;
            let is_ok = Info::parse(&state).is("cluster_state", "ok");
            (id, table, is_ok, is_sealed(&link).await?)
        }
    };
    Ok(NodeView {
        id,
        table,
        role: info.role(),
        offset: info.offset(),
        keys: info.keys(),
        is_state_ok,
        is_persisting: info.is("aof_enabled", "1") && info.is("aof_last_write_status", "ok"),
        uptime_s: info.number("uptime_in_seconds").unwrap_or_default(),
        clock_ms: info.number("server_time_usec").unwrap_or_default() / 1000,
        is_sealed,
        version: version(&info),
    })
}

/// Servers without that user are not ours to seal.
async fn is_sealed(link: &Link) -> Result<bool, LinkError> {
    let user = link.call(&["ACL", "GETUSER", REPLICATION_USER]).await?;
    let mut fields = user.list().chunks_exact(2);
    let flags = fields.find(|pair| pair[0].text() == Some("flags"));
    let flags = flags.map(|pair| pair[1].list()).unwrap_or_default();
    Ok(flags.iter().any(|flag| flag.text() == Some("off")))
}

fn version(info: &Info<'_>) -> String {
    match info.text("valkey_version") {
        "" => info.text("redis_version").to_owned(),
        valkey => format!("valkey {valkey}"),
    }
}
