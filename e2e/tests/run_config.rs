//! `sluice check --write` makes what a pod gets, and `sluice run` serves it and follows its changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use sluice_e2e::manifest::Manifest;
use sluice_e2e::ports::free_port;
use sluice_e2e::sluice::{Scratch, Sluice, run};
use sluice_e2e::token;

/// The file and the directory of secrets that come of a manifest.
fn written(scratch: &Scratch, manifest: &Manifest, port: u16) -> Result<(PathBuf, PathBuf)> {
    let manifest = scratch.write("gateway.yaml", &manifest.render(port))?;
    let dir = scratch.path().join("pod");
    let words = ["check", &text(&manifest), "--write", &text(&dir)];
    let output = run(&words)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{output:?}");
    let file = dir.join("config.json");
    ensure!(
        said.contains(&format!("sluice run --config {}", text(&file))),
        "{said}"
    );
    Ok((file, dir.join("secrets")))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[tokio::test]
async fn a_written_configuration_is_served_and_followed() -> Result<()> {
    let scratch = Scratch::new()?;
    let port = free_port()?;
    let (file, secrets) = written(&scratch, &Manifest::full(), port)?;
    let document = std::fs::read_to_string(&file)?;
    let secret = format!("{:?}", token::SECRET);
    ensure!(!document.contains(&secret), "a secret is in: {document}");

    let sluice = Sluice::run_config(&file, &secrets, port).await?;
    let mut reader = sluice.client(&token::user("reader")).await?;
    let mut writer = sluice.client(&token::user("writer")).await?;
    for client in [&mut reader, &mut writer] {
        let asked = json!({ "channel": "room-1" });
        client.call("subscribe", asked).await?;
    }
    let published = json!({ "channel": "room-1", "data": { "n": 1 } });
    writer.call("publish", published).await?;
    let push = reader.push_of("pub").await?;
    ensure!(push["pub"]["data"]["n"] == 1, "{push}");

    // A changed document, and then a secret that is gone: refused, and the old configuration stays.
    let limited = Manifest::full().limit("channelsPerClient", 7.into());
    written(&scratch, &limited, port)?;
    let in_force = ["new configuration in force"];
    sluice.logged(&in_force, Duration::from_secs(40)).await?;
    let secret = std::fs::read_dir(&secrets)?.next().expect("a secret")?;
    std::fs::remove_file(secret.path())?;
    let refused = ["new configuration refused"];
    sluice.logged(&refused, Duration::from_secs(40)).await?;
    let name = secret.file_name();
    let words = ["configuration problem", &name.to_string_lossy()];
    sluice.logged(&words, Duration::from_secs(10)).await?;
    sluice.client(&token::user("later")).await?;
    Ok(())
}

#[test]
fn what_is_wrong_with_a_file_is_said_at_the_start() -> Result<()> {
    let scratch = Scratch::new()?;
    let (file, secrets) = written(&scratch, &Manifest::full(), free_port()?)?;
    let missing = text(&scratch.path().join("missing.json"));
    let manifest = text(&scratch.path().join("gateway.yaml"));
    for path in [missing, manifest] {
        let output = run(&["run", "--config", &path, "--admin", "127.0.0.1:0"])?;
        let said = format!("{output:?}");
        ensure!(!output.status.success() && said.contains(&path), "{said}");
    }
    std::fs::remove_dir_all(secrets)?;
    let output = run(&["run", "--config", &text(&file), "--admin", "127.0.0.1:0"])?;
    let said = format!("{output:?}");
    ensure!(
        !output.status.success() && said.contains("pod/secrets/"),
        "{said}"
    );
    Ok(())
}
