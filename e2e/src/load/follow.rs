//! Clients that follow numbered messages of one channel, and come back when their connection ends, as an SDK does.
//!
//! A message is `{"t":<stamp>,"v":<number>}`, numbered from 1 in each channel. A client knows the last number and
//! offset it got: each further message must be the next one, unless the server said that it could not recover. Clients
//! start spread evenly over the servers; one that comes back tries any of them, dead ones too, as behind a balancer.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use memchr::memmem;
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::client::{Client, Dial, Ended, Wish};
use super::clock::now_ns;
use super::dialect::{LEADING_ONE, Line};
use super::frame;
use super::report::Report;
use super::worker::Worker;

/// Full jitter: the first wait is up to twice this, later ones double.
const BACKOFF: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Connect and subscribe together: SDKs give each of them 5 s.
const REPLY_PATIENCE: Duration = Duration::from_secs(5);
/// Commands 1 and 2 are connect and subscribe of a new connection; the same id serves to subscribe again.
const SUBSCRIBE: u32 = 2;

/// What the server and the client agree on.
struct Place {
    channel: String,
    /// Offset and epoch, once subscribed.
    position: Option<(u64, String)>,
    /// The last number.
    last: u64,
    /// The next number may be any higher one: the server could not recover what is between.
    told: bool,
}

/// One client.
struct Follower {
    worker: Rc<Worker>,
    index: usize,
    place: Place,
    /// Has been away: its latency counts apart.
    moved: bool,
}

#[derive(Deserialize)]
struct Reply {
    subscribe: Subscribed,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Subscribed {
    offset: u64,
    epoch: String,
    recovered: bool,
    publications: Vec<Publication>,
}

#[derive(Deserialize)]
struct Publication {
    data: Data,
    #[serde(default)]
    offset: u64,
}

#[derive(Deserialize)]
struct Data {
    t: u64,
    v: u64,
}

/// Lets all clients connect, some at a time; returns when every one has tried.
pub async fn start(worker: &Rc<Worker>, clients: &mut JoinSet<()>) {
    let permits = Rc::new(Semaphore::new(worker.args.concurrency));
    let tried = Rc::new(RefCell::new(0));
    for index in 0..worker.args.clients {
        let (worker, permits, tried) = (Rc::clone(worker), Rc::clone(&permits), Rc::clone(&tried));
        clients.spawn_local(async move {
            let Ok(permit) = permits.acquire().await else {
                return;
            };
            let mut follower = Follower::new(worker, index);
            let first = follower
                .worker
                .args
                .server_of(index + follower.worker.args.first);
            let connected = follower.connect(first).await;
            drop(permit);
            *tried.borrow_mut() += 1;
            match connected {
                Ok(connection) => {
                    follower.worker.report.borrow_mut().connected += 1;
                    follower.run(connection).await;
                }
                Err(ended) => {
                    let mut report = follower.worker.report.borrow_mut();
                    *report.refused.entry(ended.to_string()).or_default() += 1;
                }
            }
        });
    }
    while *tried.borrow() < worker.args.clients {
        sleep(Duration::from_millis(5)).await;
    }
}

/// As `Dial` gives it.
type Connection = (Client, OwnedWriteHalf);

impl Follower {
    fn new(worker: Rc<Worker>, index: usize) -> Self {
        let channel = worker.args.channel(index + worker.args.first);
        let place = Place {
            channel: channel.unwrap_or_default(),
            position: None,
            last: 0,
            told: false,
        };
        Self {
            worker,
            index,
            place,
            moved: false,
        }
    }

    /// Receives, and comes back, until the worker ends.
    async fn run(mut self, mut connection: Connection) {
        loop {
            let ended = match self.receive(connection).await {
                Ok(never) => match never {},
                Err(ended) => ended,
            };
            let left_ns = now_ns();
            let since_go_ns = self.worker.since_go_ns();
            {
                let mut report = self.worker.report.borrow_mut();
                report.note_close(ended.to_string(), since_go_ns);
                report.followed.away_at_end += 1;
            }
            self.moved = true;
            connection = self.come_back().await;
            let mut report = self.worker.report.borrow_mut();
            let followed = &mut report.followed;
            followed.returns += 1;
            followed.away_at_end = followed.away_at_end.saturating_sub(1);
            followed.last_return_ns = now_ns();
            followed.away.record(followed.last_return_ns - left_ns);
        }
    }

    async fn come_back(&mut self) -> Connection {
        let mut most = BACKOFF * 2;
        loop {
            sleep(most.mul_f64(fastrand::f64())).await;
            most = (most * 2).min(BACKOFF_MAX);
            let server = self.worker.args.server_of(fastrand::usize(..));
            match self.connect(server).await {
                Ok(connection) => return connection,
                Err(ended) => {
                    let mut report = self.worker.report.borrow_mut();
                    let failed = &mut report.followed.failed;
                    *failed.entry(ended.to_string()).or_default() += 1;
                }
            }
        }
    }

    async fn connect(&mut self, server: SocketAddr) -> Result<Connection, Ended> {
        let late = || Ended::Io(std::io::ErrorKind::TimedOut.into());
        timeout(REPLY_PATIENCE, self.connect_to(server))
            .await
            .map_err(|_| late())?
    }

