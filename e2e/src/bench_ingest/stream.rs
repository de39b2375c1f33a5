//! The plain way to keep requests in Redis: a stream with an entry for each, read by a group.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::http_load::shape::Shape;
use crate::redis::{Connection, RedisServer, Resp};

const STREAM: &str = "s";
const GROUP: &str = "g";
/// How often the client writes what has come due: as often as one that shares a connection among requests.
const ADD_TICK: Duration = Duration::from_millis(1);
/// How often the group is read, and how much at a time: what comes together is settled together.
const READ_TICK: Duration = Duration::from_millis(5);
const READ_MAX: &str = "256";

/// One `XADD` per request at this rate; what is due within a tick goes out together.
pub(super) async fn add(
    server: &RedisServer,
    mut shape: Shape,
    rate: f64,
    total: u64,
) -> Result<()> {
    let stream = TcpStream::connect(server.address()).await?;
    stream.set_nodelay(true)?;
    let (mut replies, mut commands) = stream.into_split();
    let reader = tokio::spawn(async move {
        let (mut seen, mut buffer) = (0, vec![0; 64 * 1024]);
        while seen < total {
            let read = replies.read(&mut buffer).await?;
            ensure!(read > 0, "the server closed the connection");
            // Each answer is one id: `$15\r\n1690000000000-0\r\n`.
            seen += buffer[..read].iter().filter(|byte| **byte == b'$').count() as u64;
        }
        Ok(())
    });
    let began = Instant::now();
    let (mut sent, mut batch) = (0, Vec::new());
    while sent < total {
        sleep(ADD_TICK).await;
        let due = ((began.elapsed().as_secs_f64() * rate) as u64).min(total);
        batch.clear();
        while sent < due {
            let request = shape.fill(sent % 12_000, sent);
            let head = format!("*5\r\n$4\r\nXADD\r\n$1\r\n{STREAM}\r\n$1\r\n*\r\n$1\r\nr\r\n");
            batch.extend_from_slice(head.as_bytes());
            batch.extend_from_slice(format!("${}\r\n", request.len()).as_bytes());
            batch.extend_from_slice(request);
            batch.extend_from_slice(b"\r\n");
            sent += 1;
        }
        commands.write_all(&batch).await?;
    }
    reader.await?
}

/// Reads this many entries as a group's member, acknowledges them and deletes them.
pub(super) async fn consume(server: &RedisServer, total: u64) -> Result<()> {
    let stream = TcpStream::connect(server.address()).await?;
    stream.set_nodelay(true)?;
    let mut connection = Connection::new(Box::new(stream));
    let create = ["XGROUP", "CREATE", STREAM, GROUP, "0", "MKSTREAM"];
    connection.call(&create).await?;
    let read = [
        "XREADGROUP",
        "GROUP",
        GROUP,
        "c",
        "COUNT",
        READ_MAX,
        "STREAMS",
        STREAM,
        ">",
    ];
    let mut settled = 0;
    while settled < total {
        sleep(READ_TICK).await;
        let reply = connection.call(&read).await?;
        let ids = ids(&reply);
        if ids.is_empty() {
            continue;
        }
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let acknowledge = [&["XACK", STREAM, GROUP], &ids[..]].concat();
        let acknowledged = connection.call(&acknowledge).await?.int();
        ensure!(
            acknowledged == i64::try_from(ids.len()).ok(),
            "{acknowledged:?}"
        );
        let delete = [&["XDEL", STREAM], &ids[..]].concat();
        connection.call(&delete).await?;
        settled += ids.len() as u64;
    }
    Ok(())
}

/// Of the entries of the one stream that was read: `[[stream, [[id, fields], ...]]]`.
fn ids(reply: &Resp) -> Vec<String> {
    let streams = reply.items().iter();
    let entries = streams.flat_map(|stream| stream.items().iter().flat_map(Resp::items));
    entries
        .filter_map(|entry| entry.items().first().map(ToString::to_string))
        .collect()
}
