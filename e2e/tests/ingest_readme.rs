//! What the README tells a newcomer to paste for ingest works as it stands.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use sluice_e2e::readme::Readme;
use sluice_e2e::sdk::{Script, Sdks};
use sluice_e2e::sluice::{Launch, Scratch, Sluice, root};
use sluice_e2e::upstream::handle::binary;

const SOON: Duration = Duration::from_secs(20);

/// Fixed in the example manifest.
const PORT: u16 = 8000;

/// The sample upstream as the README starts it, and what it prints.
struct Sample {
    child: Child,
    lines: Receiver<String>,
}

impl Sample {
    fn start(readme: &Readme) -> Result<Self> {
        let block = readme.block("sh", "sluice-upstream")?;
        let line = block.lines().last().context("an empty block")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let (cargo, arguments) = match words.iter().position(|word| *word == "--") {
            Some(at) => (&words[..at], &words[at + 1..]),
            None => (&words[..], &[][..]),
        };
        ensure!(cargo.ends_with(&["--bin", "sluice-upstream"]), "{line}");
        let mut child = Command::new(binary("sluice-upstream")?)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = BufReader::new(child.stdout.take().context("stdout is piped")?);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Ok(Self { child, lines })
    }

    /// The next line that holds this; all before it come along.
    fn until(&self, text: &str) -> Result<Vec<String>> {
        let deadline = Instant::now() + SOON;
        let mut seen = Vec::new();
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    let found = line.contains(text);
                    seen.push(line);
                    if found {
                        return Ok(seen);
                    }
                }
                Err(_) => bail!("no line with {text:?} in {SOON:?}: {seen:?}"),
            }
        }
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn pasted_commands_bring_the_sdk_s_events_to_the_sample_upstream() -> Result<()> {
    let readme = Readme::read()?;
    let sdks = Sdks::prepare()?;
    let sample = Sample::start(&readme)?;
    sample.until("listening on")?;
    let start = readme.block("sh", "examples/ingest.yaml")?;
    ensure!(
        start.contains("--bin sluice -- standalone examples/ingest.yaml --data-dir"),
        "{start}"
    );
    let scratch = Scratch::new()?;
    let manifest = std::fs::read_to_string(root().join("examples/ingest.yaml"))?;
    let mut launch = Launch::new(manifest, PORT);
    let data = scratch.path().join("data").display().to_string();
    launch.arguments = vec!["--data-dir".to_owned(), data];
    let _sluice = Sluice::launch(launch).await?;

    std::fs::create_dir(scratch.path().join("examples"))?;
    std::fs::copy(
        root().join("examples/events.mjs"),
        scratch.path().join("examples/events.mjs"),
    )?;
    std::os::unix::fs::symlink(
        sdks.node().join("node_modules"),
        scratch.path().join("examples/node_modules"),
    )?;
    let block = readme.block("sh", "events.mjs")?;
    let line = block.lines().last().context("an empty block")?;
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("exec {line}")])
        .current_dir(scratch.path());
    let script = Script::start(command)?;
    let lines = sample.until("{\"n\":10}")?;
    script.succeed(SOON)?;
    let steps: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.split_once("event step x1 ").map(|(_, n)| n))
        .collect();
    let expected: Vec<String> = (1..=steps.len())
        .map(|n| format!("{{\"n\":{n}}}"))
        .collect();
    ensure!(steps.len() == 10 && steps == expected, "{lines:?}");
    ensure!(
        lines.iter().any(|line| line.contains("begin_session")),
        "{lines:?}"
    );
    Ok(())
}
