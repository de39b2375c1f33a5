//! Answering what the session asks: tokens, accounts, stores, hub.

use std::rc::Rc;
use std::sync::Arc;

use super::Connection;
use crate::relay::delta;
use crate::relay::history::{self, Beginning};
use crate::relay::hub::Membership;
use crate::relay::metrics::Operation;
use crate::relay::protocol::{Position, Publication, ResultBody};
use crate::relay::router::Congested;
use crate::relay::session::{
    Ask, MemberKey, Plan, PublishAsk, Query, QueryError, Step, SubscribeError, Subscribed,
};
use crate::relay::worker::Worker;
use crate::store::{Published, StoreError};

impl Connection {
    pub(super) async fn answer(self: &Rc<Self>, worker: &Rc<Worker>, ask: Ask) -> Step {
        match ask {
            Ask::Identify { token, context } => {
                let identity = worker
                    .authenticator()
                    .connection(&token, worker.unix_seconds())
                    .await;
                if let Err(error) = &identity {
                    tracing::info!(client = %self.session.borrow().client(), %error, "connection token refused");
                }
                self.session.borrow_mut().identified(context, identity)
            }
            Ask::Admit { account, context } => {
                // A second try after a refused connect must not count the first one's place.
                self.seat.take();
                let seat = worker.enter_account(&account).await;
                let admitted = seat.is_some();
                *self.seat.borrow_mut() = seat;
                worker.with_env(self, |env| {
                    self.session.borrow_mut().admitted(*context, admitted, env)
                })
            }
            Ask::Refresh { token, context } => {
                let identity = worker
                    .authenticator()
                    .connection(&token, worker.unix_seconds())
                    .await;
                worker.with_env(self, |env| {
                    self.session.borrow_mut().refreshed(context, identity, env)
                })
            }
            Ask::VerifySubscription { token, context } => {
                let verified = worker
                    .authenticator()
                    .subscription(&token, worker.unix_seconds())
                    .await;
                if let Err(error) = &verified {
                    tracing::info!(client = %self.session.borrow().client(), %error, "subscription token refused");
                }
                worker.with_env(self, |env| {
                    self.session
                        .borrow_mut()
                        .subscription_verified(context, verified, env)
                })
            }
            Ask::Subscribe { plans, context } => {
                let mut outcomes = Vec::with_capacity(plans.len());
                for plan in &plans {
                    outcomes.push(self.join(worker, plan).await);
                }
                worker.with_env(self, |env| {
                    self.session
                        .borrow_mut()
                        .subscribed(context, plans, outcomes, env)
                })
            }
            Ask::Publish(ask) => self.publish(worker, ask).await,
            Ask::Query { id, query } => {
                let outcome = query_store(worker, query).await;
                self.session.borrow_mut().queried(id, outcome)
            }
        }
    }

    async fn publish(self: &Rc<Self>, worker: &Rc<Worker>, ask: PublishAsk) -> Step {
        let PublishAsk {
            id,
            channel,
            publication,
            options,
        } = ask;
        // Replies so far must not wait with us.
        self.flush(worker);
        match self.unless_closing(worker.router().admit(&channel)).await {
            None => return Step::default(),
            Some(Err(Congested)) => {
                worker.metrics().publication_refused();
                return self.session.borrow_mut().publish_refused(id);
            }
            Some(Ok(())) => {}
        }
        let outcome: Result<Published, StoreError> = worker
            .broker()
            .publish(&channel, publication, options)
            .await;
        match &outcome {
            Ok(_) => worker.metrics().published(),
            Err(error) => worker.metrics().store_failed(Operation::Publish, error),
        }
        self.session.borrow_mut().published(id, &outcome)
    }

