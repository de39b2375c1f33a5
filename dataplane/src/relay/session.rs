//! A client's protocol state: commands in, effects out. Pure.
//!
//! A session never does I/O and never reads a clock. Each method returns a [`Step`]: effects to apply in order, and
//! at most one [`Ask`], something the session needs from outside (a verified token, a store's answer). The
//! connection carries the ask out and enters again through the method that the ask names. Commands of one client
//! are handled one after another, so at most one ask is open.
//!
//! The session owns who the client is and what it is subscribed to. What has been delivered on a subscription
//! (position, delta base) is the hub's.

mod connect;
mod control;
mod expiry;
mod publish;
mod query;
mod subscribe;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;

use sluice_crds::config;

pub use self::connect::ConnectContext;
pub use self::control::{Control, ServerSubscribe};
pub use self::expiry::RefreshContext;
pub use self::publish::{PublishAsk, publish_options};
pub use self::query::{Query, QueryError};
pub use self::subscribe::{Plan, SubscribeContext, SubscribeError, Subscribed, VerifiedSubscribe};
use super::account::AccountState;
use super::channel::Channel;
use super::codes::{self, Disconnect};
use super::filter::Filter;
use super::protocol::{
    ClientInfo, Command, ConnectRequest, Encoding, ErrorReply, Payload, Position, Reply, Request,
    ResultBody,
};
use super::rate::Bucket;

/// Identifies a membership in the worker's hub.
pub type MemberKey = u32;

/// What a session may look at while it decides.
pub struct Env<'a> {
    pub relay: &'a config::Relay,
    pub now_ms: u64,
    /// Overload: server-list queries are refused.
    pub shed_queries: bool,
    /// Shared by all connections of the account; `None` before connect.
    pub account: Option<&'a AccountState>,
}

impl Env<'_> {
    fn now_seconds(&self) -> u64 {
        self.now_ms / 1_000
    }
}

#[derive(Debug, Default)]
pub struct Step {
    pub effects: Vec<Effect>,
    pub ask: Option<Ask>,
}

/// Something to carry out, in order.
#[derive(Debug)]
pub enum Effect {
    Reply(Reply),
    PushUnsubscribe {
        channel: Channel,
        code: u32,
        reason: &'static str,
    },
    PushSubscribe {
        channel: Channel,
        recoverable: bool,
        positioned: bool,
        position: Position,
        data: Payload,
    },
    PushRefresh {
        expires: bool,
        ttl: u32,
    },
    /// Deliver what was held back while the subscribe reply was being made, then deliver live.
    Release {
        channel: Channel,
        member: MemberKey,
    },
    Join {
        channel: Channel,
        info: Arc<ClientInfo>,
    },
    /// Be in presence again; to the others the client has left.
    JoinAgain {
        channel: Channel,
        info: Arc<ClientInfo>,
        announce: bool,
    },
    /// The subscription is over: leave hub and presence, tell the others.
    Leave(Subscription),
    Close(Disconnect),
}

/// Something the session waits for.
#[derive(Debug)]
pub enum Ask {
    /// Verify the token, then `Session::identified`.
    Identify {
        token: String,
        context: ConnectContext,
    },
    /// Count the connection to its account, then `Session::admitted`.
    Admit {
        account: Arc<str>,
        context: Box<connect::Admission>,
    },
    /// Verify the token, then `Session::refreshed`.
    Refresh {
        token: String,
        context: RefreshContext,
    },
    /// Verify the token, then `Session::subscription_verified`.
    VerifySubscription {
        token: String,
        context: VerifiedSubscribe,
    },
    /// Join the channels, then `Session::subscribed`.
    Subscribe {
        plans: Vec<Plan>,
        context: SubscribeContext,
    },
    /// Publish, then `Session::published`.
    Publish(PublishAsk),
    /// Ask the store, then `Session::queried`.
    Query { id: u32, query: Query },
}

impl Step {
    fn none() -> Self {
        Self::default()
    }

    fn effect(effect: Effect) -> Self {
        Self {
            effects: vec![effect],
            ask: None,
        }
    }

    fn reply(id: u32, result: ResultBody) -> Self {
        Self::effect(Effect::Reply(Reply {
            id,
            result: Ok(result),
        }))
    }

    fn error(id: u32, error: ErrorReply) -> Self {
        Self::effect(Effect::Reply(Reply {
            id,
            result: Err(error),
        }))
    }

    fn close(disconnect: Disconnect) -> Self {
        Self::effect(Effect::Close(disconnect))
    }

    fn ask(ask: Ask) -> Self {
        Self {
            effects: Vec::new(),
            ask: Some(ask),
        }
    }
}

/// A channel the client is in.
#[derive(Debug, Clone)]
pub struct Subscription {
    pub channel: Channel,
    pub member: MemberKey,
    /// As others see the client in this channel.
    pub info: Arc<ClientInfo>,
    pub presence: bool,
    /// Joins and leaves of this client are announced.
    pub announce: bool,
    server_side: bool,
    /// Unix seconds.
    expires_at: Option<u64>,
}

#[derive(Debug)]
enum Phase {
    Fresh,
    /// A connect command is being worked on.
    Connecting,
    Connected(Box<Live>),
    Ended,
}

/// State of a connected client.
#[derive(Debug)]
struct Live {
    account: Arc<str>,
    info: Arc<ClientInfo>,
    /// Unix seconds.
    expires_at: Option<u64>,
    subscriptions: Vec<Subscription>,
    messages: Bucket,
    /// The client understands numeric channel ids.
    compaction: bool,
}

#[derive(Debug)]
pub struct Session {
    client: Arc<str>,
    encoding: Encoding,
    phase: Phase,
    commands: Bucket,
}

