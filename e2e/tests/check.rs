//! `sluice check` tells good manifests from bad ones, and `standalone` refuses what `check` refuses.

use anyhow::Result;
use sluice_e2e::manifest::Manifest;
use sluice_e2e::sluice::{Scratch, root, run};

#[test]
fn a_good_manifest_passes() -> Result<()> {
    let scratch = Scratch::new()?;
    let path = scratch.write("gateway.yaml", &Manifest::full().render(8000))?;
    let output = run(&["check", &path.display().to_string()])?;
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    Ok(())
}

#[test]
fn every_problem_of_a_bad_manifest_is_a_line() -> Result<()> {
    let scratch = Scratch::new()?;
    let text = Manifest::full()
        .limit("connections", (-1).into())
        .limit("messageBytes", 7.into())
        .render(8000);
    let text = text.replace("\"Authenticated\"", "\"Everybody\"");
    let path = scratch.write("gateway.yaml", &text)?.display().to_string();
    let output = run(&["check", &path])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let printed = String::from_utf8_lossy(&output.stdout);
    for word in ["connections", "messageBytes", "subscribe", "Everybody"] {
        let lines = printed.lines().filter(|line| line.contains(word)).count();
        assert!(lines >= 1, "no line about {word}:\n{printed}");
    }
    let output = run(&["standalone", &path, "--admin", "127.0.0.1:0"])?;
    assert_ne!(output.status.code(), Some(0), "{output:?}");
    let errors = format!("{output:?}");
    assert!(errors.contains("messageBytes"), "{errors}");
    Ok(())
}

#[test]
fn what_is_not_there_is_a_problem() -> Result<()> {
    let scratch = Scratch::new()?;
    let empty = scratch.write("empty.yaml", "")?.display().to_string();
    let no_yaml = scratch.write("no.yaml", "a: [")?.display().to_string();
    let missing = scratch.path().join("missing.yaml").display().to_string();
    for path in [&empty, &no_yaml, &missing] {
        let output = run(&["check", path])?;
        assert_eq!(output.status.code(), Some(1), "{path}: {output:?}");
        assert!(!output.stdout.is_empty(), "{path}: nothing said");
    }
    Ok(())
}

#[test]
fn the_examples_and_profiles_are_good() -> Result<()> {
    let mut checked = 0;
    for directory in ["examples", "e2e/profiles"] {
        for entry in std::fs::read_dir(root().join(directory))? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "yaml") {
                let output = run(&["check", &path.display().to_string()])?;
                assert_eq!(
                    output.status.code(),
                    Some(0),
                    "{}: {output:?}",
                    path.display()
                );
                checked += 1;
            }
        }
    }
    assert!(checked >= 4, "only {checked} manifests found");
    Ok(())
}
