//! The session as a table: what goes in, what code comes out.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "tests pick out what they look for"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use config::{Allowed, Authentication, Feature, Heartbeat, History, Limits, Namespace};

use super::*;
use crate::auth::{AuthError, Identity, Overrides, ServerSubscription, SubscriptionIdentity};
use crate::relay::account::{Accounts, Seat};
use crate::relay::protocol::{ConnectResult, FilterNode, HistoryRequest, SubscribeRequest};

mod connect;
mod control;
mod expiry;
mod limits;
mod permission;
mod property;
mod subscribe;

const NOW_SECONDS: u64 = 1_000_000;
const GRACE_SECONDS: u64 = 25;
const HISTORY: History = History {
    size: 10,
    ttl: Duration::from_secs(60),
};

/// What a step comes to; the first of these that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Close(u16),
    Error(u32),
    Asks,
    Replies,
    Nothing,
}

fn outcome(step: &Step) -> Outcome {
    let close = step.effects.iter().find_map(|effect| match effect {
        Effect::Close(disconnect) => Some(Outcome::Close(disconnect.code)),
        _ => None,
    });
    let reply = step.effects.iter().find_map(|effect| match effect {
        Effect::Reply(reply) => Some(match &reply.result {
            Ok(_) => Outcome::Replies,
            Err(error) => Outcome::Error(error.code),
        }),
        _ => None,
    });
    let asks = step.ask.as_ref().map(|_| Outcome::Asks);
    close.or(reply).or(asks).unwrap_or(Outcome::Nothing)
}

fn result(step: &Step) -> &ResultBody {
    match &step.effects[0] {
        Effect::Reply(Reply { result, .. }) => result.as_ref().unwrap(),
        other => panic!("no reply: {other:?}"),
    }
}

/// Everything is allowed and kept.
fn namespace() -> Namespace {
    Namespace {
        presence: true,
        join_leave: Feature::OnRequest,
        history: Some(HISTORY),
        recovery: Feature::OnRequest,
        positioning: Feature::OnRequest,
        delta: true,
        subscribe: Allowed::Anyone,
        publish: Allowed::Anyone,
        ask_presence: Allowed::Anyone,
        ask_history: Allowed::Anyone,
    }
}

/// Nothing is kept.
fn bare() -> Namespace {
    Namespace {
        presence: false,
        join_leave: Feature::Disabled,
        history: None,
        recovery: Feature::Disabled,
        positioning: Feature::Disabled,
        delta: false,
        ..namespace()
    }
}

fn relay(namespaces: &[(&str, Namespace)]) -> config::Relay {
    let named =
        |(name, namespace): &(&str, Namespace)| ((*name).to_owned(), Arc::new(namespace.clone()));
    config::Relay {
        authentication: Authentication {
            jwt: None,
            anonymous: true,
            expiry_grace: Duration::from_secs(GRACE_SECONDS),
        },
        default_namespace: Arc::new(namespace()),
        namespaces: namespaces.iter().map(named).collect::<BTreeMap<_, _>>(),
        personal_channel: false,
        limits: Limits {
            message_bytes: 65_536,
            queue_bytes_per_client: 1 << 20,
            channels_per_client: 8,
            channel_name_bytes: 32,
            connections: None,
            connections_per_account: None,
            connections_per_second: None,
            messages_per_second_per_client: None,
            commands_per_second_per_client: None,
            messages_per_second_per_account: None,
        },
        heartbeat: Heartbeat {
            interval: Duration::from_secs(25),
            timeout: Duration::from_secs(8),
        },
        server_api_key: None,
    }
}

fn user(user: &str) -> Identity {
    Identity {
        account: "acme".into(),
        user: user.into(),
        ..Identity::default()
    }
}

fn to(channel: &str) -> SubscribeRequest {
    SubscribeRequest {
        channel: channel.to_owned(),
        ..SubscribeRequest::default()
    }
}

fn publish(channel: &str) -> Request {
    Request::Publish {
        channel: channel.to_owned(),
        data: "{}".into(),
    }
}

fn presence(channel: &str) -> Request {
    Request::Presence {
        channel: channel.to_owned(),
    }
}

fn history(channel: &str) -> Request {
    Request::History(HistoryRequest {
        channel: channel.to_owned(),
        ..HistoryRequest::default()
    })
}

fn scoped(name: &str) -> Channel {
    Channel::new("acme", name)
}

fn made(member: MemberKey) -> Subscribed {
    Subscribed {
        member,
        id: 0,
        position: Position::default(),
        recovered: false,
        publications: Vec::new(),
    }
}

/// A session with what surrounds it.
struct Client {
    session: Session,
    relay: config::Relay,
    now_ms: u64,
    shed_queries: bool,
    seat: Option<Seat>,
}

