//! Carries commands out against the stores and the workers.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use serde_json::value::RawValue;
use sluice_crds::config::{GatewayConfig, Namespace};
use tokio::sync::mpsc;
use tokio::time;

use super::answer::{self, Answer, ApiError, NOTHING};
use super::message::{Message, account_of};
use super::orders::{self, Directive};
use super::pattern::Pattern;
use super::request::{Batch, BatchCommand, Channels, Command, History, Method, Publish};
use crate::clock::unix_ms;
use crate::relay::channel::Channel;
use crate::relay::metrics::Operation;
use crate::relay::protocol::Position;
use crate::relay::router::Congested;
use crate::relay::session::scoped_channel;
use crate::relay::shared::Shared;
use crate::relay::worker::Order;
use crate::store::{ReadOptions, Retention, StoreError};

/// Channels of a broadcast, and commands of a parallel batch, that are worked on at once: enough that one congested
/// channel holds up few others.
const CONCURRENCY: usize = 256;
/// How long an answer waits for workers; what they have not done by then they do later.
const ORDERS_DEADLINE: Duration = Duration::from_secs(1);
/// All the answers to one request: bounds what a batch of history reads can gather in memory.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The parameters of a command that has none.
static EMPTY: BTreeMap<String, String> = BTreeMap::new();

/// A command as other processes are told it.
type Told = (Method, Box<RawValue>);

fn told(method: Method, request: &impl Serialize) -> Result<Told, ApiError> {
    let params = serde_json::value::to_raw_value(request).map_err(|_| ApiError::Internal)?;
    Ok((method, params))
}

/// Carries out the commands of one request.
pub(super) struct Executor<'a> {
    shared: &'a Shared,
    config: Arc<GatewayConfig>,
    /// What is left of [`ANSWER_BYTES_MAX`].
    answer_bytes: AtomicUsize,
}

impl<'a> Executor<'a> {
    pub(super) fn new(shared: &'a Shared) -> Self {
        Self {
            shared,
            config: shared.config(),
            answer_bytes: AtomicUsize::new(ANSWER_BYTES_MAX),
        }
    }

    pub(super) async fn batch(&self, batch: Batch) -> String {
        let concurrency = if batch.parallel { CONCURRENCY } else { 1 };
        let replies = stream::iter(batch.commands)
            .map(|command| self.batch_command(command))
            .buffered(concurrency);
        answer::list("replies", &replies.collect::<Vec<_>>().await)
    }

    async fn batch_command(&self, command: BatchCommand) -> String {
        let outcome = match command {
            Ok((method, command)) => self.command(command).await.map(|result| (method, result)),
            Err(error) => Err(error),
        };
        answer::batch_reply(&outcome)
    }

    pub(super) async fn command(&self, command: Command) -> Answer {
        let relay = &self.config.relay;
        let answer = match command {
            Command::Publish(request) => self.publish(&request).await?,
            Command::Broadcast(request) => self.broadcast(&request).await?,
            Command::Subscribe(request) => {
                let told = told(Method::Subscribe, &request)?;
                self.order(told, orders::subscribe(request, relay)?).await?
            }
            Command::Unsubscribe(request) => {
                let told = told(Method::Unsubscribe, &request)?;
                self.order(told, orders::unsubscribe(request, relay)?)
                    .await?
            }
            Command::Disconnect(request) => {
                let told = told(Method::Disconnect, &request)?;
                self.order(told, orders::disconnect(request)?).await?
            }
            Command::Refresh(request) => {
                let told = told(Method::Refresh, &request)?;
                self.order(told, orders::refresh(request, unix_ms() / 1_000)?)
                    .await?
            }
            Command::Presence(request) => {
                let channel = self.channel_with_presence(&request.account, &request.channel)?;
                answer::presence(&self.stored(self.shared.presence().list(&channel).await)?)?
            }
            Command::PresenceStats(request) => {
                let channel = self.channel_with_presence(&request.account, &request.channel)?;
                answer::presence_stats(self.stored(self.shared.presence().count(&channel).await)?)
            }
            Command::History(request) => self.history(request).await?,
            Command::HistoryRemove(request) => {
                let (channel, _) = self.channel_with_history(&request.account, &request.channel)?;
                self.stored(self.shared.broker().remove_history(&channel).await)?;
                NOTHING.to_owned()
            }
            Command::Channels(request) => self.channels(&request).await?,
            Command::Info => self.info().await?,
            // No remote calls are defined.
            Command::Rpc(request) if request.method.is_empty() => return Err(ApiError::BadRequest),
            Command::Rpc(_) => return Err(ApiError::NotFound),
        };
        self.take_room(answer.len())?;
        Ok(answer)
    }

