//! `sluice requests`: what a running gateway holds, asked over its admin port.
//!
//! Exit codes: 0 done, 1 failed (wholly, or for some of the requests), 2 wrong command line. Output goes to standard
//! output, problems to standard error.

use std::io::{self, Write};
use std::process::ExitCode;

use form_urlencoded::Serializer;
use serde_json::{Value, json};

use crate::admin_client::Client;
use crate::args::{ActArgs, FilterArgs, ListArgs, Output, RequestsArgs, RequestsCommand, ShowArgs};
use crate::clock::unix_ms;

mod table;

/// Asked of the gateway at a time.
const PAGE: u32 = 500;

/// Why a command did not do what it should.
enum Failure {
    /// Told by the gateway, or about reaching it.
    Problem(String),
    /// Nobody reads the output any more.
    Output(io::Error),
}

impl From<io::Error> for Failure {
    fn from(failure: io::Error) -> Self {
        Self::Output(failure)
    }
}

#[derive(Clone, Copy)]
enum Action {
    Replay,
    Discard,
}

impl Action {
    fn path(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Discard => "discard",
        }
    }

    fn done(self) -> &'static str {
        match self {
            Self::Replay => "replayed",
            Self::Discard => "discarded",
        }
    }
}

pub fn run(args: &RequestsArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(execute(&args.command, &mut io::stdout().lock())),
        Err(failure) => Err(Failure::Problem(failure.to_string())),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        // Whoever read the output has enough of it, as `head` does.
        Err(Failure::Output(failure)) if failure.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::FAILURE
        }
        Err(Failure::Output(failure)) => fail(&failure.to_string()),
        Err(Failure::Problem(problem)) => fail(&problem),
    }
}

fn fail(problem: &str) -> ExitCode {
    // When nobody reads problems either, the exit code has to do.
    let _ = writeln!(io::stderr(), "error: {problem}");
    ExitCode::FAILURE
}

/// Returns whether all was done.
async fn execute(command: &RequestsCommand, output: &mut impl Write) -> Result<bool, Failure> {
    match command {
        RequestsCommand::List(args) => list(args, output).await,
        RequestsCommand::Show(args) => show(args, output).await,
        RequestsCommand::Replay(args) => act(Action::Replay, args, output).await,
        RequestsCommand::Discard(args) => act(Action::Discard, args, output).await,
    }
}

async fn list(args: &ListArgs, output: &mut impl Write) -> Result<bool, Failure> {
    let client = Client::new(args.server.admin);
    let mut requests: Vec<Value> = Vec::new();
    let mut after = None;
    let mut left = args.limit;
    loop {
        let mut query = query(
            &args.filter,
            args.state.map(|state| state.as_str()),
            after.as_deref(),
        );
        query.append_pair("limit", &left.min(PAGE).to_string());
        let mut page = client.get(&format!("/requests?{}", query.finish())).await?;
        let Value::Array(found) = page["requests"].take() else {
            return Err(Failure::Problem("the answer has no requests".to_owned()));
        };
        left = left.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
        let is_empty = found.is_empty();
        requests.extend(found);
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() || left == 0 || is_empty {
            break;
        }
    }
    match args.server.output {
        Output::Json => print(output, &json!({ "requests": requests, "next": after }))?,
        Output::Table => {
            table::requests(output, &requests)?;
            if after.is_some() {
                writeln!(output, "there are more; --limit shows them")?;
            }
        }
    }
    Ok(true)
}

async fn show(args: &ShowArgs, output: &mut impl Write) -> Result<bool, Failure> {
    let client = Client::new(args.server.admin);
    let shown = client.get(&format!("/requests/{}", args.id)).await?;
    match args.server.output {
        Output::Json => print(output, &shown)?,
        Output::Table => table::request(output, &shown)?,
    }
    Ok(true)
}

async fn act(action: Action, args: &ActArgs, output: &mut impl Write) -> Result<bool, Failure> {
    if args.ids.is_empty() {
        act_on_all(action, args, output).await
    } else {
        act_on_each(action, args, output).await
    }
}

async fn act_on_each(
    action: Action,
    args: &ActArgs,
    output: &mut impl Write,
) -> Result<bool, Failure> {
    let client = Client::new(args.server.admin);
    let mut results = Vec::new();
    let mut all_done = true;
    for id in &args.ids {
        let result = client
            .post(&format!("/requests/{id}/{}", action.path()))
            .await;
        let result = match result {
            Ok(result) => result,
            Err(problem) => {
                all_done = false;
                json!({ "id": id.to_string(), "error": problem })
            }
        };
        if args.server.output == Output::Table {
            table::result(output, action.done(), &result)?;
        }
        results.push(result);
    }
    if args.server.output == Output::Json {
        print(output, &json!({ "results": results }))?;
    }
    Ok(all_done)
}

async fn act_on_all(
    action: Action,
    args: &ActArgs,
    output: &mut impl Write,
) -> Result<bool, Failure> {
    let client = Client::new(args.server.admin);
    let mut filter = args.filter.clone();
    // What comes to match while this runs, by what it does itself, is not meant.
    filter.until_ms.get_or_insert_with(unix_ms);
    let (mut matched, mut done, mut skipped) = (0, 0, 0);
    let mut after: Option<String> = None;
    let problem = loop {
        let mut query = query(
            &filter,
            args.state.map(|state| state.as_str()),
            after.as_deref(),
        );
        query.append_pair("limit", &PAGE.to_string());
        let path = format!("/requests/{}?{}", action.path(), query.finish());
        let counts = match client.post(&path).await {
            Ok(counts) => counts,
            Err(problem) => break Some(problem),
        };
        let count = |name: &str| counts[name].as_u64().unwrap_or(0);
        matched += count("matched");
        done += count(action.done());
        skipped += count("skipped");
        let problem = counts["error"].as_str().map(str::to_owned);
        let next = counts["next"].as_str().map(str::to_owned);
        // A gateway that does not get on is not asked for ever.
        let stands_still = next == after;
        after = next;
        if after.is_none() || problem.is_some() || stands_still {
            break problem;
        }
    };
    let all_done = problem.is_none() && after.is_none();
    match args.server.output {
        Output::Json => {
            let mut counts = json!({ "matched": matched, "skipped": skipped });
            counts[action.done()] = done.into();
            if let Some(problem) = &problem {
                counts["error"] = problem.as_str().into();
            }
            print(output, &counts)?;
        }
        Output::Table => writeln!(output, "{}: {done}, skipped: {skipped}", action.done())?,
    }
    match problem {
        Some(problem) => Err(Failure::Problem(problem)),
        None => Ok(all_done),
    }
}

fn query(
    filter: &FilterArgs,
    state: Option<&str>,
    after: Option<&str>,
) -> Serializer<'static, String> {
    let mut query = Serializer::new(String::new());
    let from = filter.from_ms.map(|ms| ms.to_string());
    let until = filter.until_ms.map(|ms| ms.to_string());
    let pairs = [
        ("application", filter.application.as_deref()),
        ("key", filter.key.as_deref()),
        ("from", from.as_deref()),
        ("until", until.as_deref()),
        ("state", state),
        ("after", after),
    ];
    for (name, value) in pairs {
        if let Some(value) = value {
            query.append_pair(name, value);
        }
    }
    query
}

fn print(output: &mut impl Write, value: &Value) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *output, value)?;
    writeln!(output)
}

impl From<String> for Failure {
    fn from(problem: String) -> Self {
        Self::Problem(problem)
    }
}

#[cfg(test)]
mod tests;
