//! A worker: one thread with its own runtime, its connections and its hub.
//!
//! A connection stays on the worker that accepted it, so nothing a delivery touches is shared with another thread.
//! The worker's deliverer takes all events that have come, appends them to the outboxes of their readers, and writes
//! every touched socket once: what comes while it writes is taken together in the next round. Under load messages
//! thus leave many to a write, and without load each leaves at once.

mod deliver;
mod ingress;
mod orders;

use std::cell::{Cell, RefCell, RefMut};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use slab::Slab;
use sluice_crds::config::{GatewayConfig, Heartbeat};
use tokio::sync::Notify;
use tokio::time::Instant;

use self::ingress::Ingress;
pub use self::orders::{LeavingClient, Order, Target};
use super::account::Seat;
use super::channel::Channel;
use super::connection::Connection;
use super::frame;
use super::hub::{Dirty, Hub, Membership};
use super::limits::{
    BURST_QUEUES, QUEUE_BYTES_UNDER_PRESSURE, READ_BUFFER_BYTES, TIMER_GRAIN_MS, WRITE_GATHER_BYTES,
};
use super::mailbox::Mailbox;
use super::metrics::{Metrics, Operation};
use super::outbox::{Allowance, Frame, FrameBytes};
use super::protocol::{self, Encoding, Position, Publication};
use super::router::Router;
use super::seats;
use super::session::{Env, MemberKey};
use super::shared::Shared;
use crate::auth::Authenticator;
use crate::clock::unix_ms;
use crate::store::{Broker, Holder, Presence};

#[derive(Default)]
struct Counts {
    deliveries: Cell<u64>,
    commands: Cell<u64>,
    received_bytes: Cell<u64>,
    writes: Cell<u64>,
    sent_bytes: Cell<u64>,
}

fn add(count: &Cell<u64>, more: u64) {
    count.set(count.get() + more);
}

/// User of an account.
type UserKey = (Arc<str>, Arc<str>);

pub struct Worker {
    index: usize,
    shared: Arc<Shared>,
    mailbox: Arc<Mailbox>,
    /// The configuration as of this worker's last look.
    config: RefCell<Arc<GatewayConfig>>,
    hub: RefCell<Hub>,
    connections: RefCell<Slab<Rc<Connection>>>,
    users: RefCell<HashMap<UserKey, Vec<Rc<Connection>>, RandomState>>,
    dirty: RefCell<Dirty>,
    /// Channels whose publishers wait for this worker's readers.
    congested: RefCell<Vec<Channel>>,
    congestion_began: Notify,
    ingress: Ingress,
    /// Connections waiting for inbound memory, first come first served.
    ingress_queue: RefCell<std::collections::VecDeque<Rc<Connection>>>,
    frame_bytes: FrameBytes,
    frame_bytes_max: usize,
    read_buffer: RefCell<Box<[u8]>>,
    write_buffer: RefCell<Vec<u8>>,
    pings: [Frame; 2],
    epoch: Instant,
    /// `clock_ms` as of the last round or probe: good enough for what is compared with seconds.
    coarse_ms: Cell<u64>,
    /// Counted here and added to the metrics by `probe`: a shared counter per write would cost as much as the copy.
    counts: Counts,
}

impl Worker {
    pub fn new(index: usize, shared: Arc<Shared>) -> Rc<Self> {
        let frame_bytes = FrameBytes::default();
        let (ingress_bytes, frame_bytes_max) = shared.worker_memory_bytes();
        Rc::new(Self {
            index,
            mailbox: Arc::clone(&shared.router().mailboxes()[index]),
            config: RefCell::new(shared.config()),
            shared,
            hub: RefCell::new(Hub::new(Rc::clone(&frame_bytes))),
            connections: RefCell::default(),
            users: RefCell::default(),
            dirty: RefCell::default(),
            congested: RefCell::default(),
            congestion_began: Notify::new(),
            ingress: Ingress::new(ingress_bytes),
            ingress_queue: RefCell::default(),
            pings: [Encoding::Json, Encoding::Protobuf].map(|encoding| {
                let bytes = frame::message(encoding, protocol::ping(encoding));
                Frame::new(bytes, &frame_bytes)
            }),
            frame_bytes,
            frame_bytes_max,
            read_buffer: RefCell::new(vec![0; READ_BUFFER_BYTES].into()),
            write_buffer: RefCell::new(Vec::with_capacity(WRITE_GATHER_BYTES)),
            epoch: Instant::now(),
            coarse_ms: Cell::new(0),
            counts: Counts::default(),
        })
    }

