//! The official JavaScript SDK in real use, in both encodings.

use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_e2e::manifest::{API_KEY, Manifest};
use sluice_e2e::sdk::Sdks;
use sluice_e2e::sluice::Sluice;
use sluice_e2e::token;

const SCENARIO: Duration = Duration::from_secs(90);

async fn scenario(encoding: &str) -> Result<()> {
    let sdks = Sdks::prepare()?;
    let sluice = Sluice::start(&Manifest::full()).await?;
    let api = format!("http://{}/api", sluice.address);
    let (alice, bob) = (token::user("alice"), token::user("bob"));
    let script = sdks.start_node(
        "e2e/sdk/relay.mjs",
        &[&sluice.url(), &api, API_KEY, encoding, &alice, &bob],
    )?;
    let lines = script.succeed(SCENARIO)?;
    ensure!(
        lines.last().is_some_and(|l| l.contains("\"done\"")),
        "{lines:?}"
    );
    Ok(())
}

#[tokio::test]
async fn the_javascript_sdk_works_with_json() -> Result<()> {
    scenario("json").await
}

#[tokio::test]
async fn the_javascript_sdk_works_with_protobuf() -> Result<()> {
    scenario("protobuf").await
}
