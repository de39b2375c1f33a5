//! One connection and its devices.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::outcome::Outcome;
use super::schedule::{Due, Schedule};
use super::shape::Shape;
use super::{OnFailure, Plan};

/// Longer than any server may take; what has no answer by then is in doubt.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Head and body of an answer fit here.
const ANSWER_BYTES: usize = 16 * 1024;

pub(super) struct Connection {
    server: SocketAddr,
    shape: Shape,
    index: usize,
    stride: usize,
    devices: usize,
    first_device: usize,
    on_failure: OnFailure,
    began: Instant,
    gives_up: Instant,
    /// Next number of each of its devices.
    numbers: Vec<u64>,
    stream: Option<TcpStream>,
    buffer: Box<[u8]>,
}

/// What came of sending a request once.
enum Sent {
    /// An answer with this status.
    Answer(u16),
    /// It was sent, at least in part, and there was no answer.
    Nothing,
    /// It was not sent.
    Unreachable,
}

impl Connection {
    pub(super) fn new(plan: &Plan, index: usize, devices: usize, began: Instant) -> Self {
        let length = Schedule::new(&plan.phases).length();
        Self {
            server: plan.server,
            shape: plan.shape.clone(),
            index,
            stride: plan.connections,
            devices,
            first_device: plan.first_device,
            on_failure: plan.on_failure,
            began,
            gives_up: began + length + plan.grace,
            numbers: vec![1; devices / plan.connections],
            stream: None,
            buffer: vec![0; ANSWER_BYTES].into(),
        }
    }

    pub(super) async fn run(
        mut self,
        schedule: Rc<Schedule>,
        outcome: Rc<RefCell<Outcome>>,
        acked: Arc<AtomicU64>,
        stop: Arc<AtomicBool>,
    ) {
        let mut number = self.index as u64;
        while !stop.load(Ordering::Relaxed) {
            let due = match schedule.due(number) {
                Due::At(time) => self.began + time,
                Due::NowUntil(end) if self.began.elapsed() < end => Instant::now(),
                Due::NowUntil(_) | Due::Over => break,
            };
            if due > Instant::now() {
                sleep_until(due).await;
            }
            let device = (number % self.devices as u64) as usize;
            self.deliver(device, due, &outcome, &acked, &stop).await;
            number += self.stride as u64;
        }
    }

    /// Sends the device's next request until it is taken, or once.
    async fn deliver(
        &mut self,
        device: usize,
        due: Instant,
        outcome: &RefCell<Outcome>,
        acked: &AtomicU64,
        stop: &AtomicBool,
    ) {
        let slot = device / self.stride;
        let name = self.first_device + device;
        let mut first = true;
        loop {
            let began = Instant::now();
            let sent = self.send(name as u64, self.numbers[slot]).await;
            match sent {
                Sent::Answer(status) => {
                    let mut outcome = outcome.borrow_mut();
                    outcome.sent += 1;
                    *outcome.statuses.entry(status).or_default() += 1;
                    if (200..300).contains(&status) {
                        outcome.note_acked(name, self.began.elapsed().as_secs());
                        acked.fetch_add(1, Ordering::Relaxed);
                        if first {
                            outcome.latency.record(due.elapsed().as_nanos() as u64);
                            outcome.service.record(began.elapsed().as_nanos() as u64);
                        }
                        self.numbers[slot] += 1;
                        return;
                    }
                }
                Sent::Nothing => {
                    let mut outcome = outcome.borrow_mut();
                    outcome.sent += 1;
                    outcome.in_doubt.push((name, self.numbers[slot]));
                }
                Sent::Unreachable => outcome.borrow_mut().unreachable += 1,
            }
            first = false;
            let OnFailure::Retry(pause) = self.on_failure else {
                self.numbers[slot] += 1;
                return;
            };
            if Instant::now() > self.gives_up || stop.load(Ordering::Relaxed) {
                outcome.borrow_mut().given_up += 1;
                return;
            }
            sleep(pause).await;
        }
    }

    async fn send(&mut self, device: u64, number: u64) -> Sent {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => match TcpStream::connect(self.server).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true);
                    stream
                }
                Err(_) => return Sent::Unreachable,
            },
        };
        let request = self.shape.fill(device, number);
        let exchange = async {
            stream.write_all(request).await?;
            read_answer(&mut stream, &mut self.buffer).await
        };
        match timeout(ANSWER_TIMEOUT, exchange).await {
            Ok(Ok(Answer { status, keep })) => {
                if keep {
                    self.stream = Some(stream);
                }
                Sent::Answer(status)
            }
            Ok(Err(_)) | Err(_) => Sent::Nothing,
        }
    }
}

struct Answer {
    status: u16,
    /// The connection can be used again.
    keep: bool,
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<Answer> {
    let mut filled = 0;
    loop {
        if filled == buffer.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let count = stream.read(&mut buffer[filled..]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += count;
        if let Some((answer, length)) = head(&buffer[..filled])? {
            if filled >= length {
                return Ok(answer);
            }
            if length > buffer.len() {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }
}

/// The answer and the length of all of it, once its head is there.
fn head(bytes: &[u8]) -> io::Result<Option<(Answer, usize)>> {
    let Some(end) = memchr::memmem::find(bytes, b"\r\n\r\n") else {
        return Ok(None);
    };
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.trim().parse::<usize>().ok();
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let status = bytes.get(9..12).and_then(number).ok_or_else(invalid)?;
    let mut length = None;
    let mut keep = true;
    for line in bytes[..end].split(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = memchr::memchr(b':', line) else {
            continue;
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"content-length") {
            length = number(value);
        } else if name.eq_ignore_ascii_case(b"connection") {
            keep = !value.trim_ascii().eq_ignore_ascii_case(b"close");
        }
    }
    if matches!(status, 204 | 304) {
        length = Some(0);
    }
    let answer = Answer {
        status: u16::try_from(status).map_err(|_| invalid())?,
        keep,
    };
    Ok(Some((answer, end + 4 + length.ok_or_else(invalid)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_tell_status_and_length() {
        let text = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\ncontent-length: 4\r\n\r\nbusy";
        let (answer, length) = head(text).unwrap().unwrap();
        assert_eq!(
            (answer.status, answer.keep, length),
            (503, false, text.len())
        );
        assert!(head(&text[..20]).unwrap().is_none());
        assert!(head(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
        let (answer, _) = head(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
        assert!(answer.keep);
    }
}
