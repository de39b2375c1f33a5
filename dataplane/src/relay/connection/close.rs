//! The end of a connection: leaving everything, and the closing handshake.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::Connection;
use crate::relay::codes::{self, Disconnect};
use crate::relay::frame::{self, Inbound};
use crate::relay::limits::CLOSE_HANDSHAKE;
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
        let handshake = poll_fn(|cx| self.poll_closed(cx, worker));
        // A peer that does not answer is dropped; there is nothing more to say to it.
        let _ = tokio::time::timeout(CLOSE_HANDSHAKE, handshake).await;
    }

    /// Ready when the close frame is written and the peer has answered it, or is gone.
    fn poll_closed(&self, cx: &mut Context<'_>, worker: &Worker) -> Poll<()> {
        self.remember(cx);
        if self.poll_flush(cx, worker).is_err() || self.gone.get() {
            return Poll::Ready(());
        }
        let mut answered = false;
        loop {
            let mut buffer = worker.read_buffer();
            match self.socket.poll_read(cx, &mut buffer[..]) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(read)) => {
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
