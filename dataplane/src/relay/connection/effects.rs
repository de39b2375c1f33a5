//! Carrying out what the session decides.

use std::rc::Rc;
use std::sync::Arc;

use super::Connection;
use crate::relay::channel::Channel;
use crate::relay::codes;
use crate::relay::frame;
use crate::relay::metrics::Operation;
use crate::relay::protocol::{self, ChannelRef, Encoding, NotJson, Push, Reply};
use crate::relay::session::{Effect, Step, Subscription};
use crate::relay::worker::Worker;
use crate::store::PresenceEvent;

impl Connection {
    /// Applies effects and answers asks until the session has nothing more to ask.
    pub(super) async fn carry_out(self: &Rc<Self>, worker: &Rc<Worker>, mut step: Step) {
        loop {
            for effect in std::mem::take(&mut step.effects) {
                self.apply(worker, effect).await;
            }
            let Some(ask) = step.ask.take() else { return };
            step = self.writing(worker, self.answer(worker, ask)).await;
        }
    }

    async fn apply(self: &Rc<Self>, worker: &Rc<Worker>, effect: Effect) {
        match effect {
            Effect::Reply(reply) => self.reply(worker, &reply),
            Effect::PushUnsubscribe {
                channel,
                code,
                reason,
            } => {
                let channel = ChannelRef::Name(channel.name());
                self.push(
                    worker,
                    &Push::Unsubscribe {
                        channel,
                        code,
                        reason,
                    },
                );
            }
            Effect::PushSubscribe {
                channel,
                recoverable,
                positioned,
                position,
                data,
            } => {
                let channel = channel.name();
                let push = Push::Subscribe {
                    channel,
                    recoverable,
                    positioned,
                    position: &position,
                    data: &data,
                };
                self.push(worker, &push);
            }
            Effect::PushRefresh { expires, ttl } => {
                self.push(worker, &Push::Refresh { expires, ttl })
            }
            Effect::Release { channel, member } => {
                worker.release_member(&channel, member);
            }
            Effect::Join { channel, info } => {
                self.announce(worker, &channel, PresenceEvent::Join(info))
                    .await
            }
            Effect::JoinAgain {
                channel,
                info,
                announce,
            } => {
                let joined = worker
                    .presence()
                    .join(worker.holder(), &channel, Arc::clone(&info))
                    .await;
                if let Err(error) = joined {
                    tracing::debug!(%error, "presence not joined again yet");
                    worker.shared().presence_is_incomplete();
                } else if announce {
                    self.announce(worker, &channel, PresenceEvent::Join(info))
                        .await;
                }
            }
            Effect::Leave(subscription) => self.leave(worker, &subscription).await,
            Effect::Close(disconnect) => self.request_close(disconnect),
        }
    }

    pub(super) fn reply(self: &Rc<Self>, worker: &Worker, reply: &Reply) {
        self.encode(worker, |encoding, out| {
            protocol::encode_reply(encoding, reply, out)
        });
        if let Ok(protocol::ResultBody::Connect(_)) = &reply.result {
            let mut heartbeat = self.heartbeat.get();
            heartbeat.connected(worker.clock_ms(), worker.heartbeat(), fastrand::f64());
            self.heartbeat.set(heartbeat);
            worker.remember_user(self);
        }
    }

    fn push(self: &Rc<Self>, worker: &Worker, push: &Push<'_>) {
        self.encode(worker, |encoding, out| {
            protocol::encode_push(encoding, push, out)
        });
    }

    fn encode(
        self: &Rc<Self>,
        worker: &Worker,
        encode: impl FnOnce(Encoding, &mut Vec<u8>) -> Result<(), NotJson>,
    ) {
        let mut message = Vec::new();
        if encode(self.encoding, &mut message).is_err() {
            self.request_close(codes::DISCONNECT_INAPPROPRIATE_PROTOCOL);
            return;
        }
        self.send(worker, frame::message(self.encoding, &message));
    }

    /// Ends a subscription for hub, presence and the others. Store failures are logged and not retried here: the
    /// stores make good later what they could not do.
    pub(super) async fn leave(self: &Rc<Self>, worker: &Rc<Worker>, subscription: &Subscription) {
        worker
            .detach(&subscription.channel, subscription.member)
            .await;
        if subscription.presence {
            let left = worker
                .presence()
                .leave(
                    worker.holder(),
                    &subscription.channel,
                    &subscription.info.client,
                )
                .await;
            if let Err(error) = left {
                worker
                    .metrics()
                    .store_failed(Operation::PresenceLeave, &error);
            }
        }
        if subscription.announce {
            let info = Arc::clone(&subscription.info);
            self.announce(worker, &subscription.channel, PresenceEvent::Leave(info))
                .await;
        }
    }

    async fn announce(&self, worker: &Rc<Worker>, channel: &Channel, event: PresenceEvent) {
        if let Err(error) = worker.broker().publish_presence(channel, event).await {
            worker.metrics().store_failed(Operation::Announce, &error);
        }
    }
}
