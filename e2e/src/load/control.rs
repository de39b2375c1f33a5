//! How a worker and its orchestrator talk: lines on standard input and output.

use std::io::{BufRead, Write};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::report::Report;

/// What a worker says, one JSON object per line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Event {
    /// All clients that could connect have connected.
    Ready {
        /// How many did.
        connected: u64,
        /// How many did not.
        refused: u64,
    },
    /// The worker is done.
    Report(Box<Report>),
}

/// Prints one event.
pub fn say(event: &Event) -> Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let mut out = std::io::stdout().lock();
    out.write_all(&line)?;
    Ok(out.flush()?)
}

/// Orders that may wait unread: there are two words in all.
const ORDERS_MAX: usize = 4;

/// The orchestrator's words.
pub struct Orders(Option<mpsc::Receiver<String>>);

impl Orders {
    /// From standard input, or none at all for a worker that starts by itself.
    #[must_use]
    pub fn new(at_once: bool) -> Self {
        if at_once {
            return Self(None);
        }
        let (sender, receiver) = mpsc::channel(ORDERS_MAX);
        // Reading standard input blocks, so it has its own thread; that thread ends with the process.
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines().map_while(Result::ok) {
                if sender.blocking_send(line.trim().to_owned()).is_err() {
                    return;
                }
            }
        });
        Self(Some(receiver))
    }

    /// Waits for `word`, or for the orchestrator's end.
    pub async fn wait_for(&mut self, word: &str) {
        let Some(lines) = &mut self.0 else { return };
        while let Some(line) = lines.recv().await {
            if line == word {
                return;
            }
        }
    }

    /// Waits for `stop`; a worker that started by itself is never told.
    pub async fn stop(&mut self) {
        match self.0 {
            Some(_) => self.wait_for("stop").await,
            None => std::future::pending().await,
        }
    }
}
