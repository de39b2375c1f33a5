//! The share of failures that has nothing to do with load.
//!
//! One dead replica behind a balancer or one kind of request that always fails must not throttle everything else. The
//! test is what happens to goodput when the load goes down: an upstream with too much to do answers as many as before,
//! one that fails by chance answers fewer, in proportion. Until that is known, failures count as overload.

/// Results of a block: enough that its share means something.
const BLOCK_RESULTS: u32 = 64;
const BLOCK_REFUSED: u32 = 4;
/// Results after which a block ends whatever was refused.
const BLOCK_RESULTS_MAX: u32 = 512;
/// A block with less than this is clean.
const CLEAN: f64 = 0.005;
/// Load, in parts of that of the reference, at which blocks are compared.
const LOWER_LOAD: f64 = 0.65;
const SHARE_MAX: f64 = 0.95;

/// Limits to go back to when the failures prove to be the background.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Restore {
    pub(super) limit: f64,
    pub(super) rate: Option<f64>,
    /// There is nothing left to lower: what still fails does not fail for load.
    pub(super) is_floor: bool,
}

#[derive(Debug)]
pub(super) struct Background {
    share: f64,
    block: Block,
    reference: Option<Reference>,
}

#[derive(Debug, Default)]
struct Block {
    seconds: f64,
    total: u32,
    refused: u32,
}

#[derive(Debug)]
struct Reference {
    restore: Restore,
    /// `None` until a block lay wholly in the bad time.
    measured: Option<Measured>,
}

#[derive(Debug, Clone, Copy)]
struct Measured {
    load: f64,
    goodput: f64,
    share: f64,
}

/// What a window brought.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) seconds: f64,
    pub(super) sent: u32,
    pub(super) total: u32,
    pub(super) refused: u32,
}

impl Background {
    pub(super) fn new() -> Self {
        Self {
            share: 0.0,
            block: Block::default(),
            reference: None,
        }
    }

    pub(super) fn share(&self) -> f64 {
        self.share
    }

    /// Whether a window's refusals are more than the background explains.
    pub(super) fn is_exceeded(&self, counts: Counts) -> bool {
        let total = f64::from(counts.total);
        let expected = total * self.share;
        let noise = 4.0 * (expected * (1.0 - self.share)).sqrt();
        f64::from(counts.refused) > expected + noise + 0.01 * total
    }

    /// Takes a window; `Some`: its refusals, and those before, proved to be the background.
    pub(super) fn observe(&mut self, counts: Counts, limits: Restore) -> Option<Restore> {
        if self.share > 0.0 && !self.is_exceeded(counts) {
            let fresh = f64::from(counts.refused) / f64::from(counts.total.max(1));
            let weight = (f64::from(counts.total) / 400.0).min(0.5);
            self.share += (fresh - self.share) * weight;
            if self.share < CLEAN / 2.0 {
                self.share = 0.0;
            }
        }
        if self.is_exceeded(counts) && self.reference.is_none() {
            self.reference = Some(Reference {
                restore: limits,
                measured: None,
            });
            self.block = Block::default();
            return None;
        }
        self.reference.as_ref()?;
        self.block.add(counts);
        if !self.block.is_full() {
            return None;
        }
        let block = std::mem::take(&mut self.block).measure();
        if limits.is_floor && block.share > CLEAN {
            self.reference = None;
            self.share = block.share.min(SHARE_MAX);
            return Some(limits);
        }
        self.judge(block)
    }

    /// In an outage nothing can be compared.
    pub(super) fn interrupt(&mut self) {
        self.block = Block::default();
    }

    fn judge(&mut self, block: Measured) -> Option<Restore> {
        let reference = self.reference.as_mut()?;
        if block.share < CLEAN.max(1.2 * self.share) {
            self.reference = None;
            return None;
        }
        let Some(measured) = reference.measured else {
            reference.measured = Some(block);
            return None;
        };
        if block.share < 0.6 * measured.share {
            // Less load, fewer refusals: it was overload. What is left is judged anew.
            reference.measured = Some(block);
            return None;
        }
        let ratio = block.load / measured.load.max(f64::MIN_POSITIVE);
        if ratio > 1.0 {
            reference.measured = Some(block);
            return None;
        }
        if ratio > LOWER_LOAD {
            return None;
        }
        let in_proportion = block.goodput < 0.5 * (1.0 + ratio) * measured.goodput;
        let restore = reference.restore;
        self.reference = None;
        if !in_proportion {
            return None;
        }
        self.share = block.share.min(SHARE_MAX);
        Some(restore)
    }
}

impl Block {
    fn add(&mut self, counts: Counts) {
        self.seconds += counts.seconds;
        self.total = self.total.saturating_add(counts.total);
        self.refused = self.refused.saturating_add(counts.refused);
    }

    fn is_full(&self) -> bool {
        (self.total >= BLOCK_RESULTS && self.refused >= BLOCK_REFUSED)
            || self.total >= BLOCK_RESULTS_MAX
    }

    fn measure(self) -> Measured {
        let seconds = self.seconds.max(1e-3);
        let total = self.total.max(1);
        Measured {
            load: f64::from(total) / seconds,
            goodput: f64::from(total - self.refused.min(total)) / seconds,
            share: f64::from(self.refused) / f64::from(total),
        }
    }
}