    async fn publish(&self, request: &Publish) -> Answer {
        let account = account_of(&request.account)?;
        let message = Message::new(request, unix_ms())?;
        self.publish_to(account, &request.channel, &message).await
    }

    async fn broadcast(&self, request: &Publish) -> Answer {
        let account = account_of(&request.account)?;
        if request.channels.is_empty() {
            return Err(ApiError::BadRequest);
        }
        let message = &Message::new(request, unix_ms())?;
        let responses = stream::iter(&request.channels)
            .map(async |channel| {
                answer::response(&self.publish_to(account, channel, message).await)
            })
            .buffered(CONCURRENCY);
        Ok(answer::list(
            "responses",
            &responses.collect::<Vec<_>>().await,
        ))
    }

    async fn publish_to(&self, account: &str, channel: &str, message: &Message) -> Answer {
        let (channel, namespace) = self.channel(account, channel)?;
        let publication = message.publication()?;
        // A long batch takes turns with the connections of this worker.
        tokio::task::consume_budget().await;
        if let Err(Congested) = self.shared.router().admit(&channel).await {
            self.shared.metrics().publication_refused();
            return Err(ApiError::TooManyRequests);
        }
        let published = self
            .shared
            .broker()
            .publish(&channel, publication, message.options(namespace))
            .await;
        let published = self.stored(published)?;
        self.shared.metrics().published();
        answer::published(&published)
    }

    /// Carries out an order of another process, or answers its question; `None`: nothing that processes ask each other.
    pub(super) async fn command_here(&self, command: Command) -> Option<Answer> {
        let relay = &self.config.relay;
        let directive = match command {
            Command::Subscribe(request) => orders::subscribe(request, relay),
            Command::Unsubscribe(request) => orders::unsubscribe(request, relay),
            Command::Disconnect(request) => orders::disconnect(request),
            Command::Refresh(request) => orders::refresh(request, unix_ms() / 1_000),
            Command::Channels(request) => {
                return Some(
                    self.channels_here(&request)
                        .and_then(|channels| channels.json()),
                );
            }
            Command::Info => return Some(self.node().await),
            Command::Publish(_)
            | Command::Broadcast(_)
            | Command::Presence(_)
            | Command::PresenceStats(_)
            | Command::History(_)
            | Command::HistoryRemove(_)
            | Command::Rpc(_) => return None,
        };
        match directive {
            Ok(Some(directive)) => self.order_here(directive).await,
            Ok(None) => {}
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(NOTHING.to_owned()))
    }

    /// Tells every worker of every process, and waits until they have done it.
    async fn order(&self, (method, params): Told, directive: Option<Directive>) -> Answer {
        if let Some(directive) = directive {
            let elsewhere = self.ask_others(method, &params);
            let ((), elsewhere) = tokio::join!(self.order_here(directive), elsewhere);
            elsewhere?;
        }
        Ok(NOTHING.to_owned())
    }

    async fn order_here(&self, (target, control): Directive) {
        let target = Arc::new(target);
        let (done, mut all_done) = mpsc::channel(1);
        self.shared.router().order_all(&|| Order::Control {
            target: Arc::clone(&target),
            control: control.clone(),
            done: done.clone(),
        });
        drop(done);
        // Ends when the last worker drops its sender; after the deadline the answer goes out all the same.
        let _ = time::timeout(ORDERS_DEADLINE, all_done.recv()).await;
    }

    async fn ask_others(
        &self,
        method: Method,
        params: &impl Serialize,
    ) -> Result<Vec<Box<RawValue>>, ApiError> {
        let asked = self
            .shared
            .surveys()
            .ask(self.shared.peers(), method.name(), params);
        self.stored(asked.await)
    }

