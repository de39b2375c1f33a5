//! Reads streams, and gives them new epochs: the calls behind `read` and behind healing.

use std::sync::Arc;

use bytes::Bytes;

use super::feed::Part;
use super::frame::{self, Content, Id};
use super::keys::Keys;
use super::publish::META_LIFE_SECONDS;
use crate::relay::channel::Channel;
use crate::relay::protocol::{Position, Publication};
use crate::store::redis::cluster::{Again, CallError, Cluster};
use crate::store::redis::limits::HEAL_PAGE;
use crate::store::redis::reply::Reply;
use crate::store::redis::script::{Script, script};
use crate::store::{ReadOptions, StoreError, StreamRead};

static READ: Script = script!("broker_read.lua");
static RENEW: Script = script!("broker_renew.lua");
static TOPS: Script = script!("broker_tops.lua");

/// Characters of an epoch: about 47 random bits, so that two lives of a stream do not share one.
const EPOCH_CHARS: usize = 8;

/// Where a stream stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Top {
    pub(super) epoch: Arc<str>,
    pub(super) offset: u64,
    /// Of the publication at `offset`.
    pub(super) id: Option<Id>,
}

pub(super) struct Streams {
    cluster: Arc<Cluster>,
    keys: Keys,
}

/// Which entries of a stream to read.
struct Range {
    epoch: Bytes,
    first: Bytes,
    last: Bytes,
    /// `None`: all.
    count: Option<usize>,
    newest_first: bool,
}

impl Streams {
    pub(super) fn new(cluster: &Arc<Cluster>, keys: &Keys) -> Self {
        Self {
            cluster: Arc::clone(cluster),
            keys: keys.clone(),
        }
    }

    pub(super) async fn read(
        &self,
        channel: &Channel,
        options: &ReadOptions,
    ) -> Result<(StreamRead, Top), StoreError> {
        let (top, entries) = self.fetch(channel, Range::of(options)).await?;
        let Some(entries) = entries else {
            return Err(StoreError::UnrecoverablePosition);
        };
        let publications = entries
            .into_iter()
            .filter_map(|(offset, frame)| publication(&top.epoch, offset, frame))
            .map(|(publication, _)| Arc::new(publication))
            .collect();
        let position = Position {
            offset: top.offset,
            epoch: top.epoch.clone(),
        };
        let read = StreamRead {
            publications,
            top: position,
        };
        Ok((read, top))
    }

    /// The part that begins with the publication at `offset`.
    pub(super) async fn part(&self, channel: &Channel, offset: u64) -> Result<Part, CallError> {
        let range = Range {
            epoch: Bytes::new(),
            first: offset.to_string().into(),
            last: Bytes::from_static(b"+"),
            count: Some(HEAL_PAGE),
            newest_first: false,
        };
        let (top, entries) = self.fetch(channel, range).await?;
        let entries = entries.unwrap_or_default();
        Ok(Part {
            epoch: top.epoch,
            top: top.offset,
            top_id: top.id,
            is_full: entries.len() >= HEAL_PAGE,
            entries,
        })
    }

    /// Voids an epoch, if it is still the stream's.
    pub(super) async fn renew(&self, channel: &Channel, epoch: &str) -> Result<Top, CallError> {
        let keys = [self.keys.meta(channel)];
        let args = [
            Bytes::copy_from_slice(epoch.as_bytes()),
            random_epoch().into(),
        ];
        let slot = self.keys.slot(self.keys.partition(channel));
        let reply = self
            .cluster
            .call(slot, &RENEW, &keys, args, Again::Safe)
            .await?;
        top(reply.list()).ok_or_else(not_understood)
    }

    /// Where streams of one partition stand, in the order given.
    pub(super) async fn tops(
        &self,
        partition: u16,
        channels: &[Channel],
    ) -> Result<Vec<Top>, CallError> {
        let keys: Vec<Bytes> = channels
            .iter()
            .map(|channel| self.keys.meta(channel))
            .collect();
        let slot = self.keys.slot(partition);
        let reply = self
            .cluster
            .call(slot, &TOPS, &keys, [], Again::Safe)
            .await?;
        let tops: Option<Vec<Top>> = reply.list().chunks(3).map(top).collect();
        tops.filter(|tops| tops.len() == channels.len())
            .ok_or_else(not_understood)
    }

