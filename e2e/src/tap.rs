//! A wire tap: passes bytes on to a server and keeps what each connection said.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What went over one connection.
#[derive(Clone, Debug, Default)]
pub struct Talk {
    pub to_server: Vec<u8>,
    pub to_client: Vec<u8>,
}

type Talks = Arc<Mutex<Vec<Talk>>>;

/// A running tap; ends when dropped.
pub struct Tap {
    /// Where to connect instead of the server.
    pub address: SocketAddr,
    talks: Talks,
    task: JoinHandle<()>,
}

impl Tap {
    /// Listens on a port of its own.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let talks = Talks::default();
        let kept = Arc::clone(&talks);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(server).await else {
                    continue;
                };
                let number = {
                    let mut talks = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    talks.push(Talk::default());
                    talks.len() - 1
                };
                let (from_client, to_client) = client.into_split();
                let (from_server, to_server) = server.into_split();
                let (up, down) = (Arc::clone(&kept), Arc::clone(&kept));
                tokio::spawn(pass(from_client, to_server, move |bytes| {
                    note(&up, number, |talk| talk.to_server.extend(bytes));
                }));
                tokio::spawn(pass(from_server, to_client, move |bytes| {
                    note(&down, number, |talk| talk.to_client.extend(bytes));
                }));
            }
        });
        Ok(Self {
            address,
            talks,
            task,
        })
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was said so far.
    #[must_use]
    pub fn talks(&self) -> Vec<Talk> {
        self.talks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// All that was said to the server, connection after connection.
    #[must_use]
    pub fn to_server(&self) -> Vec<u8> {
        self.talks()
            .into_iter()
            .flat_map(|talk| talk.to_server)
            .collect()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn note(talks: &Talks, number: usize, change: impl FnOnce(&mut Talk)) {
    if let Some(talk) = talks
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_mut(number)
    {
        change(talk);
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, note: impl Fn(&[u8])) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        if count == 0 {
            break;
        }
        // Before it is passed on: whoever sees the answer finds the request noted.
        note(&buffer[..count]);
        if to.write_all(&buffer[..count]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}