impl Client {
    fn fresh(relay: config::Relay, encoding: Encoding) -> Self {
        Self {
            session: Session::new("client-1".into(), encoding),
            relay,
            now_ms: NOW_SECONDS * 1_000,
            shed_queries: false,
            seat: None,
        }
    }

    /// Connected, with all server-side subscriptions made.
    fn connected(relay: config::Relay, identity: Identity) -> Self {
        let mut client = Self::fresh(relay, Encoding::Json);
        let step = client.connect(ConnectRequest::default(), identity);
        let step = if step.ask.is_some() {
            client.make(step)
        } else {
            step
        };
        assert_eq!(outcome(&step), Outcome::Replies, "{step:?}");
        client
    }

    fn enter<T>(&mut self, decide: impl FnOnce(&mut Session, &Env<'_>) -> T) -> T {
        let env = Env {
            relay: &self.relay,
            now_ms: self.now_ms,
            shed_queries: self.shed_queries,
            account: self.seat.as_ref().map(Seat::state),
        };
        decide(&mut self.session, &env)
    }

    fn command_id(&mut self, id: u32, request: Request) -> Step {
        self.enter(|session, env| session.command(Command { id, request }, env))
    }

    fn command(&mut self, request: Request) -> Step {
        self.command_id(7, request)
    }

    fn outcome(&mut self, request: Request) -> Outcome {
        outcome(&self.command(request))
    }

    /// Up to the question for server-side subscriptions, or the result.
    fn connect(&mut self, request: ConnectRequest, identity: Identity) -> Step {
        let request = ConnectRequest {
            token: "token".to_owned(),
            ..request
        };
        let step = self.command_id(1, Request::Connect(request));
        let Some(Ask::Identify { context, token }) = step.ask else {
            panic!("{step:?}");
        };
        assert_eq!(token, "token");
        let step = self.session.identified(context, Ok(identity));
        self.admit(step, true)
    }

    fn admit(&mut self, step: Step, admitted: bool) -> Step {
        let Some(Ask::Admit { context, .. }) = step.ask else {
            panic!("{step:?}");
        };
        self.enter(|session, env| session.admitted(*context, admitted, env))
    }

    /// Every channel that the step asks for is joined.
    fn make(&mut self, step: Step) -> Step {
        self.make_with(step, |member, _| Ok(made(member)))
    }

    fn make_with(
        &mut self,
        step: Step,
        join: impl Fn(MemberKey, &Plan) -> Result<Subscribed, SubscribeError>,
    ) -> Step {
        let (plans, context) = asked(step);
        let outcomes = (0..).zip(&plans).map(|(key, plan)| join(key, plan));
        let outcomes = outcomes.collect();
        self.enter(|session, env| session.subscribed(context, plans, outcomes, env))
    }

    fn subscribe(&mut self, channel: &str) -> Step {
        let step = self.command(Request::Subscribe(to(channel)));
        self.make(step)
    }

    /// The plan for a client's request.
    fn plan(&mut self, request: SubscribeRequest) -> Plan {
        let step = self.command(Request::Subscribe(request));
        asked(step).0.remove(0)
    }

    /// A subscribe with a token that says `verified`.
    fn subscribe_with_token(
        &mut self,
        channel: &str,
        verified: Result<SubscriptionIdentity, AuthError>,
    ) -> Step {
        let step = self.command(Request::Subscribe(SubscribeRequest {
            token: "token".to_owned(),
            ..to(channel)
        }));
        self.verify(step, verified)
    }

    fn verify(&mut self, step: Step, verified: Result<SubscriptionIdentity, AuthError>) -> Step {
        let Some(Ask::VerifySubscription { context, .. }) = step.ask else {
            panic!("{step:?}");
        };
        self.enter(|session, env| session.subscription_verified(context, verified, env))
    }

    fn control(&mut self, control: Control) -> Step {
        self.enter(|session, env| session.control(control, env))
    }
}

fn asked(step: Step) -> (Vec<Plan>, SubscribeContext) {
    match step.ask {
        Some(Ask::Subscribe { plans, context }) => (plans, context),
        other => panic!("{other:?}, {:?}", step.effects),
    }
}

fn token_for(channel: &str) -> SubscriptionIdentity {
    SubscriptionIdentity {
        account: "acme".into(),
        user: "42".into(),
        channel: channel.to_owned(),
        ..SubscriptionIdentity::default()
    }
}

/// Part of every connection and of every subscription; see `connection::tests` for why this is guarded.
#[test]
fn what_a_client_costs_is_small() {
    let sizes = [
        ("live", size_of::<Live>(), 96),
        ("subscription", size_of::<Subscription>(), 64),
    ];
    crate::relay::connection::tests::assert_sizes(&sizes);
}
