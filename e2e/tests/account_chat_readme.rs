//! What the README tells a newcomer to paste works as it stands.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_e2e::readme::Readme;
use sluice_e2e::sdk::{Script, Sdks, describe};
use sluice_e2e::sluice::{Scratch, Sluice, root};

const SOON: Duration = Duration::from_secs(20);

/// Fixed in the example manifest.
const PORT: u16 = 8000;

/// The last line of a shell block, with paths that exist here.
fn command(readme: &Readme, holds: &str, sdks: &Sdks, directory: &Path) -> Result<Command> {
    let block = readme.block("sh", holds)?;
    let line = block.lines().last().context("an empty block")?;
    let line = line.replace(
        "/tmp/sluice-chat/bin/python",
        &sdks.python().display().to_string(),
    );
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("exec {line}")])
        .current_dir(directory);
    Ok(command)
}

#[test]
fn the_printed_clients_are_the_ones_in_examples() -> Result<()> {
    let readme = Readme::read()?;
    for (language, file) in [("python", "chat.py"), ("js", "chat.mjs")] {
        let example = std::fs::read_to_string(root().join("examples").join(file))?;
        assert_eq!(
            readme.block(language, "chat")?,
            example,
            "README and examples/{file} differ"
        );
    }
    Ok(())
}

#[test]
fn the_first_command_starts_the_example_and_the_second_runs_ci() -> Result<()> {
    let readme = Readme::read()?;
    let start = readme.block("sh", "examples/relay.yaml")?;
    ensure!(
        start.contains("cargo run --release --bin sluice -- standalone examples/relay.yaml"),
        "{start}"
    );
    ensure!(
        root().join("examples/relay.yaml").exists(),
        "examples/relay.yaml is missing"
    );
    readme.block("sh", "./test.sh")?;
    ensure!(
        std::fs::read_to_string(root().join(".ci/run"))?.contains("./test.sh"),
        ".ci/run runs something else"
    );
    Ok(())
}

#[tokio::test]
async fn pasted_clients_of_an_account_chat_and_others_see_nothing() -> Result<()> {
    let readme = Readme::read()?;
    let sdks = Sdks::prepare()?;
    let manifest = std::fs::read_to_string(root().join("examples/relay.yaml"))?;
    let _sluice = Sluice::start_text(&manifest, PORT).await?;
    // The files as pasted, beside the packages that `npm install` would have put there.
    let scratch = Scratch::new()?;
    std::fs::create_dir(scratch.path().join("examples"))?;
    scratch.write("examples/chat.py", readme.block("python", "chat")?)?;
    scratch.write("examples/chat.mjs", readme.block("js", "chat")?)?;
    std::os::unix::fs::symlink(
        sdks.node().join("node_modules"),
        scratch.path().join("examples/node_modules"),
    )?;
    let start = |holds: &str| Script::start(command(&readme, holds, &sdks, scratch.path())?);

    let mut eve = start("eve other")?;
    eve.line(SOON, |l| l == "online: eve").context("eve")?;
    let mut alice = start("alice acme")?;
    alice
        .line(SOON, |l| l == "online: alice")
        .context("alice")?;
    let mut bob = start("bob acme")?;
    bob.line(SOON, |l| l == "online: alice bob")
        .context("bob")?;
    alice
        .line(SOON, |l| l == "joined: bob")
        .context("alice sees bob come")?;
    alice.say("hello bob")?;
    bob.line(SOON, |l| l == "alice: hello bob")
        .context("bob reads")?;
    bob.say("hello alice")?;
    alice
        .line(SOON, |l| l == "bob: hello alice")
        .context("alice reads")?;
    api_call(&readme)?;
    alice
        .line(SOON, |l| l.ends_with("hello"))
        .context("alice reads the server")?;
    drop(bob);
    alice
        .line(SOON, |l| l == "left: bob")
        .context("alice sees bob go")?;
    let of_eve = eve.rest(Duration::from_millis(500));
    ensure!(
        of_eve.iter().all(|l| l == "joined: eve"),
        "eve saw {of_eve:?}"
    );
    Ok(())
}

fn api_call(readme: &Readme) -> Result<()> {
    let output = Command::new("sh")
        .args(["-c", readme.block("sh", "curl")?])
        .output()?;
    let printed = describe(&output);
    ensure!(
        output.status.success() && printed.contains("result"),
        "{printed}"
    );
    Ok(())
}

#[test]
fn the_token_script_signs_what_the_gateway_takes() -> Result<()> {
    let output = Command::new(root().join("examples/token.sh"))
        .args(["alice", "acme"])
        .output()?;
    let token = String::from_utf8(output.stdout)?;
    let key = jsonwebtoken::DecodingKey::from_secret(b"only-for-trying-tokens");
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::HS256);
    rules.required_spec_claims.clear();
    let claims = jsonwebtoken::decode::<serde_json::Value>(token.trim(), &key, &rules)?.claims;
    assert_eq!(
        claims,
        serde_json::json!({ "sub": "alice", "account": "acme" })
    );
    Ok(())
}
