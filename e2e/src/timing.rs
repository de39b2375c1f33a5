//! Promises about time, tested on machines that do other things as well.
//!
//! What must always hold fails a test at once. A time is different: a busy machine can only make it longer and a rate
//! only lower, so that one run that kept the promises proves them, while code that is slow misses them in every run.
//! A scenario is therefore run again when it missed some, a few times at most; it tells its figures each time. This is
//! for tests whose subject is a time: a bound that only keeps a test from hanging is a generous one instead.

use anyhow::{Result, bail};

/// One run beside a compiler says little; three in a row that miss are no chance.
const RUNS: usize = 3;

/// What one run has to say of the promises.
#[derive(Debug, Default)]
pub struct Promises {
    kept: Vec<String>,
    missed: Vec<String>,
}

impl Promises {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes whether a promise was kept; the text has the figures.
    #[must_use]
    pub fn expect(mut self, kept: bool, promise: impl Into<String>) -> Self {
        let list = if kept {
            &mut self.kept
        } else {
            &mut self.missed
        };
        list.push(promise.into());
        self
    }
}

/// Runs a scenario until one run kept all its promises, three times at most. An error of a run, or a panic, is final: it is
/// about what must hold on any machine.
pub async fn kept_in_one_run(mut run: impl AsyncFnMut() -> Result<Promises>) -> Result<()> {
    let mut told = Vec::new();
    for number in 1..=RUNS {
        let Promises { kept, missed } = run().await?;
        eprintln!("run {number}: kept: {kept:?}, missed: {missed:?}");
        if missed.is_empty() {
            return Ok(());
        }
        told.push(format!("run {number}: {}", missed.join("; ")));
    }
    bail!("missed in each of {RUNS} runs:\n{}", told.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often a scenario ran that keeps its promise in one of its runs, and how it ended.
    async fn runs(kept_in: usize) -> (usize, Result<()>) {
        let mut runs = 0;
        let ended = kept_in_one_run(async || {
            runs += 1;
            let promises = Promises::new().expect(true, "always");
            Ok(promises.expect(runs == kept_in, format!("figure {runs}")))
        })
        .await;
        (runs, ended)
    }

    #[tokio::test]
    async fn one_run_that_keeps_them_is_enough() {
        for kept_in in 1..=RUNS {
            let (runs, ended) = runs(kept_in).await;
            assert_eq!((runs, ended.is_ok()), (kept_in, true));
        }
    }

    #[tokio::test]
    async fn who_always_misses_is_told_all_figures() {
        let (runs, ended) = runs(RUNS + 1).await;
        let text = ended.unwrap_err().to_string();
        assert_eq!(runs, RUNS);
        for run in 1..=RUNS {
            assert!(text.contains(&format!("figure {run}")), "{text}");
        }
        assert!(!text.contains("always"), "{text}");
    }

    #[tokio::test]
    async fn an_error_is_final() {
        let mut runs = 0;
        let ended = kept_in_one_run(async || {
            runs += 1;
            bail!("lost")
        })
        .await;
        assert_eq!(
            (runs, ended.unwrap_err().to_string()),
            (1, "lost".to_owned())
        );
    }
}