    async fn connect_to(&mut self, server: SocketAddr) -> Result<Connection, Ended> {
        let dial = Dial {
            server,
            ..self.worker.dial.clone()
        };
        let wish: Wish = self.worker.wish(self.index);
        let (mut client, mut write) = dial.open(&wish).await?;
        let mut hello = dial.dialect.hello(wish.token.as_deref(), None);
        hello.push('\n');
        hello.push_str(&self.place.subscribe());
        say(&mut write, &hello).await?;
        let mut subscribed = false;
        while !subscribed {
            subscribed = self.read(&mut client, &mut write).await?;
        }
        Ok((client, write))
    }

    async fn receive(
        &mut self,
        (mut client, mut write): Connection,
    ) -> Result<std::convert::Infallible, Ended> {
        loop {
            self.read(&mut client, &mut write).await?;
        }
    }

    /// One read. True when it brought the subscribe reply.
    async fn read(
        &mut self,
        client: &mut Client,
        write: &mut OwnedWriteHalf,
    ) -> Result<bool, Ended> {
        let (mut subscribed, mut unsubscribed, mut refused) = (false, false, 0);
        let Self {
            worker,
            place,
            moved,
            ..
        } = self;
        let read = client
            .read_text(|line, text| match line {
                Line::Delivery(stamp) => {
                    let number = number_behind(text, b"\"v\":");
                    let offset = number_behind(text, b"\"offset\":");
                    place.take(
                        &mut worker.report.borrow_mut(),
                        *moved,
                        stamp,
                        number,
                        offset,
                    );
                }
                Line::Reply(SUBSCRIBE, 0) => {
                    place.subscribed(&mut worker.report.borrow_mut(), *moved, text);
                    subscribed = true;
                }
                Line::Reply(_, code) => refused = refused.max(code),
                Line::Other => {
                    unsubscribed |= memmem::find(text, b"\"unsubscribe\":").is_some();
                }
                Line::Ping => {}
            })
            .await?;
        worker.count(read);
        client.answer(read, write).await?;
        if refused > 0 {
            return Err(Ended::Refused(refused));
        }
        if unsubscribed {
            worker.report.borrow_mut().followed.unsubscribed += 1;
            // SDKs spread this out as well.
            sleep(BACKOFF.mul_f64(fastrand::f64())).await;
            say(write, &self.place.subscribe()).await?;
        }
        Ok(subscribed)
    }
}

async fn say(write: &mut OwnedWriteHalf, text: &str) -> Result<(), Ended> {
    let mut out = Vec::with_capacity(text.len() + 16);
    frame::encode(frame::TEXT, text.as_bytes(), &mut out);
    Ok(write.write_all(&out).await?)
}

fn number_behind(text: &[u8], name: &[u8]) -> u64 {
    let digits = memmem::rfind(text, name).map_or(&b""[..], |at| &text[at + name.len()..]);
    digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .take(19)
        .fold(0, |n, byte| n * 10 + u64::from(byte - b'0'))
}

impl Place {
    fn subscribe(&self) -> String {
        let mut request = json!({ "channel": self.channel });
        if let Some((offset, epoch)) = &self.position {
            request["recover"] = json!(true);
            request["offset"] = json!(offset);
            request["epoch"] = json!(epoch);
        }
        json!({ "id": SUBSCRIBE, "subscribe": request }).to_string()
    }

    fn subscribed(&mut self, report: &mut Report, moved: bool, text: &[u8]) {
        let Ok(Reply { subscribe: reply }) = serde_json::from_slice(text) else {
            *report.errors.entry(0).or_default() += 1;
            return;
        };
        if self.position.is_some() {
            report.followed.recovered += reply.publications.len() as u64;
            if !reply.recovered {
                report.followed.told += 1;
                self.told = true;
            }
        }
        let recovered = self.position.is_some() && reply.recovered;
        if !recovered {
            self.position = Some((reply.offset, reply.epoch));
        }
        for Publication { data, offset } in reply.publications {
            let stamp = data.t.saturating_sub(LEADING_ONE);
            self.take(report, moved, stamp, data.v, offset);
        }
    }

    /// One message: is it the next?
    fn take(&mut self, report: &mut Report, moved: bool, stamp: u64, number: u64, offset: u64) {
        report.deliveries += 1;
        let latency = if moved {
            &mut report.followed.latency
        } else {
            &mut report.latency
        };
        latency.record(now_ns().saturating_sub(stamp));
        let followed = &mut report.followed;
        if number <= self.last {
            followed.repeated += 1;
            return;
        }
        let missing = number - self.last - 1;
        if std::mem::take(&mut self.told) {
            followed.told_missing += missing;
        } else {
            followed.lost += missing;
        }
        if let Some((expected, _)) = &mut self.position {
            followed.lost += u64::from(missing == 0 && offset != *expected + 1);
            *expected = offset;
        }
        followed.reached += number - self.last;
        self.last = number;
    }
}

#[cfg(test)]
mod tests;
