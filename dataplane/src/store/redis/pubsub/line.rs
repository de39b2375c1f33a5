//! A subscription connection to one server: made again until it is not wanted any more.
//!
//! Every frame is an event by itself; answers are not matched with questions. What was asked for and is not confirmed is
//! asked for again, as long as the table wants it. A server that is silent too long is taken for dead.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::Shared;
use super::connection::{self, Connection, Heard, Incoming, Writer};
use crate::store::redis::limits::{
    GATE_PAUSE, PING_INTERVAL, RECONNECT_PAUSE_MAX, RECONNECT_PAUSE_MIN, SILENCE_MAX,
    SUBSCRIBE_BATCH, SUBSCRIBE_REPEAT, SUBSCRIBE_WINDOW,
};
use crate::store::redis::topology::Address;

/// Frames handled in one go before the connection looks at its clock again.
const FRAMES_AT_ONCE: usize = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    Subscribe(u16, Bytes),
    Unsubscribe(u16, Bytes),
}

/// How the table speaks to a connection's task.
pub(super) struct Line {
    /// Not 0.
    pub(super) id: u32,
    pub(super) address: Address,
    /// Changed under the table's lock only.
    pub(super) is_up: AtomicBool,
    is_stopped: AtomicBool,
    /// Empty while down. Few more than there are subscriptions.
    asks: Mutex<VecDeque<Ask>>,
    work: Notify,
}

impl Line {
    pub(super) fn new(id: u32, address: Address) -> Self {
        Self {
            id,
            address,
            is_up: AtomicBool::new(false),
            is_stopped: AtomicBool::new(false),
            asks: Mutex::default(),
            work: Notify::new(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }

    pub(super) fn ask(&self, ask: Ask) {
        self.asks.lock().push_back(ask);
        self.work.notify_one();
    }

    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        self.work.notify_one();
    }

    /// Whoever is to be subscribed is about to be asked for again, all of them.
    pub(super) fn forget_subscribes(&self) {
        let is_unsubscribe = |ask: &Ask| matches!(ask, Ask::Unsubscribe(..));
        self.asks.lock().retain(is_unsubscribe);
    }

    pub(super) fn forget(&self) {
        *self.asks.lock() = VecDeque::new();
    }

    fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Relaxed)
    }
}

pub(super) async fn run(shared: Arc<Shared>, line: Arc<Line>) {
    let mut pause = Duration::ZERO;
    let mut was_up = false;
    while !line.is_stopped() {
        let settings = shared.cluster.settings();
        match connection::open(&line.address, settings).await {
            Ok(connection) => {
                let since = Instant::now();
                if std::mem::replace(&mut was_up, true) {
                    shared.cluster.metrics().reconnected();
                }
                shared.line_is_up(&line);
                let reason = serve(&shared, &line, connection).await;
                shared.line_is_down(&line);
                if let Some(reason) = reason {
                    tracing::warn!(server = %line.address, reason, "subscription connection lost");
                    shared.cluster.metrics().subscription_lost();
                    shared.cluster.doubt();
                }
                if since.elapsed() >= RECONNECT_PAUSE_MAX {
                    pause = Duration::ZERO;
                    continue;
                }
            }
            Err(error) => {
                tracing::debug!(server = %line.address, error, "no subscription connection");
            }
        }
        pause = (pause * 2).clamp(RECONNECT_PAUSE_MIN, RECONNECT_PAUSE_MAX);
        let _ = timeout(pause, stopped(&line)).await;
    }
}

async fn stopped(line: &Line) {
    while !line.is_stopped() {
        line.work.notified().await;
    }
}

/// Until the connection is lost (why), or not wanted any more.
async fn serve(shared: &Shared, line: &Line, connection: Connection) -> Option<&'static str> {
    let (mut incoming, mut writer) = connection;
    let mut asked = Asked::default();
    let mut heard = Instant::now();
    let mut next_tick = heard + SUBSCRIBE_REPEAT;
    let mut next_ping = heard + PING_INTERVAL;
    loop {
        if line.is_stopped() {
            return None;
        }
        let mut text = asked.next(line);
        let now = Instant::now();
        if now >= next_tick {
            next_tick = now + SUBSCRIBE_REPEAT;
            asked.repeat(shared, line, now);
            if now.duration_since(heard) > SILENCE_MAX {
                return Some("silent");
            }
        }
        if now >= next_ping {
            next_ping = now + PING_INTERVAL;
            connection::command(&mut text, &[b"PING"]);
        }
        if !text.is_empty() && !write(&mut writer, &text).await {
            return Some("does not take commands");
        }
        if !shared.gate.is_open() {
            tokio::time::sleep(GATE_PAUSE).await;
            // Who was not listened to was not silent.
            heard = Instant::now();
            continue;
        }
        tokio::select! {
            // First what came: after a pause of this process, that is what tells that the server lives.
            biased;
            frame = incoming.next() => match frame.map(|frame| frame.map(connection::heard)) {
                None | Some(Err(_)) => return Some("closed"),
                Some(Ok(event)) => {
                    heard = Instant::now();
                    asked.take(shared, line, event);
                    if !drain(&mut incoming, |event| asked.take(shared, line, event)) {
                        return Some("closed");
                    }
                }
            },
            () = line.work.notified() => {}
            () = tokio::time::sleep_until(next_tick) => {}
        }
    }
}

