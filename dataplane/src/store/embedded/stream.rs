//! One channel's stream: its publications, offset and epoch. Pure: the caller holds the lock and says what time it is.
//!
//! Invariant: the kept publications have consecutive offsets and the last one's is `top`; so a publication is found
//! by arithmetic, and what is missing below is visible to a reader from the first offset it gets.
//!
//! Publications expire together, `ttl` after the last publish. Offset and epoch live on until [`STREAM_META_TTL`]
//! after the last use; whoever comes later meets a new stream with a new epoch and learns that its position is void.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::super::{ReadOptions, Retention, STREAM_META_TTL, StoreError, StreamRead};
use crate::relay::protocol::{Position, Publication};

/// Characters of an epoch: about 47 random bits, so that two lives of a stream do not share one.
const EPOCH_CHARS: usize = 8;

/// What a kept publication costs beyond its payloads: the structures themselves, and allocator slack.
const PUBLICATION_OVERHEAD_BYTES: usize = 192;

pub(super) struct Stream {
    epoch: Arc<str>,
    top: u64,
    version: u64,
    version_epoch: Arc<str>,
    publications: VecDeque<Arc<Publication>>,
    /// What `publications` cost.
    bytes: usize,
    expires_at: Instant,
    forget_at: Instant,
}

impl Stream {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            epoch: random_epoch(),
            top: 0,
            version: 0,
            version_epoch: Arc::default(),
            publications: VecDeque::new(),
            bytes: 0,
            expires_at: now,
            forget_at: now + STREAM_META_TTL,
        }
    }

    pub(super) fn position(&self) -> Position {
        Position {
            offset: self.top,
            epoch: self.epoch.clone(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn forget_at(&self) -> Instant {
        self.forget_at
    }

    /// A forgotten stream must be replaced by a new one before any other use.
    pub(super) fn forgotten(&self, now: Instant) -> bool {
        now >= self.forget_at
    }

    /// Drops what has expired. Before every read and append.
    pub(super) fn expire(&mut self, now: Instant) {
        if now >= self.expires_at {
            self.clear();
        }
    }

    /// Drops the publications, keeps the position.
    pub(super) fn clear(&mut self) {
        self.publications = VecDeque::new();
        self.bytes = 0;
    }

    /// Whether a publication of this version comes too late. An empty version epoch stands for the current one.
    pub(super) fn outdated(&self, version: u64, version_epoch: &Arc<str>) -> bool {
        version > 0
            && version <= self.version
            && (version_epoch.is_empty() || *version_epoch == self.version_epoch)
    }

    /// Remembers the version of the publication that is about to be appended. One without version changes nothing.
    pub(super) fn set_version(&mut self, version: u64, version_epoch: Arc<str>) {
        if version > 0 {
            self.version = version;
            self.version_epoch = version_epoch;
        }
    }

    /// Gives the publication its offset (and, if it is the first, the epoch), and keeps it.
    pub(super) fn append(
        &mut self,
        mut publication: Publication,
        retention: Retention,
        now: Instant,
    ) -> Arc<Publication> {
        self.expire(now);
        self.top += 1;
        publication.offset = self.top;
        publication.epoch = (self.top == 1).then(|| self.epoch.clone());
        let publication = Arc::new(publication);
        self.bytes += cost_bytes(&publication);
        self.publications.push_back(publication.clone());
        while self.publications.len() > retention.size as usize {
            self.drop_oldest();
        }
        self.expires_at = later(now, retention.ttl);
        self.touch(now);
        publication
    }

    /// Drops oldest publications until the stream costs at most `bytes_max`.
    pub(super) fn shrink_to(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max && !self.publications.is_empty() {
            self.drop_oldest();
        }
    }

    pub(super) fn read(
        &mut self,
        options: &ReadOptions,
        now: Instant,
    ) -> Result<StreamRead, StoreError> {
        self.expire(now);
        self.touch(now);
        if let Some(since) = &options.since
            && !since.epoch.is_empty()
            && since.epoch != self.epoch
        {
            return Err(StoreError::UnrecoverablePosition);
        }
        let limit = options.limit.unwrap_or(usize::MAX);
        let since = options.since.as_ref().map(|since| since.offset);
        let publications = if options.reverse {
            let end = since.map_or(self.publications.len(), |since| self.count_below(since));
            self.publications
                .range(..end)
                .rev()
                .take(limit)
                .cloned()
                .collect()
        } else {
            let start = since.map_or(0, |since| self.count_below(since.saturating_add(1)));
            self.publications
                .range(start..)
                .take(limit)
                .cloned()
                .collect()
        };
        Ok(StreamRead {
            publications,
            top: self.position(),
        })
    }

    /// How many kept publications have an offset below `offset`.
    fn count_below(&self, offset: u64) -> usize {
        let Some(first) = self.publications.front() else {
            return 0;
        };
        let distance = offset.saturating_sub(first.offset);
        usize::try_from(distance)
            .unwrap_or(usize::MAX)
            .min(self.publications.len())
    }

    fn touch(&mut self, now: Instant) {
        self.forget_at = now + STREAM_META_TTL;
    }

    fn drop_oldest(&mut self) {
        if let Some(oldest) = self.publications.pop_front() {
            self.bytes = self.bytes.saturating_sub(cost_bytes(&oldest));
        }
    }
}

/// A ttl too long for the clock means "as long as the position lives".
fn later(now: Instant, ttl: std::time::Duration) -> Instant {
    now.checked_add(ttl).unwrap_or(now + STREAM_META_TTL)
}

fn cost_bytes(publication: &Publication) -> usize {
    let tags: usize = publication
        .tags
        .iter()
        .map(|(key, value)| key.len() + value.len() + 64)
        .sum();
    PUBLICATION_OVERHEAD_BYTES + publication.data.len() + tags
}

fn random_epoch() -> Arc<str> {
    std::iter::repeat_with(fastrand::alphanumeric)
        .take(EPOCH_CHARS)
        .collect::<String>()
        .into()
}
