//! Sends publications: those with history or a key in batches through a script, the others as plain messages.
//!
//! Owns the order of what this process publishes: each kind has one batch per partition on its way, and serials are given
//! in that order. Plain messages do not wait for a primary, any server of the shard takes them. A batch carries a number,
//! so that the script answers one that comes again (after an outcome that nobody saw) without publishing it twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::frame::{Body, Id};
use super::keys::Keys;
use super::streams::{Streams, random_epoch};
use crate::relay::channel::Channel;
use crate::relay::protocol::Position;
use crate::store::redis::cluster::{Again, CallError, Cluster};
use crate::store::redis::lanes::{self, Lanes};
use crate::store::redis::limits::{
    BATCH_MEMORY, CALL_DEADLINE, CHANNEL_PARTITIONS, POSITIONS_KNOWN, PUBLISH_BATCH_BYTES,
    PUBLISH_BATCH_JOBS, PUBLISH_WAITING_BYTES,
};
use crate::store::redis::pubsub::PubSub;
use crate::store::redis::reply::Reply;
use crate::store::redis::script::{Script, script};
use crate::store::{IDEMPOTENCY_WINDOW, PublishOptions, Published, STREAM_META_TTL, StoreError};

pub(in crate::store::redis) static PUBLISH: Script = script!("broker_publish.lua");

/// A meta is renewed when less than its promised life is left; it gets a day more, so that this is rare.
pub(super) const META_LIFE_SECONDS: u64 = STREAM_META_TTL.as_secs() + 24 * 3600;

/// What a waiting job costs beside its frame.
const JOB_OVERHEAD_BYTES: usize = 256;

struct Job {
    channel: Channel,
    body: Body,
    options: PublishOptions,
    since: Instant,
    answer: oneshot::Sender<Result<Published, StoreError>>,
}

pub(super) struct Publisher {
    kept: Lanes<Job>,
    plain: Lanes<Job>,
    keys: Keys,
}

/// What the lanes' batches work on.
struct Sender {
    cluster: Arc<Cluster>,
    pubsub: Arc<PubSub>,
    keys: Keys,
    /// One per kind of lane: serials of one publisher must come in order.
    kept: u64,
    plain: u64,
    serial: AtomicU64,
    batch: AtomicU64,
    streams: Arc<Streams>,
    /// By partition. Touched by its one batch only.
    positions: Vec<Mutex<HashMap<Channel, Position>>>,
}

impl Publisher {
    pub(super) fn new(
        cluster: &Arc<Cluster>,
        pubsub: &Arc<PubSub>,
        streams: &Arc<Streams>,
        keys: &Keys,
    ) -> Self {
        let sender = Arc::new(Sender {
            cluster: Arc::clone(cluster),
            pubsub: Arc::clone(pubsub),
            keys: keys.clone(),
            kept: fastrand::u64(..),
            plain: fastrand::u64(..),
            serial: AtomicU64::new(1),
            batch: AtomicU64::new(1),
            streams: Arc::clone(streams),
            positions: (0..CHANNEL_PARTITIONS).map(|_| Mutex::default()).collect(),
        });
        let limits = lanes::Limits {
            batch_jobs: PUBLISH_BATCH_JOBS,
            batch_bytes: PUBLISH_BATCH_BYTES,
            waiting_bytes: PUBLISH_WAITING_BYTES,
        };
        let runtime = cluster.runtime();
        let of_kept = Arc::clone(&sender);
        let kept = Lanes::new(
            CHANNEL_PARTITIONS,
            limits,
            runtime.clone(),
            Box::new(move |partition, jobs| {
                Box::pin(Arc::clone(&of_kept).send_kept(partition, jobs))
            }),
        );
        let plain = Lanes::new(
            CHANNEL_PARTITIONS,
            limits,
            runtime.clone(),
            Box::new(move |partition, jobs| {
                Box::pin(Arc::clone(&sender).send_plain(partition, jobs))
            }),
        );
        Self {
            kept,
            plain,
            keys: keys.clone(),
        }
    }

    pub(super) async fn publish(
        &self,
        channel: &Channel,
        body: Body,
        mut options: PublishOptions,
    ) -> Result<Published, StoreError> {
        options.history = options
            .history
            .filter(|retention| retention.size > 0 && !retention.ttl.is_zero());
        let is_kept = options.history.is_some() || options.idempotency_key.is_some();
        let lanes = if is_kept { &self.kept } else { &self.plain };
        let bytes = body.bytes() + JOB_OVERHEAD_BYTES;
        let (answer, answered) = oneshot::channel();
        let job = Job {
            channel: channel.clone(),
            body,
            options,
            since: Instant::now(),
            answer,
        };
        let partition = self.keys.partition(channel);
        if lanes.submit(partition, job, bytes).is_err() {
            let reason = "too many publications are waiting for redis";
            return Err(StoreError::Unavailable(reason.to_owned()));
        }
        answered
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("shutting down".to_owned())))
    }
}

impl Sender {
    async fn send_plain(self: Arc<Self>, partition: u16, jobs: Vec<Job>) {
        let jobs = in_time(jobs);
        if jobs.is_empty() {
            return;
        }
        let messages = jobs.iter().map(|job| {
            let id = self.next_id(self.plain);
            (self.keys.channel(&job.channel), job.body.encode(id, b":"))
        });
        let slot = self.keys.slot(partition);
        let outcome = self.pubsub.publish_all(slot, messages.collect()).await;
        for job in jobs {
            let published = Published {
                position: None,
                suppressed: false,
            };
            let outcome = outcome
                .clone()
                .map(|()| published)
                .map_err(StoreError::from);
            let _ = job.answer.send(outcome);
        }
    }