/// Handles what has come already; `false` when the connection ended.
fn drain(incoming: &mut Incoming, mut take: impl FnMut(Heard)) -> bool {
    for _ in 0..FRAMES_AT_ONCE {
        match incoming.next().now_or_never() {
            None => return true,
            Some(Some(Ok(frame))) => take(connection::heard(frame)),
            Some(None | Some(Err(_))) => return false,
        }
    }
    true
}

async fn write(writer: &mut Writer, text: &BytesMut) -> bool {
    let written = timeout(SILENCE_MAX, async {
        writer.write_all(text).await?;
        writer.flush().await
    });
    matches!(written.await, Ok(Ok(())))
}

/// Subscriptions that the server has not confirmed yet, with the time of asking.
#[derive(Default)]
struct Asked(HashMap<Bytes, (u16, Instant)>);

impl Asked {
    /// Commands for what is to be asked next, of one kind, as much as the window lets through.
    fn next(&mut self, line: &Line) -> BytesMut {
        let now = Instant::now();
        let mut subscribe: BTreeMap<u16, Vec<Bytes>> = BTreeMap::new();
        let mut unsubscribe: BTreeMap<u16, Vec<Bytes>> = BTreeMap::new();
        {
            let mut asks = line.asks.lock();
            while let Some(ask) = asks.pop_front() {
                match ask {
                    Ask::Subscribe(slot, channel) => {
                        if !unsubscribe.is_empty() || self.0.len() >= SUBSCRIBE_WINDOW {
                            asks.push_front(Ask::Subscribe(slot, channel));
                            break;
                        }
                        if !self.0.contains_key(&channel) {
                            self.0.insert(channel.clone(), (slot, now));
                            subscribe.entry(slot).or_default().push(channel);
                        }
                    }
                    Ask::Unsubscribe(slot, channel) => {
                        if !subscribe.is_empty() {
                            asks.push_front(Ask::Unsubscribe(slot, channel));
                            break;
                        }
                        unsubscribe.entry(slot).or_default().push(channel);
                    }
                }
            }
            if asks.is_empty() {
                asks.shrink_to(SUBSCRIBE_BATCH);
            } else if self.0.len() < SUBSCRIBE_WINDOW {
                line.work.notify_one();
            }
        }
        let mut text = BytesMut::new();
        for (word, slots) in [("SSUBSCRIBE", subscribe), ("SUNSUBSCRIBE", unsubscribe)] {
            for channels in slots.values().flat_map(|of| of.chunks(SUBSCRIBE_BATCH)) {
                let mut words: Vec<&[u8]> = vec![word.as_bytes()];
                words.extend(channels.iter().map(|channel| &channel[..]));
                connection::command(&mut text, &words);
            }
        }
        text
    }

    /// Puts back what has waited too long for its confirmation and is still wanted.
    fn repeat(&mut self, shared: &Shared, line: &Line, now: Instant) {
        if self.0.is_empty() {
            self.0.shrink_to_fit();
            return;
        }
        let is_late = |at: Instant| now.duration_since(at) >= SUBSCRIBE_REPEAT;
        let late = self.0.extract_if(|_, (_, at)| is_late(*at));
        let late: Vec<(Bytes, u16)> = late.map(|(channel, (slot, _))| (channel, slot)).collect();
        if late.is_empty() {
            return;
        }
        shared.cluster.doubt();
        let table = shared.table.lock();
        for (channel, slot) in late {
            if table.wants(line, &channel) {
                line.ask(Ask::Subscribe(slot, channel));
            }
        }
    }

    fn take(&mut self, shared: &Shared, line: &Line, event: Heard) {
        match event {
            Heard::Message(channel, payload) => {
                let receiver = shared.table.lock().receiver(&channel);
                if let Some(receiver) = receiver.and_then(|receiver| receiver.upgrade()) {
                    receiver.message(&channel, payload);
                }
            }
            Heard::Subscribed(channel) => {
                self.0.remove(&channel);
                let told = shared.table.lock().carried(line, &channel);
                if let Some(receiver) = told.and_then(|receiver| receiver.upgrade()) {
                    receiver.interrupted(&channel);
                }
            }
            Heard::Unsubscribed(channel) => {
                self.0.remove(&channel);
                shared.table.lock().withdrawn(line, &channel);
            }
            Heard::Refusal(error) => {
                tracing::debug!(server = %line.address, error, "subscription refused");
                shared.cluster.doubt();
            }
            Heard::Life => {}
        }
    }
}