    /// Joins one channel: hub first, so that nothing published from now on is missed, then presence and stream.
    async fn join(
        self: &Rc<Self>,
        worker: &Rc<Worker>,
        plan: &Plan,
    ) -> Result<Subscribed, SubscribeError> {
        let wants = Membership {
            connection: Rc::clone(self),
            by_id: plan.compaction,
            delta: plan.delta,
            join_leave: plan.receive_join_leave,
            filter: plan.filter.clone(),
        };
        let (member, id) = worker.attach(&plan.channel, wants);
        let joined = self.join_stores(worker, plan, member).await;
        match joined {
            Ok(subscribed) => Ok(Subscribed {
                id: if plan.compaction { id } else { 0 },
                ..subscribed
            }),
            Err(error) => {
                worker.detach(&plan.channel, member).await;
                if plan.presence {
                    // The failure is told to the client already; the lease cleans up if this fails too.
                    let _ = worker
                        .presence()
                        .leave(worker.holder(), &plan.channel, &plan.info.client)
                        .await;
                }
                Err(error)
            }
        }
    }

    async fn join_stores(
        &self,
        worker: &Rc<Worker>,
        plan: &Plan,
        member: MemberKey,
    ) -> Result<Subscribed, SubscribeError> {
        let unavailable = |error: StoreError| {
            worker.metrics().store_failed(Operation::Subscribe, &error);
            SubscribeError::Unavailable
        };
        worker
            .router()
            .join(worker.index(), &plan.channel, worker.broker())
            .await
            .map_err(unavailable)?;
        if plan.presence {
            let presence = worker.presence();
            presence
                .join(worker.holder(), &plan.channel, Arc::clone(&plan.info))
                .await
                .map_err(unavailable)?;
        }
        let mut subscribed = Subscribed {
            member,
            id: 0,
            position: Position::default(),
            recovered: false,
            publications: Vec::new(),
        };
        let Some(retention) = plan.stream else {
            worker.follow(&plan.channel, member, None, None);
            return Ok(subscribed);
        };
        let since = plan.recover.as_ref().map(|(offset, epoch)| Position {
            offset: *offset,
            epoch: epoch.as_str().into(),
        });
        let options = history::read_options(since.as_ref());
        let read = worker
            .broker()
            .read(&plan.channel, retention, options)
            .await
            .map_err(unavailable)?;
        // What comes live meanwhile is held back by the hub, which checks it against `live` when it is released.
        let beginning = history::begin(since.as_ref(), read);
        if !beginning.recovered && since.is_some() && plan.reject_unrecovered {
            return Err(SubscribeError::Unrecoverable);
        }
        let Beginning {
            recovered,
            publications: mut missed,
            reply,
            live,
        } = beginning;
        let last = missed.last().cloned();
        if let Some(filter) = &plan.filter {
            missed.retain(|publication| filter.matches(&publication.tags));
        }
        // The next delta starts from the stream's last publication, if the client has it.
        let sent = missed
            .last()
            .filter(|sent| last.is_some_and(|last| last.offset == sent.offset));
        worker.follow(&plan.channel, member, Some(live), sent.map(|sent| &**sent));
        subscribed.position = reply;
        subscribed.recovered = recovered;
        subscribed.publications = if plan.delta {
            delta::chain(self.encoding, &missed).ok_or(SubscribeError::Inappropriate)?
        } else {
            missed
                .iter()
                .map(|publication| Publication::clone(publication))
                .collect()
        };
        Ok(subscribed)
    }
}

async fn query_store(worker: &Rc<Worker>, query: Query) -> Result<ResultBody, QueryError> {
    match query {
        Query::Presence(channel) => Ok(ResultBody::Presence(
            worker.presence().list(&channel).await?,
        )),
        Query::PresenceStats(channel) => {
            let count = worker.presence().count(&channel).await?;
            Ok(ResultBody::PresenceStats {
                num_clients: count.clients,
                num_users: count.users,
            })
        }
        Query::History {
            channel,
            retention,
            options,
        } => {
            let read = worker.broker().read(&channel, retention, options).await?;
            let publications = read
                .publications
                .iter()
                .map(|publication| Publication::clone(publication))
                .collect();
            Ok(ResultBody::History {
                publications,
                position: read.top,
            })
        }
    }
}