    pub fn index(&self) -> usize {
        self.index
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub fn config(&self) -> Arc<GatewayConfig> {
        Arc::clone(&self.config.borrow())
    }

    /// As [`Worker::config`], without touching what other threads touch.
    pub fn with_config<T>(&self, look: impl FnOnce(&GatewayConfig) -> T) -> T {
        look(&self.config.borrow())
    }

    pub fn broker(&self) -> &dyn Broker {
        self.shared.broker()
    }

    pub fn presence(&self) -> &dyn Presence {
        self.shared.presence()
    }

    pub fn holder(&self) -> &Holder {
        self.shared.holder()
    }

    pub fn router(&self) -> &Router {
        self.shared.router()
    }

    pub fn metrics(&self) -> &Metrics {
        self.shared.metrics()
    }

    pub fn authenticator(&self) -> Arc<Authenticator> {
        self.shared.authenticator()
    }

    pub fn frame_bytes(&self) -> &FrameBytes {
        &self.frame_bytes
    }

    pub fn ping_frame(&self, encoding: Encoding) -> Frame {
        self.pings[usize::from(encoding == Encoding::Protobuf)].clone()
    }

    pub fn read_buffer(&self) -> RefMut<'_, Box<[u8]>> {
        self.read_buffer.borrow_mut()
    }

