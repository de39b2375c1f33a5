//! One worker process: connects its clients, waits for `go`, lets the mode work, reports.
//!
//! `Worker` owns what the client tasks share. Everything runs on one thread, so sharing is `Rc` and `RefCell`; no
//! borrow lives across an await.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use jsonwebtoken::{EncodingKey, Header};
use serde_json::json;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinSet, LocalSet};

use super::args::{Args, Mode};
use super::client::{Buffer, Client, Dial, Ended, Read, Wish};
use super::clock::now_ns;
use super::control::{Event, Orders, say};
use super::dialect::Line;
use super::report::Report;
use super::{follow, hold, pairs, probe, publish, reconnect, storm};

/// How long a client keeps trying to connect when the server says 503.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);

/// What the client tasks of one worker share.
pub struct Worker {
    /// The command line.
    pub args: Args,
    /// How connections are made.
    pub dial: Dial,
    /// What was found so far.
    pub report: RefCell<Report>,
    /// When `go` came.
    started: watch::Sender<Option<u64>>,
}

/// Runs the worker the command line describes.
pub fn run(args: Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let report = LocalSet::new().block_on(&runtime, Worker::work(args))?;
    say(&Event::Report(Box::new(report)))
}

impl Worker {
    async fn work(args: Args) -> Result<Report> {
        let mut orders = Orders::new(args.at_once);
        let dial = Dial {
            server: args.server,
            source: args.source,
            dialect: args.dialect,
            send_buffer_bytes: (args.mode == Mode::Storm).then_some(storm::SEND_BUFFER_BYTES),
            buffer: Buffer::default(),
        };
        let worker = Rc::new(Self {
            args,
            dial,
            report: RefCell::default(),
            started: watch::Sender::new(None),
        });
        let mut clients = JoinSet::new();
        match worker.args.mode {
            Mode::Hold => worker.connect_all(&mut clients, hold::client).await,
            Mode::Publish => worker.connect_all(&mut clients, publish::client).await,
            Mode::Pairs => worker.connect_all(&mut clients, pairs::client).await,
            Mode::Storm => worker.connect_all(&mut clients, storm::client).await,
            Mode::Reconnect => reconnect::start(&worker, &mut clients),
            Mode::Probe => probe::start(&worker, &mut clients),
            Mode::Follow => follow::start(&worker, &mut clients).await,
        }
        let (connected, refused) = {
            let report = worker.report.borrow();
            (report.connected, report.refused.clone())
        };
        say(&Event::Ready {
            connected,
            refused: refused.values().sum(),
        })?;
        orders.wait_for("go").await;
        worker.report.replace(Report {
            connected,
            refused,
            ..Report::default()
        });
        let began = now_ns();
        worker.started.send_replace(Some(began));
        tokio::select! {
            () = tokio::time::sleep(worker.args.duration()) => {}
            () = orders.stop() => {}
        }
        clients.abort_all();
        let mut report = worker.report.take();
        report.elapsed_ns = now_ns() - began;
        Ok(report)
    }

    /// Connects all clients, some at a time, and lets each run `client`; returns when every one has connected or failed.
    async fn connect_all<F, Fut>(self: &Rc<Self>, clients: &mut JoinSet<()>, client: F)
    where
        F: Fn(Rc<Self>, usize, Client, OwnedWriteHalf) -> Fut + Copy + 'static,
        Fut: Future<Output = Result<(), Ended>> + 'static,
    {
        let permits = Rc::new(Semaphore::new(self.args.concurrency));
        for index in 0..self.args.clients {
            let permit = Rc::clone(&permits);
            let worker = Rc::clone(self);
            clients.spawn_local(async move {
                let connected = match permit.acquire().await {
                    Ok(_permit) => worker.connect(&worker.wish(index)).await,
                    Err(_) => return,
                };
                match connected {
                    Ok((receiver, sender)) => {
                        worker.report.borrow_mut().connected += 1;
                        let ended = client(Rc::clone(&worker), index, receiver, sender).await;
                        let cause = ended
                            .err()
                            .map_or_else(|| "done".to_owned(), |ended| ended.to_string());
                        worker
                            .report
                            .borrow_mut()
                            .note_close(cause, worker.since_go_ns());
                    }
                    Err(ended) => {
                        *worker
                            .report
                            .borrow_mut()
                            .refused
                            .entry(ended.to_string())
                            .or_default() += 1;
                    }
                }
            });
            if index % self.args.concurrency == 0 {
                tokio::task::yield_now().await;
            }
        }
        loop {
            let done = {
                let report = self.report.borrow();
                report.connected + report.refused.values().sum::<u64>()
            };
            if done >= self.args.clients as u64 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Connects, trying again while the server is only busy.
    async fn connect(&self, wish: &Wish) -> Result<(Client, OwnedWriteHalf), Ended> {
        let deadline = tokio::time::Instant::now() + CONNECT_PATIENCE;
        loop {
            match self.dial.connect(wish).await {
                Err(Ended::Status { status: 503, .. })
                    if tokio::time::Instant::now() < deadline =>
                {
                    tokio::time::sleep(Duration::from_millis(100 + fastrand::u64(..400))).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// What client `index` of this worker wants of its connection.
    #[must_use]
    pub fn wish(&self, index: usize) -> Wish {
        let index = index + self.args.first;
        let (receives, publishes) = match self.args.mode {
            Mode::Pairs => (
                Some(self.pair_channel(index)),
                Some(self.pair_channel(index ^ 1)),
            ),
            Mode::Publish => (
                publish::own_channel(&self.args, index),
                self.args.channel(index),
            ),
            Mode::Hold | Mode::Storm | Mode::Reconnect | Mode::Probe | Mode::Follow => {
                (self.args.channel(index), None)
            }
        };
        Wish {
            token: self.token(index),
            receives,
            publishes,
        }
    }

    /// The channel only client `index` of a pair listens to.
    #[must_use]
    pub fn pair_channel(&self, index: usize) -> String {
        format!("{}{index}", self.args.prefix)
    }

    fn token(&self, index: usize) -> Option<String> {
        let secret = self.args.hmac_secret.as_ref()?;
        let mut claims = json!({ "sub": format!("u{index}") });
        if let Some((name, value)) = self
            .args
            .account
            .as_deref()
            .and_then(|claim| claim.split_once('='))
        {
            claims[name] = value.into();
        }
        jsonwebtoken::encode(
            &Header::default(),
            &claims,
            &EncodingKey::from_secret(secret.as_bytes()),
        )
        .ok()
    }

    /// Waits for `go`.
    pub async fn go(&self) {
        // The sender lives in `self`, so the wait cannot fail.
        let _ = self.started.subscribe().wait_for(Option::is_some).await;
    }

    /// Nanoseconds since `go`; 0 before it.
    #[must_use]
    pub fn since_go_ns(&self) -> u64 {
        self.started.borrow().map_or(0, |began| now_ns() - began)
    }

    /// Counts what a read brought.
    pub fn count(&self, read: Read) {
        let mut report = self.report.borrow_mut();
        report.received_bytes += read.bytes as u64;
        report.reads += 1;
        report.pings += u64::from(read.pings + read.native_pings);
    }

    /// Counts one line.
    pub fn count_line(&self, line: &Line) {
        let mut report = self.report.borrow_mut();
        match line {
            Line::Delivery(stamp) => {
                report.deliveries += 1;
                report.latency.record(now_ns().saturating_sub(*stamp));
            }
            Line::Reply(_, 0) => report.accepted += 1,
            Line::Reply(_, code) => *report.errors.entry(*code).or_default() += 1,
            Line::Ping | Line::Other => {}
        }
    }
}
