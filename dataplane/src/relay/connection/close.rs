//! The end of a connection: leaving everything, and the closing handshake.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::time::Instant;

use super::Connection;
use crate::relay::codes::{self, Disconnect};
use crate::relay::frame::{self, Inbound};
use crate::relay::limits::{CLOSE_HANDSHAKE, CLOSE_HANDSHAKE_BUSY};
use crate::relay::outbox::Frame;
use crate::relay::worker::Worker;

impl Connection {
    /// Leaves everything, tells the peer why, and waits a short time for it to agree.
    pub(super) async fn finish(self: &Rc<Self>, worker: &Rc<Worker>, disconnect: &Disconnect) {
        worker.release_ingress(self.reserved_bytes.take());
        worker.forget_user(self);
        let subscriptions = self.session.borrow_mut().end();
        for subscription in subscriptions {
            self.leave(worker, &subscription).await;
        }
        self.seat.take();
        if self.gone.get() {
            return;
        }
        let mut bytes = Vec::new();
        frame::write_close(disconnect, &mut bytes);
        {
            let mut outbox = self.outbox.borrow_mut();
            if *disconnect == codes::DISCONNECT_SLOW {
                outbox.discard_unwritten();
            }
            outbox.push_unchecked(Frame::new(bytes, worker.frame_bytes()));
        }
        self.flush(worker);
        let moved_bytes = Cell::new(0);
        let mut handshake = pin!(poll_fn(|cx| self.poll_closed(cx, worker, &moved_bytes)));
        // A peer that does not answer is dropped; there is nothing more to say to it. One that still sends or takes bytes
        // has not come to our close frame yet, and would see a reset instead of it.
        let until = Instant::now() + CLOSE_HANDSHAKE_BUSY;
        while tokio::time::timeout(CLOSE_HANDSHAKE, &mut handshake)
            .await
            .is_err()
        {
            if moved_bytes.take() == 0 || Instant::now() >= until {
                return;
            }
        }
    }

    /// Ready when the close frame is written and the peer has answered it, or is gone.
    fn poll_closed(
        &self,
        cx: &mut Context<'_>,
        worker: &Worker,
        moved_bytes: &Cell<usize>,
    ) -> Poll<()> {
        self.remember(cx);
        let waiting_bytes = self.waiting_bytes();
        if self.poll_flush(cx, worker).is_err() || self.gone.get() {
            return Poll::Ready(());
        }
        moved_bytes.set(moved_bytes.get() + waiting_bytes - self.waiting_bytes());
        let mut answered = false;
        loop {
            let mut buffer = worker.read_buffer();
            match self.socket.poll_read(cx, &mut buffer[..]) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(read)) => {
                    moved_bytes.set(moved_bytes.get() + read);
                    let message_bytes_max = worker.message_bytes_max();
                    let mut note = |inbound| answered |= matches!(inbound, Inbound::Close(_));
                    let outcome = self.reader.borrow_mut().read(
                        &buffer[..read],
                        message_bytes_max,
                        &mut note,
                    );
                    if answered || outcome.is_err() {
                        return Poll::Ready(());
                    }
                }
            }
        }
    }
}