    pub fn write_buffer(&self) -> RefMut<'_, Vec<u8>> {
        self.write_buffer.borrow_mut()
    }

    pub fn message_bytes_max(&self) -> usize {
        self.config.borrow().relay.limits.message_bytes
    }

    pub fn heartbeat(&self) -> Heartbeat {
        self.config.borrow().relay.heartbeat
    }

    pub fn count_command(&self) {
        add(&self.counts.commands, 1);
    }

    pub fn count_received(&self, bytes: usize) {
        add(&self.counts.received_bytes, bytes as u64);
    }

    /// A write that the socket took.
    pub fn count_write(&self, bytes: usize) {
        add(&self.counts.writes, 1);
        add(&self.counts.sent_bytes, bytes as u64);
    }

    /// Milliseconds of this worker's monotonic clock.
    pub fn clock_ms(&self) -> u64 {
        self.epoch.elapsed().as_millis() as u64
    }

    pub fn coarse_ms(&self) -> u64 {
        self.coarse_ms.get()
    }

    fn look_at_clock(&self) {
        self.coarse_ms.set(self.clock_ms());
    }

    /// For timers: up to a grain later, so that the timers of many connections fire together and wake the thread once.
    pub fn timer_at(&self, clock_ms: u64) -> Instant {
        self.epoch + Duration::from_millis((clock_ms / TIMER_GRAIN_MS + 1) * TIMER_GRAIN_MS)
    }

    pub fn unix_seconds(&self) -> u64 {
        unix_ms() / 1_000
    }

    /// What one client may have waiting: less when the frames of all take too much memory.
    pub fn allowance(&self) -> Allowance {
        let limit = self.config.borrow().relay.limits.queue_bytes_per_client;
        let (queue_bytes, burst_bytes) = if self.frame_bytes.get() > self.frame_bytes_max {
            let pressed = limit.min(QUEUE_BYTES_UNDER_PRESSURE);
            (pressed, pressed)
        } else {
            (limit, limit.saturating_mul(BURST_QUEUES))
        };
        Allowance {
            queue_bytes,
            burst_bytes,
            now_ms: self.coarse_ms(),
        }
    }

    /// The process sheds: whoever is slow now may not be so by his own fault.
    pub fn is_overloaded(&self) -> bool {
        self.shared.pressure().level().sheds_queries()
    }

    /// Runs a decision of the connection's session with what it may look at.
    pub fn with_env<T>(&self, connection: &Connection, decide: impl FnOnce(&Env<'_>) -> T) -> T {
        let config = self.config.borrow();
        let seat = connection.seat();
        decide(&Env {
            relay: &config.relay,
            now_ms: unix_ms(),
            shed_queries: self.is_overloaded(),
            account: seat.as_ref().map(Seat::state),
        })
    }

    pub async fn enter_account(&self, account: &Arc<str>) -> Option<Seat> {
        let limit = self.config.borrow().relay.limits.connections_per_account;
        seats::enter(&self.shared, account, limit).await
    }

    pub fn register(&self, connection: &Rc<Connection>) -> usize {
        self.shared.metrics().connected();
        self.connections.borrow_mut().insert(Rc::clone(connection))
    }

    pub fn unregister(&self, key: usize) {
        self.connections.borrow_mut().try_remove(key);
        self.shared.metrics().gone();
    }

    pub fn remember_user(&self, connection: &Rc<Connection>) {
        if let Some(user) = connection.user_key() {
            self.users
                .borrow_mut()
                .entry(user)
                .or_insert_with(|| Vec::with_capacity(1))
                .push(Rc::clone(connection));
        }
    }

    /// To be called before the session ends: afterwards the user is not known any more.
    pub fn forget_user(&self, connection: &Rc<Connection>) {
        let Some(user) = connection.user_key() else {
            return;
        };
        let mut users = self.users.borrow_mut();
        if let Some(connections) = users.get_mut(&user) {
            connections.retain(|known| !Rc::ptr_eq(known, connection));
            if connections.is_empty() {
                users.remove(&user);
            }
        }
    }

    pub fn attach(&self, channel: &Channel, wants: Membership) -> (MemberKey, i64) {
        self.hub.borrow_mut().attach(channel, wants)
    }

    pub fn follow(
        &self,
        channel: &Channel,
        member: MemberKey,
        at: Option<Position>,
        sent: Option<&Publication>,
    ) {
        self.hub.borrow_mut().follow(channel, member, at, sent);
    }

    pub fn release_member(&self, channel: &Channel, member: MemberKey) {
        let allowance = self.allowance();
        self.hub
            .borrow_mut()
            .release(channel, member, allowance, &mut self.dirty.borrow_mut());
    }

    /// Takes a member that `Router::join` counted out of hub and interest.
    pub async fn detach(&self, channel: &Channel, member: MemberKey) {
        self.hub.borrow_mut().detach(channel, member);
        let has_members = || self.hub.borrow().has_members(channel);
        if let Err(error) = self
            .router()
            .leave(self.index, channel, &has_members, self.broker())
            .await
        {
            self.metrics().store_failed(Operation::Unsubscribe, &error);
        }
    }

    pub fn ingress(&self) -> &Ingress {
        &self.ingress
    }

    /// The connection reads on when there is inbound memory for its message.
    pub fn wait_for_ingress(&self, connection: &Rc<Connection>) {
        self.ingress_queue
            .borrow_mut()
            .push_back(Rc::clone(connection));
    }

    pub fn release_ingress(&self, bytes: usize) {
        self.ingress.release(bytes);
        let mut queue = self.ingress_queue.borrow_mut();
        while let Some(connection) = queue.front() {
            if let Some(wanted) = connection.wanted_bytes() {
                if !self.ingress.reserve(wanted) {
                    break;
                }
                connection.resume(wanted);
            }
            queue.pop_front();
        }
    }
}
