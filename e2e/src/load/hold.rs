//! A client that stays connected, answers pings and counts what it receives.

use std::rc::Rc;

use tokio::net::tcp::OwnedWriteHalf;

use super::client::{Client, Ended};
use super::worker::Worker;

/// Receives until the connection ends.
pub async fn client(
    worker: Rc<Worker>,
    _index: usize,
    mut client: Client,
    mut sender: OwnedWriteHalf,
) -> Result<(), Ended> {
    loop {
        let read = client.read(|line| worker.count_line(&line)).await?;
        worker.count(read);
        client.answer(read, &mut sender).await?;
    }
}
