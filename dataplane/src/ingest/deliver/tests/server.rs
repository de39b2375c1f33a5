//! An upstream on a socket: shows the bytes that came, answers as told.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    pub(crate) connection: usize,
    /// Of all requests, from 0.
    pub(crate) number: usize,
}

impl Seen {
    pub(crate) fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Vec<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .filter(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
            .collect()
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Act {
    Answer(String),
    After(Duration, String),
    /// Answers, and closes the connection without having said so.
    AnswerAndClose(String),
    Close,
    Hang,
}

pub(crate) fn answer(status: u16, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status} Whatever\r\nContent-Length: {length}\r\n\r\n{body}")
}

pub(crate) fn success() -> Act {
    Act::Answer(answer(200, r#"{"result":"Success"}"#))
}

type Behaviour = Box<dyn Fn(&Seen) -> Act + Send + Sync>;

pub(crate) struct TestServer {
    pub(crate) url: String,
    pub(crate) seen: Arc<Mutex<Vec<Seen>>>,
    behaviour: Arc<Mutex<Behaviour>>,
    _tasks: JoinSet<()>,
}

impl TestServer {
    pub(crate) async fn start(act: impl Fn(&Seen) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let behaviour: Arc<Mutex<Behaviour>> = Arc::new(Mutex::new(Box::new(act)));
        let mut tasks = JoinSet::new();
        let (shared_seen, shared) = (Arc::clone(&seen), Arc::clone(&behaviour));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            for number in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, behaviour) = (Arc::clone(&shared_seen), Arc::clone(&shared));
                connections.spawn(serve(stream, number, seen, behaviour));
            }
        });
        Self {
            url,
            seen,
            behaviour,
            _tasks: tasks,
        }
    }

    pub(crate) fn behave(&self, act: impl Fn(&Seen) -> Act + Send + Sync + 'static) {
        *self.behaviour.lock() = Box::new(act);
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.lock().len()
    }

    pub(crate) fn targets(&self) -> Vec<String> {
        self.seen
            .lock()
            .iter()
            .map(|seen| seen.target().to_owned())
            .collect()
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    seen: Arc<Mutex<Vec<Seen>>>,
    behaviour: Arc<Mutex<Behaviour>>,
) {
    let mut buffer = Vec::new();
    while let Some((head, body)) = read_request(&mut stream, &mut buffer).await {
        let act = {
            let mut all = seen.lock();
            let request = Seen {
                head,
                body,
                connection,
                number: all.len(),
            };
            let act = behaviour.lock()(&request);
            all.push(request);
            act
        };
        let (wait, answer, close) = match act {
            Act::Answer(answer) => (Duration::ZERO, answer, false),
            Act::After(wait, answer) => (wait, answer, false),
            Act::AnswerAndClose(answer) => (Duration::ZERO, answer, true),
            Act::Close => return,
            Act::Hang => (Duration::from_secs(3600), String::new(), true),
        };
        tokio::time::sleep(wait).await;
        if stream.write_all(answer.as_bytes()).await.is_err() || close {
            return;
        }
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    let length = head
        .lines()
        .find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length: ")?
                .parse()
                .ok()
        })
        .unwrap_or(0);
    while buffer.len() < end + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = buffer[end..end + length].to_vec();
    buffer.drain(..end + length);
    Some((head, body))
}
