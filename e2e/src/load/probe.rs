//! The onlooker of a storm: asks for the server list and tries new connections a few times a second.
//!
//! Its own connection is made before the storm and must live through it. `--channels` and `--prefix` name the channel
//! whose list it asks for.

use std::rc::Rc;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::client::{Client, Ended, Wish};
use super::dialect::Line;
use super::frame;
use super::report::{ProbeSecond, Report};
use super::worker::Worker;

/// Between two questions.
const PERIOD: Duration = Duration::from_millis(250);
/// A question that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Starts the two probes.
pub fn start(worker: &Rc<Worker>, clients: &mut JoinSet<()>) {
    let lists = Rc::clone(worker);
    clients.spawn_local(async move {
        if let Err(ended) = ask_for_lists(&lists).await {
            let since = lists.since_go_ns();
            lists
                .report
                .borrow_mut()
                .note_close(ended.to_string(), since);
        }
    });
    let connects = Rc::clone(worker);
    clients.spawn_local(async move {
        connects.go().await;
        loop {
            let outcome = timeout(PATIENCE, connects.dial.connect(&connects.wish(0))).await;
            let status = match outcome {
                Ok(Ok(_)) => "101".to_owned(),
                Ok(Err(Ended::Status {
                    status,
                    retry_after,
                })) => {
                    format!(
                        "{status}{}",
                        if retry_after.is_some() {
                            " retry-after"
                        } else {
                            ""
                        }
                    )
                }
                Ok(Err(other)) => other.to_string(),
                Err(_) => "timeout".to_owned(),
            };
            note(&connects, |second| {
                *second.connects.entry(status).or_default() += 1
            });
            sleep(PERIOD).await;
        }
    });
}

async fn ask_for_lists(worker: &Worker) -> Result<(), Ended> {
    let channel = worker.args.channel(0);
    let wish = Wish {
        receives: channel.clone(),
        ..worker.wish(0)
    };
    let (mut client, mut sender) = worker.dial.connect(&wish).await?;
    worker.report.borrow_mut().connected += 1;
    let mut id = 2;
    loop {
        id += 1;
        let question = json!({"id": id, "presence": {"channel": channel}}).to_string();
        let mut out = Vec::new();
        frame::encode(frame::TEXT, question.as_bytes(), &mut out);
        sender.write_all(&out).await?;
        match timeout(PATIENCE, reply(&mut client, &mut sender, id)).await {
            Ok(Ok(0)) => note(worker, |second| second.lists += 1),
            Ok(Ok(code)) => note(worker, |second| {
                *second.list_errors.entry(code).or_default() += 1
            }),
            Ok(Err(ended)) => return Err(ended),
            Err(_) => note(worker, |second| second.list_timeouts += 1),
        }
        let pause = sleep(PERIOD);
        tokio::pin!(pause);
        loop {
            // What the channel carries is read also between questions: a probe must not be a slow reader.
            tokio::select! {
                () = &mut pause => break,
                read = client.read(|_| {}) => {
                    let read = read?;
                    client.answer(read, &mut sender).await?;
                }
            }
        }
    }
}

/// The error code of the reply to `id`; 0 when it is a result.
async fn reply(client: &mut Client, sender: &mut OwnedWriteHalf, id: u32) -> Result<u32, Ended> {
    loop {
        let mut answer = None;
        let read = client
            .read(|line| {
                if let Line::Reply(of, code) = line
                    && of == id
                {
                    answer = Some(code);
                }
            })
            .await?;
        client.answer(read, sender).await?;
        if let Some(code) = answer {
            return Ok(code);
        }
    }
}

fn note(worker: &Worker, change: impl FnOnce(&mut ProbeSecond)) {
    let now = worker.since_go_ns() / 1_000_000_000;
    let report: &mut Report = &mut worker.report.borrow_mut();
    if report.probe.last().is_none_or(|last| last.second != now) {
        report.probe.push(ProbeSecond {
            second: now,
            ..ProbeSecond::default()
        });
    }
    if let Some(last) = report.probe.last_mut() {
        change(last);
    }
}
