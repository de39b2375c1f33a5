//! Runs the programs of the machine (`ip`, `nft`, `kubectl`, ...) to their end; failures show what they printed.

use std::ffi::OsStr;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a program and returns what it printed.
pub(super) fn run<S: AsRef<OsStr>>(program: &str, arguments: &[S]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    text(&mut command)
}

/// What a command prints, if it succeeds.
pub(super) fn text(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| shown(command))?;
    succeeded(command, output)
}

/// The same with text on its standard input.
pub(super) fn text_with_input(command: &mut Command, input: &str) -> Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| shown(command))?;
    let mut pipe = child.stdin.take().context("stdin is piped")?;
    let input = input.to_owned();
    // Beside the reading of its output, so that neither side waits for the other.
    let writer = std::thread::spawn(move || pipe.write_all(input.as_bytes()));
    let output = child.wait_with_output()?;
    // A program that fails early closes its input; what it says is the better error.
    let _ = writer.join();
    succeeded(command, output)
}

fn succeeded(command: &Command, output: Output) -> Result<String> {
    if !output.status.success() {
        bail!(
            "{}: {}\n{}{}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect::<Vec<String>>()
        .join(" ")
}

/// Where a program is, as a shell finds it. Administration programs are found even if the user's path leaves them out.
pub(super) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(Into::into))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}
