//! One client: a task that owns the socket, the session and its timers.
//!
//! The task waits in [`Connection::poll_wake`], whose future is small and owns no buffer: reads go through the
//! worker's buffer, and handling a message is a boxed future that exists only while it runs. The hub writes to the
//! socket directly (`flush`); the task is woken only to read, for timers, for a full socket, or to close.

mod ask;
mod close;
mod effects;
mod flush;
#[cfg(test)]
pub(super) mod tests;
mod timers;

use std::cell::{Cell, Ref, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Sleep;

use super::account::Seat;
use super::codes::{self, Disconnect};
use super::frame::{self, Inbound, Kind, Reader};
use super::heartbeat::Heartbeat;
use super::http::Place;
use super::hub::Dirty;
use super::limits::{
    CONTROLS_MAX, HANDLING_LONG_MS, STUCK_MS, TAKING_MS, UNRESERVED_MESSAGE_BYTES,
};
use super::outbox::{Allowance, Frame, Outbox};
use super::protocol::{Commands, Encoding, Request};
use super::session::{Control, Session};
use super::shared::Admitted;
use super::socket::Socket;
use super::worker::Worker;

pub struct Connection {
    socket: Socket,
    encoding: Encoding,
    outbox: RefCell<Outbox>,
    session: RefCell<Session>,
    controls: RefCell<VecDeque<Ordered>>,
    reader: RefCell<Reader>,
    heartbeat: Cell<Heartbeat>,
    waker: RefCell<Option<Waker>>,
    /// Why the connection is to be closed; the first reason stays. Nothing is queued any more once it is set.
    closing: RefCell<Option<Disconnect>>,
    /// The connection's place in its account.
    seat: RefCell<Option<Seat>>,
    /// Inbound memory reserved from the worker for a message on its way.
    reserved_bytes: Cell<usize>,
    /// In the worker's list of connections to be written.
    dirty: Cell<bool>,
    /// The socket took less than there was: the task waits until it is writable.
    blocked: Cell<bool>,
    /// No reading until the worker has inbound memory.
    paused: Cell<bool>,
    /// When the socket last took bytes, on the worker's clock.
    wrote_at_ms: Cell<u64>,
    /// When a command came, or a message for the client, on the worker's clock in [`ACTIVE_GRAIN_MS`]; pings and pongs do not
    /// count.
    active_at: Cell<u32>,
    /// Commands are being worked on.
    busy: Cell<bool>,
    /// Bytes received since the last ping: a pong may have to wait behind many.
    heard_bytes: Cell<u32>,
    /// Bytes the socket took since the last ping: the ping may have to wait behind them.
    sent_bytes: Cell<u32>,
    /// How often the time for the pong was extended.
    extensions: Cell<u8>,
    /// The socket is dead or the peer has closed: nothing can be written.
    gone: Cell<bool>,
}

/// An order that waits for the task.
struct Ordered {
    control: Control,
    done: Option<mpsc::Sender<()>>,
}

/// A year and more of them are counted in four bytes.
const ACTIVE_GRAIN_MS: u64 = 10;

/// More than four bytes can count is as much as one needs to know.
fn add(bytes: &Cell<u32>, more: usize) {
    let more = u32::try_from(more).unwrap_or(u32::MAX);
    bytes.set(bytes.get().saturating_add(more));
}

fn grains(clock_ms: u64) -> u32 {
    u32::try_from(clock_ms / ACTIVE_GRAIN_MS).unwrap_or(u32::MAX)
}

enum Wake {
    /// Messages are in the inbox.
    Inbound,
    Control(Ordered),
    Timer,
    Close,
}

/// A socket that has become a WebSocket.
pub struct Upgraded {
    pub socket: Socket,
    pub encoding: Encoding,
    /// Bytes that came behind the upgrade request.
    pub early: Bytes,
    /// Given back when the connection is gone.
    pub admitted: Admitted,
    pub place: Place,
}

/// Serves one client until it is gone.
pub async fn run(worker: Rc<Worker>, upgraded: Upgraded) {
    let Upgraded {
        socket,
        encoding,
        early,
        admitted,
        place,
    } = upgraded;
    let connection = Rc::new(Connection::new(&worker, socket, encoding));
    let key = worker.register(&connection);
    connection.drive(&worker, early).await;
    let disconnect = connection
        .closing
        .borrow()
        .clone()
        .unwrap_or(codes::CLOSE_NORMAL);
    worker.metrics().disconnected(disconnect.code);
    // Boxed: closing is rare, and its state would make every idle connection larger.
    Box::pin(connection.finish(&worker, &disconnect)).await;
    worker.unregister(key);
    drop((admitted, place));
}

impl Connection {
    fn new(worker: &Worker, socket: Socket, encoding: Encoding) -> Self {
        let client = uuid::Uuid::new_v4().to_string();
        Self {
            socket,
            encoding,
            outbox: RefCell::default(),
            session: RefCell::new(Session::new(client.into(), encoding)),
            controls: RefCell::default(),
            reader: RefCell::default(),
            heartbeat: Cell::new(Heartbeat::new(worker.clock_ms())),
            waker: RefCell::default(),
            closing: RefCell::default(),
            seat: RefCell::default(),
            reserved_bytes: Cell::new(0),
            dirty: Cell::new(false),
            blocked: Cell::new(false),
            paused: Cell::new(false),
            wrote_at_ms: Cell::new(worker.clock_ms()),
            active_at: Cell::new(grains(worker.clock_ms())),
            busy: Cell::new(false),
            heard_bytes: Cell::new(0),
            sent_bytes: Cell::new(0),
            extensions: Cell::new(0),
            gone: Cell::new(false),
        }
    }

    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    pub fn session(&self) -> &RefCell<Session> {
        &self.session
    }

    pub fn seat(&self) -> Ref<'_, Option<Seat>> {
        self.seat.borrow()
    }

    /// Account and user of a connected client.
    pub fn user_key(&self) -> Option<(Arc<str>, Arc<str>)> {
        self.session.borrow().identity()
    }

    /// Since when nothing has come from the client or for it; `None` while something is on its way, and before it is connected.
    pub fn idle_since_ms(&self) -> Option<u64> {
        let busy = self.busy.get()
            || self.blocked.get()
            || self.paused.get()
            || self.reserved_bytes.get() > 0
            || self.is_leaving()
            || !self.controls.borrow().is_empty();
        let connected = !busy && self.session.borrow().is_connected();
        let active_at_ms = u64::from(self.active_at.get()) * ACTIVE_GRAIN_MS;
        (connected && self.waiting_bytes() == 0).then_some(active_at_ms)
    }

    /// It is being closed already, or has gone.
    pub fn is_leaving(&self) -> bool {
        self.closing.borrow().is_some() || self.gone.get()
    }

    pub fn waiting_bytes(&self) -> usize {
        self.outbox.borrow().waiting_bytes()
    }

    /// Has much waiting, and still takes some of it.
    pub fn is_behind(&self, allowance: Allowance) -> bool {
        self.waiting_bytes() > allowance.queue_bytes / 4
            && allowance.now_ms.saturating_sub(self.wrote_at_ms.get()) < STUCK_MS
    }

    /// Over the limit the client is closed as slow; whether the frame is queued.
    fn admit(&self, frame: Frame, allowance: Allowance) -> bool {
        if self.closing.borrow().is_some() {
            return false;
        }
        // A socket that was not full has not been asked to take what came since.
        let taking = !self.blocked.get()
            || allowance.now_ms.saturating_sub(self.wrote_at_ms.get()) < TAKING_MS;
        let pushed = self.outbox.borrow_mut().push(frame, allowance, taking);
        if pushed.is_err() {
            self.request_close(codes::DISCONNECT_SLOW);
        }
        pushed.is_ok()
    }

    /// Queues a frame for the worker's next flush. Over the limit the client is closed as slow.
    pub fn enqueue(self: &Rc<Self>, frame: Frame, allowance: Allowance, dirty: &mut Dirty) {
        self.active_at.set(grains(allowance.now_ms));
        if self.admit(frame, allowance) && !self.dirty.replace(true) {
            dirty.push_back(Rc::clone(self));
        }
    }

    pub fn request_close(&self, disconnect: Disconnect) {
        let mut closing = self.closing.borrow_mut();
        if closing.is_none() {
            *closing = Some(disconnect);
            self.wake();
        }
    }

    /// Hands an order to the task. `done` is dropped when it has been carried out.
    pub fn control(&self, control: Control, done: Option<mpsc::Sender<()>>) {
        let mut controls = self.controls.borrow_mut();
        if controls.len() >= CONTROLS_MAX {
            drop(controls);
            self.request_close(codes::DISCONNECT_SLOW);
            return;
        }
        controls.push_back(Ordered { control, done });
        self.wake();
    }

    /// Inbound memory was granted.
    pub fn resume(&self, reserved_bytes: usize) {
        self.reserved_bytes.set(reserved_bytes);
        self.paused.set(false);
        self.wake();
    }

    /// What a paused connection waits for; `None` when it is on its way out.
    pub fn wanted_bytes(&self) -> Option<usize> {
        (self.paused.get() && self.closing.borrow().is_none())
            .then(|| self.reader.borrow().reserved_bytes())
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    async fn drive(self: &Rc<Self>, worker: &Rc<Worker>, early: Bytes) {
        let mut inbox = VecDeque::new();
        self.take_in(worker, &early, &mut inbox);
        drop(early);
        let mut deadline_ms = self.due_ms(worker);
        let sleep = tokio::time::sleep_until(worker.timer_at(deadline_ms));
        tokio::pin!(sleep);
        loop {
            match poll_fn(|cx| self.poll_wake(cx, worker, sleep.as_mut(), &mut inbox)).await {
                Wake::Inbound => {
                    let began_ms = worker.clock_ms();
                    self.busy.set(true);
                    Box::pin(self.handle(worker, &mut inbox)).await;
                    self.busy.set(false);
                    if worker.clock_ms() - began_ms >= HANDLING_LONG_MS {
                        let mut heartbeat = self.heartbeat.get();
                        heartbeat.extend(worker.clock_ms(), worker.heartbeat());
                        self.heartbeat.set(heartbeat);
                    }
                }
                Wake::Control(ordered) => {
                    self.busy.set(true);
                    Box::pin(self.obey(worker, ordered)).await;
                    self.busy.set(false);
                }
                Wake::Timer => Box::pin(self.tick(worker)).await,
                Wake::Close => return,
            }
            let due_ms = self.due_ms(worker);
            if due_ms != deadline_ms {
                deadline_ms = due_ms;
                sleep.as_mut().reset(worker.timer_at(due_ms));
            }
        }
    }

    fn poll_wake(
        self: &Rc<Self>,
        cx: &mut Context<'_>,
        worker: &Worker,
        sleep: Pin<&mut Sleep>,
        inbox: &mut VecDeque<Inbound>,
    ) -> Poll<Wake> {
        self.remember(cx);
        if self.closing.borrow().is_some() || self.gone.get() {
            return Poll::Ready(Wake::Close);
        }
        if let Some(control) = self.take_control() {
            return Poll::Ready(Wake::Control(control));
        }
        if self.poll_flush(cx, worker).is_err() {
            self.gone.set(true);
            return Poll::Ready(Wake::Close);
        }
        if !inbox.is_empty() {
            return Poll::Ready(Wake::Inbound);
        }
        while !self.paused.get() {
            let mut buffer = worker.read_buffer();
            let bytes = worker.ingress().read_bytes_max(self.reserved_bytes.get());
            match self.socket.poll_read(cx, &mut buffer[..bytes]) {
                Poll::Pending => break,
                Poll::Ready(Ok(0) | Err(_)) => {
                    self.gone.set(true);
                    return Poll::Ready(Wake::Close);
                }
                Poll::Ready(Ok(read)) => {
                    add(&self.heard_bytes, read);
                    self.take_in(worker, &buffer[..read], inbox);
                }
            }
            if self.closing.borrow().is_some() {
                return Poll::Ready(Wake::Close);
            }
            if !inbox.is_empty() {
                return Poll::Ready(Wake::Inbound);
            }
        }
        sleep.poll(cx).map(|()| Wake::Timer)
    }

    fn remember(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()))
        {
            *waker = Some(cx.waker().clone());
        }
    }

    fn take_control(&self) -> Option<Ordered> {
        let mut controls = self.controls.borrow_mut();
        let control = controls.pop_front();
        if controls.is_empty() && controls.capacity() > 0 {
            *controls = VecDeque::new();
        }
        control
    }

    /// Bytes from the peer to messages in the inbox; reserves inbound memory for what is still to come.
    fn take_in(self: &Rc<Self>, worker: &Worker, bytes: &[u8], inbox: &mut VecDeque<Inbound>) {
        let message_bytes_max = worker.message_bytes_max();
        let mut reader = self.reader.borrow_mut();
        let outcome = reader.read(bytes, message_bytes_max, &mut |inbound| {
            inbox.push_back(inbound)
        });
        worker.count_received(bytes.len());
        if let Err(disconnect) = outcome {
            self.request_close(disconnect);
            return;
        }
        let wanted = reader.reserved_bytes();
        if wanted > UNRESERVED_MESSAGE_BYTES && wanted > self.reserved_bytes.get() {
            if worker.ingress().reserve(wanted - self.reserved_bytes.get()) {
                self.reserved_bytes.set(wanted);
            } else {
                self.paused.set(true);
                worker.wait_for_ingress(self);
            }
        }
    }

    async fn handle(self: &Rc<Self>, worker: &Rc<Worker>, inbox: &mut VecDeque<Inbound>) {
        while let Some(inbound) = inbox.pop_front() {
            if self.closing.borrow().is_some() {
                break;
            }
            match inbound {
                Inbound::Message(message) => self.message(worker, message).await,
                Inbound::Ping(payload) => {
                    let mut bytes = Vec::new();
                    frame::write(Kind::Pong, &payload, &mut bytes);
                    self.send(worker, bytes);
                }
                Inbound::Pong => {}
                Inbound::Close(code) => {
                    self.request_close(Disconnect {
                        code: code.unwrap_or(1000),
                        reason: "".into(),
                    });
                }
            }
        }
        if inbox.is_empty() && inbox.capacity() > 0 {
            *inbox = VecDeque::new();
        }
        if self.reserved_bytes.get() > 0 && self.reader.borrow().reserved_bytes() == 0 {
            worker.release_ingress(self.reserved_bytes.take());
        }
        self.flush(worker);
    }

    /// One frame: one command or several.
    async fn message(self: &Rc<Self>, worker: &Rc<Worker>, message: Bytes) {
        for command in Commands::new(self.encoding, message) {
            let Ok(command) = command else {
                self.request_close(codes::DISCONNECT_BAD_REQUEST);
                return;
            };
            worker.count_command();
            if command.request == Request::Empty
                && command.id == 0
                && self.session.borrow().is_connected()
            {
                self.pong();
            } else {
                self.active_at.set(grains(worker.clock_ms()));
                let step =
                    worker.with_env(self, |env| self.session.borrow_mut().command(command, env));
                self.carry_out(worker, step).await;
            }
            if self.closing.borrow().is_some() {
                return;
            }
        }
    }

    async fn obey(self: &Rc<Self>, worker: &Rc<Worker>, ordered: Ordered) {
        let Ordered { control, done } = ordered;
        let step = worker.with_env(self, |env| self.session.borrow_mut().control(control, env));
        self.carry_out(worker, step).await;
        self.flush(worker);
        drop(done);
    }
}