    pub(super) async fn remove(&self, channel: &Channel) -> Result<(), CallError> {
        let slot = self.keys.slot(self.keys.partition(channel));
        let keys = vec![self.keys.stream(channel)];
        self.cluster
            .command(slot, "UNLINK", keys, Again::Safe)
            .await?;
        Ok(())
    }

    /// The entries are missing when the stream has another epoch than the range wants.
    async fn fetch(
        &self,
        channel: &Channel,
        range: Range,
    ) -> Result<(Top, Option<Vec<(u64, Bytes)>>), CallError> {
        let keys = [self.keys.stream(channel), self.keys.meta(channel)];
        let count = range
            .count
            .map_or("-1".to_owned(), |count| count.to_string());
        let args = [
            random_epoch().into(),
            META_LIFE_SECONDS.to_string().into(),
            range.epoch,
            range.first,
            range.last,
            count.into(),
            Bytes::from_static(if range.newest_first { b"1" } else { b"0" }),
        ];
        let slot = self.keys.slot(self.keys.partition(channel));
        let reply = self
            .cluster
            .call(slot, &READ, &keys, args, Again::Safe)
            .await?;
        let mut fields = reply.into_list();
        let entries = (fields.len() == 4).then(|| fields.pop()).flatten();
        let top = top(&fields).ok_or_else(not_understood)?;
        let entries = entries.map(|entries| {
            let entry = |pair: &[Reply]| {
                let offset = u64::try_from(pair[0].integer()?).ok()?;
                Some((offset, pair[1].bytes()?.clone()))
            };
            entries.list().chunks_exact(2).filter_map(entry).collect()
        });
        Ok((top, entries))
    }
}

impl Range {
    fn of(options: &ReadOptions) -> Self {
        let since = options.since.as_ref();
        let mut range = Self {
            epoch: since.map_or_else(Bytes::new, |since| {
                Bytes::copy_from_slice(since.epoch.as_bytes())
            }),
            first: Bytes::from_static(b"-"),
            last: Bytes::from_static(b"+"),
            count: options.limit,
            newest_first: options.reverse,
        };
        match since.map(|since| since.offset) {
            None => {}
            Some(offset) if options.reverse => match offset.checked_sub(1) {
                Some(before) => range.last = before.to_string().into(),
                None => range.count = Some(0),
            },
            Some(offset) => match offset.checked_add(1) {
                Some(next) => range.first = next.to_string().into(),
                None => range.count = Some(0),
            },
        }
        range
    }
}

fn top(fields: &[Reply]) -> Option<Top> {
    let [epoch, offset, id] = fields else {
        return None;
    };
    Some(Top {
        epoch: epoch.text()?.into(),
        offset: u64::try_from(offset.integer()?).ok()?,
        id: Id::from_bytes(id.bytes()?),
    })
}

/// A stream's publication, with its position; and whether deltas may be made from it.
pub(super) fn publication(
    epoch: &Arc<str>,
    offset: u64,
    frame: Bytes,
) -> Option<(Publication, bool)> {
    match frame::decode(frame) {
        Some(Content::Publication {
            mut publication,
            delta,
        }) => {
            publication.offset = offset;
            publication.epoch = (offset == 1).then(|| epoch.clone());
            Some((publication, delta))
        }
        Some(Content::Join(_) | Content::Leave(_)) | None => {
            tracing::warn!(offset, "a publication in redis is not understood");
            None
        }
    }
}

pub(super) fn random_epoch() -> String {
    std::iter::repeat_with(fastrand::alphanumeric)
        .take(EPOCH_CHARS)
        .collect()
}

fn not_understood() -> CallError {
    CallError::Unknown("answer not understood".to_owned())
}