    async fn history(&self, request: History) -> Answer {
        let (channel, retention) = self.channel_with_history(&request.account, &request.channel)?;
        let since = request.since.map(|since| Position {
            offset: since.offset,
            epoch: since.epoch.into(),
        });
        // Nothing comes before the first publication, so this is a mistake.
        if request.reverse && since.as_ref().is_some_and(|since| since.offset == 0) {
            return Err(ApiError::BadRequest);
        }
        let options = ReadOptions {
            since,
            limit: usize::try_from(request.limit).ok(),
            reverse: request.reverse,
        };
        let read = self
            .shared
            .broker()
            .read(&channel, retention, options)
            .await;
        let read = self.stored(read)?;
        let data_bytes = read
            .publications
            .iter()
            .map(|publication| publication.data.len())
            .sum::<usize>();
        if data_bytes > self.answer_bytes.load(Ordering::Relaxed) {
            return Err(ApiError::LimitExceeded);
        }
        answer::history(&read)
    }

    async fn channels(&self, request: &Channels) -> Answer {
        let mut channels = self.channels_here(request)?;
        for result in self.ask_others(Method::Channels, request).await? {
            if let Ok(others) = serde_json::from_str(result.get()) {
                channels.merge(others);
            }
        }
        channels.json()
    }

    fn channels_here(&self, request: &Channels) -> Result<answer::Channels, ApiError> {
        let account = account_of(&request.account)?;
        let pattern = Pattern::compile(&request.pattern)?;
        let found = self
            .shared
            .router()
            .channels(account, |name| pattern.matches(name));
        let mut channels = answer::Channels::default();
        for (channel, members) in &found {
            channels.add(channel.name(), *members);
        }
        Ok(channels)
    }

    async fn info(&self) -> Answer {
        let (here, others) = tokio::join!(self.node(), self.ask_others(Method::Info, &EMPTY));
        let mut nodes = vec![here?];
        nodes.extend(others?.iter().map(|node| node.get().to_owned()));
        Ok(answer::list("nodes", &nodes))
    }

    /// This process.
    async fn node(&self) -> Answer {
        let (num_channels, num_subs) = self.shared.router().totals();
        let node = answer::Node {
            uid: &self.shared.holder().0,
            name: &self.config.name,
            version: env!("CARGO_PKG_VERSION"),
            num_clients: self.shared.connections(),
            num_users: self.users().await,
            num_channels,
            uptime: self.shared.uptime().as_secs(),
            num_subs,
        };
        node.json()
    }

    /// Distinct users over all workers, those of workers that do not answer in time left out.
    async fn users(&self) -> usize {
        let workers = self.shared.router().mailboxes().len();
        let (answer, mut answers) = mpsc::channel(workers.max(1));
        self.shared
            .router()
            .order_all(&|| Order::Users(answer.clone()));
        drop(answer);
        let mut users = HashSet::new();
        let gather = async {
            while let Some(some) = answers.recv().await {
                users.extend(some);
            }
        };
        let _ = time::timeout(ORDERS_DEADLINE, gather).await;
        users.len()
    }

    fn channel(&self, account: &str, name: &str) -> Result<(Channel, &Namespace), ApiError> {
        let (channel, namespace) = scoped_channel(account, name, &self.config.relay)?;
        Ok((channel, namespace))
    }

    fn channel_with_presence(&self, account: &str, name: &str) -> Result<Channel, ApiError> {
        let (channel, namespace) = self.channel(account_of(account)?, name)?;
        if namespace.presence {
            Ok(channel)
        } else {
            Err(ApiError::NotAvailable)
        }
    }

    fn channel_with_history(
        &self,
        account: &str,
        name: &str,
    ) -> Result<(Channel, Retention), ApiError> {
        let (channel, namespace) = self.channel(account_of(account)?, name)?;
        let history = namespace.history.ok_or(ApiError::NotAvailable)?;
        Ok((
            channel,
            Retention {
                size: history.size,
                ttl: history.ttl,
            },
        ))
    }

    /// Counts and tells what the store could not do.
    fn stored<T>(&self, outcome: Result<T, StoreError>) -> Result<T, ApiError> {
        outcome.map_err(|error| {
            if matches!(error, StoreError::Unavailable(_)) {
                self.shared.metrics().store_failed(Operation::Api, &error);
            }
            error.into()
        })
    }

    fn take_room(&self, bytes: usize) -> Result<(), ApiError> {
        let left = |left: usize| left.checked_sub(bytes);
        let taken = self
            .answer_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        taken.map(|_| ()).map_err(|_| ApiError::LimitExceeded)
    }
}
