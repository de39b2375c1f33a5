//! The monitor's page in a real browser: a person who looks, clicks and types, by a script that is told what to do.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::sdk::{Script, Sdks};
use crate::sluice::target;

/// A browser's start on a busy machine, and whatever it is asked to wait for.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Names, sizes and colour schemes of pictures.
const LOOKS: [(&str, u32, u32, &str); 3] = [
    ("light", 1_280, 900, "light"),
    ("dark", 1_280, 900, "dark"),
    ("phone", 390, 844, "light"),
];

pub struct Page {
    script: Script,
}

impl Page {
    /// Pictures go to `target/page-pictures/<name>`.
    pub fn start(name: &str) -> Result<Self> {
        let pictures = target().join("page-pictures").join(name);
        let pictures = pictures.to_str().context("a path that is text")?.to_owned();
        let mut script = Sdks::prepare()?.start_node("e2e/sdk/page.mjs", &[&pictures])?;
        script.event("done", PATIENCE)?;
        Ok(Self { script })
    }

    /// Tells it one thing, and waits until it is done.
    pub fn tell(&mut self, command: &str, mut with: Value) -> Result<Value> {
        with["command"] = command.into();
        self.script.say(&with.to_string())?;
        let line = self.script.line(PATIENCE, |line| line.starts_with('{'))?;
        let answer: Value = serde_json::from_str(&line)?;
        if answer["event"] != "done" {
            bail!("{with}: {}", answer["why"].as_str().unwrap_or("?"));
        }
        Ok(answer)
    }

    pub fn open(&mut self, url: &str) -> Result<()> {
        self.tell("open", json!({ "url": url }))?;
        Ok(())
    }

    pub fn click(&mut self, role: &str, name: &str) -> Result<()> {
        self.tell("click", json!({ "role": role, "name": name }))?;
        Ok(())
    }

    /// Waits until what the selector finds says this.
    pub fn wait(&mut self, of: &str, text: &str) -> Result<()> {
        self.tell("wait", json!({ "of": of, "text": text }))?;
        Ok(())
    }

    pub fn text(&mut self, of: &str) -> Result<String> {
        let answer = self.tell("text", json!({ "of": of }))?;
        Ok(answer["text"].as_str().unwrap_or_default().to_owned())
    }

    /// The number at the beginning of a text, without its commas.
    pub fn number(&mut self, of: &str) -> Result<f64> {
        let text = self.text(of)?;
        let first = text.split_whitespace().next().unwrap_or_default();
        let number = first.replace(',', "");
        number
            .parse()
            .with_context(|| format!("{of}: {text:?} is no number"))
    }

    /// Waits until the number fits; how long that took.
    pub fn until(
        &mut self,
        of: &str,
        within: Duration,
        fits: impl Fn(f64) -> bool,
    ) -> Result<Duration> {
        let began = Instant::now();
        loop {
            let number = self.number(of)?;
            if fits(number) {
                return Ok(began.elapsed());
            }
            ensure!(
                began.elapsed() < within,
                "{of} is {number} after {within:?}"
            );
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// Pictures of what is shown, in each look; nothing of it is too wide, nor a serious fault for those who cannot see or point.
    pub fn pictures(&mut self, name: &str) -> Result<()> {
        for (look, width, height, scheme) in LOOKS {
            let with = json!({ "width": width, "height": height, "scheme": scheme });
            self.tell("look", with)?;
            self.tell("picture", json!({ "name": format!("{name}-{look}") }))?;
            let overflow = self.tell("overflow", json!({}))?;
            let pixels = overflow["pixels"].as_i64();
            ensure!(
                pixels <= Some(0),
                "{name}, {look}: {pixels:?} pixels too wide"
            );
            let found = self.tell("axe", json!({}))?;
            ensure!(
                found["faults"] == json!([]),
                "{name}, {look}: {}",
                found["faults"]
            );
        }
        let (_, width, height, scheme) = LOOKS[0];
        self.tell(
            "look",
            json!({ "width": width, "height": height, "scheme": scheme }),
        )?;
        Ok(())
    }

    /// Nothing that the browser or the page complained about since the last time.
    pub fn no_complaints(&mut self) -> Result<()> {
        self.complaints_of("nothing")
    }

    /// The same, but for those with this text, such as a status that was to be expected.
    pub fn complaints_of(&mut self, expected: &str) -> Result<()> {
        let found = self.tell("complaints", json!({}))?;
        let all = found["complaints"].as_array().context("complaints")?;
        let others: Vec<&Value> = all
            .iter()
            .filter(|one| !one.as_str().is_some_and(|text| text.contains(expected)))
            .collect();
        ensure!(others.is_empty(), "{others:?}");
        Ok(())
    }
}
