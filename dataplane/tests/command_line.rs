//! The binary as scripts and people meet it: exit codes, and what is said where.

use std::process::{Command, Output};

fn sluice(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluice"))
        .args(arguments)
        .output()
        .expect("sluice starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is text")
}

#[test]
fn a_wrong_command_line_exits_with_2() {
    for arguments in [
        &["serve"][..],
        &["check"],
        &["standalone", "a.yaml", "--workers", "0"],
    ] {
        let output = sluice(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(text(&output.stderr).starts_with("error: "), "{output:?}");
        assert!(output.stdout.is_empty(), "{output:?}");
    }
    assert_eq!(
        text(&sluice(&["--version"]).stdout).trim(),
        concat!("sluice ", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_missing_manifest_is_a_problem_by_name() {
    let output = sluice(&["check", "no-such-file.yaml"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        text(&output.stdout).contains("no-such-file.yaml"),
        "{output:?}"
    );

    let output = sluice(&[
        "standalone",
        "no-such-file.yaml",
        "--admin",
        "127.0.0.1:0",
        "--log-format",
        "json",
    ]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let last = text(&output.stderr).lines().last().unwrap_or_default();
    let line: serde_json::Value = serde_json::from_str(last).expect("the log is JSON");
    assert_eq!(line["level"], "ERROR", "{line}");
    assert!(
        line["message"]
            .as_str()
            .unwrap()
            .contains("no-such-file.yaml"),
        "{line}"
    );
}
