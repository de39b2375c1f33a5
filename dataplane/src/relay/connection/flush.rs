//! Writing: from the outbox to the socket, as much as it takes.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;
use tokio::net::TcpStream;

use super::Connection;
use crate::relay::limits::{WRITE_FRAMES_MAX, WRITE_GATHER_BYTES};
use crate::relay::outbox::{Frame, Outbox};
use crate::relay::socket::Socket;
use crate::relay::worker::Worker;

/// Frames from this size on are not worth copying together.
const GATHER_FRAME_BYTES: usize = 8 * 1024;
/// Slices of one vectored write.
const VECTOR_SLICES: usize = 16;

impl Connection {
    /// Queues the connection's own reply; it is written by the `flush` that ends the handling.
    pub(super) fn send(self: &Rc<Self>, worker: &Worker, frame: Vec<u8>) {
        self.send_frame(worker, Frame::new(frame, worker.frame_bytes()));
    }

    pub(super) fn send_frame(self: &Rc<Self>, worker: &Worker, frame: Frame) {
        self.admit(frame, worker.allowance());
    }

    /// Writes what the socket takes now; the rest is left to the task.
    pub fn flush(&self, worker: &Worker) {
        self.dirty.set(false);
        if self.blocked.get() || self.outbox.borrow().is_empty() {
            return;
        }
        match &self.socket {
            Socket::Plain(tcp) => {
                if self.write(tcp, worker).is_err() {
                    self.gone.set(true);
                    self.wake();
                }
            }
            // TLS writes need the task's context.
            Socket::Tls(_) => self.wake(),
        }
    }

    fn write(&self, tcp: &TcpStream, worker: &Worker) -> io::Result<()> {
        let mut outbox = self.outbox.borrow_mut();
        while !outbox.is_empty() {
            match write_some(&outbox, tcp, &mut worker.write_buffer()) {
                Ok(written) => {
                    self.note_written(worker, written);
                    outbox.advance(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !self.blocked.replace(true) {
                        self.wake();
                    }
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn note_written(&self, worker: &Worker, bytes: usize) {
        worker.count_write(bytes);
        self.wrote_at_ms.set(worker.coarse_ms());
        super::add(&self.sent_bytes, bytes);
    }

    /// Waits for something of the client's own while its outbox goes on being written: who waits to publish goes on reading.
    pub(super) async fn writing<F: Future>(&self, worker: &Worker, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|cx| {
            self.remember(cx);
            if self.poll_flush(cx, worker).is_err() {
                self.gone.set(true);
            }
            future.as_mut().poll(cx)
        })
        .await
    }

    /// Inside of `writing`: gives up when the connection is to be closed.
    pub(super) async fn unless_closing<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            if self.gone.get() || self.closing.borrow().is_some() {
                return Poll::Ready(None);
            }
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// For the task: goes on writing once the socket is writable again.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>, worker: &Worker) -> io::Result<()> {
        match &self.socket {
            Socket::Plain(tcp) => {
                while self.blocked.get() {
                    match tcp.poll_write_ready(cx) {
                        Poll::Pending => return Ok(()),
                        Poll::Ready(ready) => ready?,
                    }
                    self.blocked.set(false);
                    self.write(tcp, worker)?;
                }
                Ok(())
            }
            Socket::Tls(tls) => {
                let mut tls = tls.borrow_mut();
                let mut outbox = self.outbox.borrow_mut();
                let mut wrote = false;
                while !outbox.is_empty() {
                    let mut buffer = worker.write_buffer();
                    gather(&outbox, &mut buffer);
                    match Pin::new(&mut **tls).poll_write(cx, &buffer) {
                        Poll::Pending => return Ok(()),
                        Poll::Ready(written) => {
                            let written = written?;
                            self.note_written(worker, written);
                            outbox.advance(written);
                            wrote = true;
                        }
                    }
                }
                if wrote && let Poll::Ready(Err(error)) = Pin::new(&mut **tls).poll_flush(cx) {
                    return Err(error);
                }
                Ok(())
            }
        }
    }
}

fn write_some(outbox: &Outbox, tcp: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut slices = outbox.slices(VECTOR_SLICES);
    let first = slices.next().unwrap_or_default();
    if first.len() == outbox.waiting_bytes() {
        return tcp.try_write(first);
    }
    if first.len() < GATHER_FRAME_BYTES {
        gather(outbox, buffer);
        return tcp.try_write(buffer);
    }
    let mut vector = [IoSlice::new(&[]); VECTOR_SLICES];
    let mut count = 1;
    vector[0] = IoSlice::new(first);
    for slice in slices {
        vector[count] = IoSlice::new(slice);
        count += 1;
    }
    tcp.try_write_vectored(&vector[..count])
}

/// Copies small frames together: one system call instead of many.
fn gather(outbox: &Outbox, buffer: &mut Vec<u8>) {
    buffer.clear();
    for slice in outbox.slices(WRITE_FRAMES_MAX) {
        let room = WRITE_GATHER_BYTES - buffer.len();
        buffer.extend_from_slice(&slice[..slice.len().min(room)]);
        if slice.len() >= room {
            break;
        }
    }
}
