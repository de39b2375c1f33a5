//! Clients two by two: each answers the other's message with one of its own, one in flight per pair.

use std::rc::Rc;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::OwnedWriteHalf;

use super::client::{Client, Ended};
use super::clock::now_ns;
use super::dialect::Line;
use super::frame;
use super::worker::Worker;

/// Plays until the connection ends. The even one of a pair begins.
pub async fn client(
    worker: Rc<Worker>,
    index: usize,
    mut client: Client,
    mut sender: OwnedWriteHalf,
) -> Result<(), Ended> {
    let index = index + worker.args.first;
    let partner = worker.pair_channel(index ^ 1);
    let message = || {
        let mut out = Vec::with_capacity(worker.args.size + 96);
        let message = worker
            .args
            .dialect
            .publish(3, &partner, worker.args.size, now_ns());
        frame::encode(frame::TEXT, message.as_bytes(), &mut out);
        worker.report.borrow_mut().published += 1;
        out
    };
    let begins = index.is_multiple_of(2);
    let mut go = std::pin::pin!(worker.go());
    let mut begun = false;
    loop {
        let mut answers = 0;
        tokio::select! {
            () = &mut go, if begins && !begun => {
                begun = true;
                sender.write_all(&message()).await?;
            }
            read = client.read(|line| {
                answers += u32::from(matches!(line, Line::Delivery(_)));
                worker.count_line(&line);
            }) => {
                let read = read?;
                worker.count(read);
                client.answer(read, &mut sender).await?;
            }
        }
        for _ in 0..answers {
            sender.write_all(&message()).await?;
        }
    }
}
