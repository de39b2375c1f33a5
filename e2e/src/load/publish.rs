//! A client that publishes: with a window of unanswered messages, or at a fixed rate.
//!
//! What answers a message is the reply where the protocol has one, and the publisher's own copy where it has none.

use std::rc::Rc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::args::Args;
use super::client::{Client, Ended};
use super::clock::now_ns;
use super::dialect::{Dialect, Line};
use super::frame;
use super::worker::Worker;

/// A publisher sends at most this often; higher rates send several messages at a time.
const TICK_MIN: Duration = Duration::from_millis(1);

/// What a publisher must subscribe to in order to learn that its messages went through.
#[must_use]
pub fn own_channel(args: &Args, index: usize) -> Option<String> {
    (args.dialect == Dialect::Nchan)
        .then(|| args.channel(index))
        .flatten()
}

/// Publishes from `go` until the worker ends.
pub async fn client(
    worker: Rc<Worker>,
    index: usize,
    client: Client,
    sender: OwnedWriteHalf,
) -> Result<(), Ended> {
    let mut publisher = Publisher {
        worker,
        index,
        client,
        sender,
        next: 3,
        unanswered: 0,
    };
    publisher.wait_for_go().await?;
    match publisher.worker.args.rate {
        Some(rate) => {
            publisher
                .at_rate(rate / publisher.worker.args.clients as f64)
                .await
        }
        None => publisher.with_window().await,
    }
}

struct Publisher {
    worker: Rc<Worker>,
    index: usize,
    client: Client,
    sender: OwnedWriteHalf,
    next: u32,
    unanswered: usize,
}

impl Publisher {
    async fn wait_for_go(&mut self) -> Result<(), Ended> {
        let worker = Rc::clone(&self.worker);
        let mut go = std::pin::pin!(worker.go());
        loop {
            tokio::select! {
                () = &mut go => return Ok(()),
                read = self.client.read(|_| {}) => {
                    let read = read?;
                    self.client.answer(read, &mut self.sender).await?;
                }
            }
        }
    }

    /// Sends `count` messages in one write.
    async fn send(&mut self, count: usize) -> Result<(), Ended> {
        let args = &self.worker.args;
        let channel = args.channel(self.index + args.first).unwrap_or_default();
        let mut out = Vec::with_capacity(count * (args.size + 96));
        for _ in 0..count {
            let message = args
                .dialect
                .publish(self.next, &channel, args.size, now_ns());
            self.next = self.next.checked_add(1).unwrap_or(3);
            frame::encode(frame::TEXT, message.as_bytes(), &mut out);
        }
        self.unanswered += count;
        self.worker.report.borrow_mut().published += count as u64;
        Ok(self.sender.write_all(&out).await?)
    }

    async fn receive(&mut self) -> Result<(), Ended> {
        let Self {
            worker,
            client,
            unanswered,
            ..
        } = self;
        let echoes = worker.args.dialect == Dialect::Nchan;
        let read = client
            .read(|line| match line {
                Line::Delivery(_) if echoes => *unanswered = unanswered.saturating_sub(1),
                Line::Reply(..) => {
                    *unanswered = unanswered.saturating_sub(1);
                    worker.count_line(&line);
                }
                Line::Delivery(_) | Line::Ping | Line::Other => {}
            })
            .await?;
        client.answer(read, &mut self.sender).await
    }

    async fn with_window(&mut self) -> Result<(), Ended> {
        let window = self.worker.args.window;
        loop {
            if self.unanswered < window {
                self.send(window - self.unanswered).await?;
            }
            self.receive().await?;
        }
    }

    async fn at_rate(&mut self, rate: f64) -> Result<(), Ended> {
        let period = Duration::from_secs_f64(1.0 / rate).max(TICK_MIN);
        // Publishers of one worker do not all send in the same moment.
        sleep(period.mul_f64(fastrand::f64())).await;
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let began = Instant::now();
        let mut sent = 0;
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let due = (began.elapsed().as_secs_f64() * rate) as usize + 1;
                    if due > sent {
                        self.send(due - sent).await?;
                        sent = due;
                    }
                }
                received = self.receive() => received?,
            }
        }
    }
}