impl Session {
    /// `client` is the connection's unique id.
    pub fn new(client: Arc<str>, encoding: Encoding) -> Self {
        Self {
            client,
            encoding,
            phase: Phase::Fresh,
            commands: Bucket::default(),
        }
    }

    pub fn client(&self) -> &Arc<str> {
        &self.client
    }

    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected(_))
    }

    /// Account and user of a connected client.
    pub fn identity(&self) -> Option<(Arc<str>, Arc<str>)> {
        self.live()
            .map(|live| (Arc::clone(&live.account), Arc::clone(&live.info.user)))
    }

    pub fn command(&mut self, command: Command, env: &Env<'_>) -> Step {
        let Command { id, request } = command;
        if let Some(rate) = env.relay.limits.commands_per_second_per_client
            && request != Request::Empty
            && !self.commands.take(rate, env.now_ms)
        {
            return Step::close(codes::DISCONNECT_TOO_MANY_REQUESTS);
        }
        if let Request::Connect(connect) = request {
            return self.connect(id, connect, env);
        }
        let Phase::Connected(live) = &mut self.phase else {
            return Step::close(codes::DISCONNECT_BAD_REQUEST);
        };
        // Every command but a pong and a send must say which reply it waits for.
        if id == 0 && !matches!(request, Request::Send { .. } | Request::Empty) {
            return Step::close(codes::DISCONNECT_BAD_REQUEST);
        }
        match request {
            // A method that this relay does not know: silence would leave the client waiting.
            Request::Empty if id != 0 => Step::close(codes::DISCONNECT_BAD_REQUEST),
            // The pong was taken by the connection's heartbeat.
            Request::Empty | Request::Connect(_) => Step::none(),
            Request::Ping => Step::reply(id, ResultBody::Ping),
            Request::Subscribe(request) => live.subscribe(id, request, env),
            Request::Unsubscribe { channel } => live.unsubscribe(id, &channel, env),
            Request::Publish { channel, data } => live.publish(id, &channel, data, env),
            Request::Presence { channel } => live.presence(id, &channel, env),
            Request::PresenceStats { channel } => live.presence_stats(id, &channel, env),
            Request::History(request) => live.history(id, request, env),
            Request::Send { .. } => Step::close(codes::DISCONNECT_NOT_AVAILABLE),
            Request::Rpc { .. } => live.rpc(id, env),
            Request::Refresh { token } => self.refresh(id, token),
            Request::SubRefresh { channel, token } => live.sub_refresh(id, &channel, token, env),
        }
    }

    /// The connection is gone or is being closed: everything it was part of, to be left.
    pub fn end(&mut self) -> Vec<Subscription> {
        match std::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Connected(live) => live.subscriptions,
            Phase::Fresh | Phase::Connecting | Phase::Ended => Vec::new(),
        }
    }

    fn live(&self) -> Option<&Live> {
        match &self.phase {
            Phase::Connected(live) => Some(live),
            Phase::Fresh | Phase::Connecting | Phase::Ended => None,
        }
    }

    fn live_mut(&mut self) -> Option<&mut Live> {
        match &mut self.phase {
            Phase::Connected(live) => Some(live),
            Phase::Fresh | Phase::Connecting | Phase::Ended => None,
        }
    }
}

impl Live {
    /// Checks a client-given name and scopes it to the client's account.
    fn channel<'e>(
        &self,
        name: &str,
        env: &'e Env<'_>,
    ) -> Result<(Channel, &'e Arc<config::Namespace>), ErrorReply> {
        scoped_channel(&self.account, name, env.relay)
    }

    fn subscription(&self, channel: &Channel) -> Option<&Subscription> {
        self.subscriptions
            .iter()
            .find(|subscription| subscription.channel == *channel)
    }

    fn allows(&self, allowed: config::Allowed, channel: &Channel) -> bool {
        match allowed {
            config::Allowed::Nobody => false,
            config::Allowed::Subscriber => self.subscription(channel).is_some(),
            config::Allowed::Authenticated => !self.info.user.is_empty(),
            config::Allowed::Anyone => true,
        }
    }
}

/// Checks a name and scopes it: the only way from a client's or the API's channel name to a [`Channel`].
pub fn scoped_channel<'e>(
    account: &str,
    name: &str,
    relay: &'e config::Relay,
) -> Result<(Channel, &'e Arc<config::Namespace>), ErrorReply> {
    let printable = name.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    if name.is_empty() || name.len() > relay.limits.channel_name_bytes || !printable {
        return Err(codes::ERROR_BAD_REQUEST);
    }
    let namespace = relay
        .namespace_of(name)
        .ok_or(codes::ERROR_UNKNOWN_CHANNEL)?;
    Ok((Channel::new(account, name), namespace))
}

/// Whole seconds until `at`; 0 is never returned for a future time.
fn ttl_seconds(at: u64, now_seconds: u64) -> u32 {
    u32::try_from(at.saturating_sub(now_seconds)).unwrap_or(u32::MAX)
}

fn compile_filter(
    node: Option<&super::protocol::FilterNode>,
) -> Result<Option<Rc<Filter>>, ErrorReply> {
    node.map(Filter::compile)
        .transpose()
        .map_err(|_| codes::ERROR_BAD_REQUEST)
        .map(|filter| filter.map(Rc::new))
}

/// Positions of server-side subscriptions that a reconnecting client sent along.
fn recovery_request<'r>(
    request: &'r ConnectRequest,
    channel: &str,
) -> Option<&'r super::protocol::SubscribeRequest> {
    request
        .subs
        .iter()
        .find(|(name, _)| name == channel)
        .map(|(_, subscribe)| subscribe)
}