    async fn send_kept(self: Arc<Self>, partition: u16, jobs: Vec<Job>) {
        let jobs = in_time(jobs);
        if jobs.is_empty() {
            return;
        }
        let (keys, args) = self.batch_of(partition, &jobs);
        let slot = self.keys.slot(partition);
        let answers = self
            .cluster
            .call(slot, &PUBLISH, &keys, args, Again::Safe)
            .await
            .and_then(|reply| {
                let answers: Option<Vec<_>> = reply.list().iter().map(published).collect();
                answers
                    .filter(|answers| answers.len() == jobs.len())
                    .ok_or_else(|| CallError::Unknown("answer not understood".to_owned()))
            });
        match answers {
            Ok(answers) => {
                self.check(partition, &jobs, &answers).await;
                for (job, answer) in jobs.into_iter().zip(answers) {
                    let _ = job.answer.send(Ok(answer));
                }
            }
            Err(error) => {
                for job in jobs {
                    let _ = job.answer.send(Err(error.clone().into()));
                }
            }
        }
    }

    /// Voids the epoch of streams that lost publications this process had been told of. Subscribers notice by themselves;
    /// this is for channels that nobody follows just now.
    async fn check(&self, partition: u16, jobs: &[Job], answers: &[Published]) {
        let mut fallen = Vec::new();
        {
            let mut positions = self.positions[usize::from(partition)].lock();
            for (job, answer) in jobs.iter().zip(answers) {
                let Some(now) = answer.position.as_ref().filter(|_| !answer.suppressed) else {
                    continue;
                };
                if let Some(before) = positions.get(&job.channel)
                    && before.epoch == now.epoch
                    && before.offset >= now.offset
                {
                    fallen.push((job.channel.clone(), now.epoch.clone()));
                }
                if positions.len() >= POSITIONS_KNOWN && !positions.contains_key(&job.channel) {
                    positions.clear();
                }
                positions.insert(job.channel.clone(), now.clone());
            }
        }
        for (channel, epoch) in fallen {
            tracing::warn!(?channel, "a stream in redis lost publications");
            if let Err(error) = self.streams.renew(&channel, &epoch).await {
                tracing::warn!(%error, ?channel, "its old positions are still taken for good");
            }
        }
    }

    /// Keys and arguments as `broker_publish.lua` takes them.
    fn batch_of(&self, partition: u16, jobs: &[Job]) -> (Vec<Bytes>, Vec<Bytes>) {
        let mut channels: HashMap<&Channel, usize> = HashMap::new();
        let mut keys = vec![self.keys.batch(partition, self.kept)];
        let mut epochs = Vec::new();
        let mut numbers = Vec::with_capacity(jobs.len());
        for job in jobs {
            let next = channels.len() + 1;
            let number = *channels.entry(&job.channel).or_insert(next);
            if number == next {
                keys.push(self.keys.channel(&job.channel));
                keys.push(self.keys.stream(&job.channel));
                keys.push(self.keys.meta(&job.channel));
                epochs.push(Bytes::from(random_epoch()));
            }
            numbers.push(number);
        }
        let batch = self.batch.fetch_add(1, Ordering::Relaxed);
        let mut args = vec![
            text(batch),
            text(BATCH_MEMORY.as_millis()),
            text(META_LIFE_SECONDS),
            text(IDEMPOTENCY_WINDOW.as_millis()),
            text(epochs.len()),
        ];
        args.append(&mut epochs);
        let mut answers = 0;
        for (job, number) in jobs.iter().zip(numbers) {
            let options = &job.options;
            let answer = options.idempotency_key.as_ref().map(|key| {
                keys.push(self.keys.answer(&job.channel, key));
                answers += 1;
                answers
            });
            let (size, ttl_ms) = options.history.map_or((0, 0), |retention| {
                // Publications do not outlive their stream's meta.
                let ttl = retention.ttl.min(STREAM_META_TTL).as_millis();
                (retention.size, ttl.max(1))
            });
            let version = match options.version {
                0 => Bytes::new(),
                version => format!("{version:020}").into(),
            };
            args.extend([
                text(number),
                text(answer.unwrap_or(0)),
                job.body.encode(self.next_id(self.kept), b""),
                text(size),
                text(ttl_ms),
                version,
                Bytes::copy_from_slice(options.version_epoch.as_bytes()),
            ]);
        }
        (keys, args)
    }

    fn next_id(&self, publisher: u64) -> Id {
        Id {
            publisher,
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
        }
    }
}

/// Refuses what waited so long that its caller has given up on it.
fn in_time(jobs: Vec<Job>) -> Vec<Job> {
    let now = Instant::now();
    let is_late = |job: &Job| now.duration_since(job.since) >= CALL_DEADLINE;
    if !jobs.iter().any(is_late) {
        return jobs;
    }
    let (late, good): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(is_late);
    for job in late {
        let reason = "not done: redis does not keep up";
        let _ = job
            .answer
            .send(Err(StoreError::Unavailable(reason.to_owned())));
    }
    good
}

/// `+` or `-`, and `<offset>:<epoch>` for a publication with history.
fn published(answer: &Reply) -> Option<Published> {
    let answer = answer.text()?;
    let (sign, position) = answer.split_at_checked(1)?;
    let suppressed = match sign {
        "+" => false,
        "-" => true,
        _ => return None,
    };
    let position = match position.split_once(':') {
        None => None,
        Some((offset, epoch)) => Some(Position {
            offset: offset.parse().ok()?,
            epoch: epoch.into(),
        }),
    };
    Some(Published {
        position,
        suppressed,
    })
}

fn text(number: impl ToString) -> Bytes {
    number.to_string().into()
}
