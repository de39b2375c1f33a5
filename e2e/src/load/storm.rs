//! A client without mercy: subscribed to its channel, it publishes as fast as its socket takes the bytes.
//!
//! It reads what comes as fast as it can, so a server that closes it for slowness does so by the server's rule.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;

use super::client::{Client, Ended};
use super::clock::now_ns;
use super::frame;
use super::worker::Worker;

/// What a storming client may have unsent in the kernel. The kernel itself would take megabytes from each of the many clients,
/// and its TCP memory would run out before the server is tried: then segments are dropped, and nobody gets on.
pub const SEND_BUFFER_BYTES: u32 = 32 * 1024;

/// Storms from `go` until the connection ends.
pub async fn client(
    worker: Rc<Worker>,
    index: usize,
    mut client: Client,
    mut sender: OwnedWriteHalf,
) -> Result<(), Ended> {
    {
        let mut go = pin!(worker.go());
        loop {
            tokio::select! {
                () = &mut go => break,
                read = client.read(|_| {}) => {
                    let read = read?;
                    client.answer(read, &mut sender).await?;
                }
            }
        }
    }
    // Pongs leave between two messages; waiting for that must not keep the client from reading.
    let pongs = RefCell::new(Vec::new());
    let storming = async {
        let channel = worker
            .args
            .channel(index + worker.args.first)
            .unwrap_or_default();
        // Prepared once, so that the generator's own work stays small; all of it carries the storm's beginning as stamp.
        let text = worker
            .args
            .dialect
            .publish(3, &channel, worker.args.size, now_ns());
        let mut message = Vec::with_capacity(text.len() + 16);
        frame::encode(frame::TEXT, text.as_bytes(), &mut message);
        loop {
            let owed = pongs.take();
            sender.write_all(&owed).await?;
            sender.write_all(&message).await?;
            worker.report.borrow_mut().published += 1;
            // Or one client would fill its socket before another reads its own.
            tokio::task::yield_now().await;
        }
    };
    let receiving = async {
        loop {
            let read = client.read(|line| worker.count_line(&line)).await?;
            worker.count(read);
            read.pongs(&mut pongs.borrow_mut());
        }
    };
    tokio::select! {
        ended = storming => ended,
        ended = receiving => ended,
    }
}
