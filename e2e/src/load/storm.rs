//! A client without mercy: subscribed to its channel, it publishes as fast as its socket takes the bytes.
//!
//! It reads what comes as fast as it can, so a server that closes it for slowness does so by the server's rule.

use std::rc::Rc;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::Mutex;

use super::client::{Client, Ended};
use super::clock::now_ns;
use super::frame;
use super::worker::Worker;

/// Storms from `go` until the connection ends.
pub async fn client(
    worker: Rc<Worker>,
    index: usize,
    mut client: Client,
    sender: OwnedWriteHalf,
) -> Result<(), Ended> {
    // Shared between storming and answering pings, so that neither cuts into the other's frame.
    let sender = Mutex::new(sender);
    let storming = async {
        worker.go().await;
        let channel = worker
            .args
            .channel(index + worker.args.first)
            .unwrap_or_default();
        let mut message = Vec::new();
        loop {
            message.clear();
            let text = worker
                .args
                .dialect
                .publish(3, &channel, worker.args.size, now_ns());
            frame::encode(frame::TEXT, text.as_bytes(), &mut message);
            sender.lock().await.write_all(&message).await?;
            worker.report.borrow_mut().published += 1;
        }
    };
    let receiving = async {
        loop {
            let read = client.read(|line| worker.count_line(&line)).await?;
            worker.count(read);
            if read.pings + read.native_pings > 0 {
                client.answer(read, &mut *sender.lock().await).await?;
            }
        }
    };
    tokio::select! {
        ended = storming => ended,
        ended = receiving => ended,
    }
}
