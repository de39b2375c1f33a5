//! The load generator's processes, as many as a case needs.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};

use super::server::Server;
use crate::load::control::Event;
use crate::load::dialect::Dialect;
use crate::load::report::Report;
use crate::upstream::handle::binary;

/// Connections one worker holds: below the 20,000 descriptors a process may have here, with several per machine core.
const CLIENTS_PER_WORKER: usize = 9_000;

/// Workers of one kind that together are so many clients.
pub struct Workers {
    all: Vec<Worker>,
    /// Clients that could not connect, before they were told to go.
    refused: u64,
}

struct Worker {
    child: Child,
    orders: ChildStdin,
    events: BufReader<ChildStdout>,
}

impl Workers {
    /// Starts workers for `clients` clients in `mode` against `server` and waits until they are connected.
    pub fn start(
        server: &Server,
        mode: &str,
        clients: usize,
        more: &[(&str, String)],
    ) -> Result<Self> {
        Self::start_at(server.address, server.kind.dialect(), mode, clients, more)
    }

    /// The same, with a server by its address.
    pub fn start_at(
        server: SocketAddr,
        dialect: Dialect,
        mode: &str,
        clients: usize,
        more: &[(&str, String)],
    ) -> Result<Self> {
        let program = binary("sluice-load")?;
        let mut workers = Vec::new();
        let mut first = 0;
        let count = processes(mode, clients)?;
        for number in 0..count {
            let here = clients / count + usize::from(number < clients % count);
            let mut command = Command::new(&program);
            command.arg(mode).args(["--server", &server.to_string()]);
            command.args([
                "--clients",
                &here.to_string(),
                "--first",
                &first.to_string(),
            ]);
            let dialect = format!("{dialect:?}").to_lowercase();
            command.args(["--dialect", &dialect]);
            for (name, value) in more {
                command.args([format!("--{name}").as_str(), value]);
            }
            workers.push(Worker::start(command)?);
            first += here;
        }
        let mut started = Self {
            all: workers,
            refused: 0,
        };
        for worker in &mut started.all {
            match worker.next()? {
                Event::Ready { refused, .. } => started.refused += refused,
                Event::Report(_) => bail!("a worker reported before it was told to go"),
            }
        }
        Ok(started)
    }

    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Tells all of them to go.
    pub fn go(&mut self) -> Result<()> {
        self.all
            .iter_mut()
            .try_for_each(|worker| worker.order("go"))
    }

    /// Waits until all are done and adds up what they found.
    pub fn report(mut self) -> Result<Report> {
        let mut sum = Report::default();
        for worker in &mut self.all {
            match worker.next()? {
                Event::Report(report) => sum.merge(*report),
                Event::Ready { .. } => bail!("a worker was ready twice"),
            }
        }
        Ok(sum)
    }

    /// Tells all of them to stop and adds up what they found.
    pub fn stop(mut self) -> Result<Report> {
        self.all
            .iter_mut()
            .try_for_each(|worker| worker.order("stop"))?;
        self.report()
    }
}

/// Receivers are as many processes as there are cores: one alone would be a queue that all messages wait in. The others
/// share a rate or a window within their process.
fn processes(mode: &str, clients: usize) -> Result<usize> {
    let least = match mode {
        "hold" => std::thread::available_parallelism()?.get().min(clients),
        _ => 1,
    };
    Ok(clients.div_ceil(CLIENTS_PER_WORKER).max(least).max(1))
}

impl Worker {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start sluice-load: build it beside this program")?;
        let orders = child.stdin.take().context("no pipe to the worker")?;
        let events = BufReader::new(child.stdout.take().context("no pipe from the worker")?);
        Ok(Self {
            child,
            orders,
            events,
        })
    }

    fn order(&mut self, word: &str) -> Result<()> {
        Ok(writeln!(self.orders, "{word}")?)
    }

    fn next(&mut self) -> Result<Event> {
        let mut line = String::new();
        self.events.read_line(&mut line)?;
        serde_json::from_str(&line).context("a worker ended without its report")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
