//! The README's code blocks, for the tests that it tells the truth.

use anyhow::{Context, Result, ensure};

use crate::sluice::root;

/// The README.
pub struct Readme {
    /// Language and text of each fenced block, in order.
    blocks: Vec<(String, String)>,
}

impl Readme {
    pub fn read() -> Result<Self> {
        let text = std::fs::read_to_string(root().join("README.md"))?;
        let mut blocks = Vec::new();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(language) = line.strip_prefix("```") {
                let block: Vec<&str> = lines.by_ref().take_while(|l| *l != "```").collect();
                blocks.push((language.to_owned(), block.join("\n") + "\n"));
            }
        }
        Ok(Self { blocks })
    }

    /// The only block of a language that holds this text.
    pub fn block(&self, language: &str, holds: &str) -> Result<&str> {
        let mut fitting = self
            .blocks
            .iter()
            .filter(|(l, t)| l == language && t.contains(holds));
        let (_, text) = fitting
            .next()
            .with_context(|| format!("no {language} block with {holds}"))?;
        ensure!(
            fitting.next().is_none(),
            "several {language} blocks with {holds}"
        );
        Ok(text)
    }
}
