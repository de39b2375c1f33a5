//! Clients that connect, close and connect again: what does a connect cost the server?

use std::rc::Rc;

use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;

use super::client::Ended;
use super::clock::now_ns;
use super::frame;
use super::worker::Worker;

/// Lets every client connect over and over from `go` on. `accepted` counts connects, `latency` their time.
pub fn start(worker: &Rc<Worker>, clients: &mut JoinSet<()>) {
    for index in 0..worker.args.clients {
        let worker = Rc::clone(worker);
        clients.spawn_local(async move {
            worker.go().await;
            loop {
                let began = now_ns();
                let outcome = once(&worker, index).await;
                let mut report = worker.report.borrow_mut();
                match outcome {
                    Ok(()) => {
                        report.accepted += 1;
                        report.latency.record(now_ns() - began);
                    }
                    Err(ended) => *report.refused.entry(ended.to_string()).or_default() += 1,
                }
            }
        });
    }
}

async fn once(worker: &Worker, index: usize) -> Result<(), Ended> {
    const NORMAL_CLOSURE: [u8; 2] = 1000u16.to_be_bytes();
    let (mut client, mut sender) = worker.dial.connect(&worker.wish(index)).await?;
    let mut close = Vec::new();
    frame::encode(frame::CLOSE, &NORMAL_CLOSURE, &mut close);
    sender.write_all(&close).await?;
    // The server closes the TCP connection, so that the used-up port waits on its side.
    while client.read(|_| {}).await.is_ok() {}
    Ok(())
}
