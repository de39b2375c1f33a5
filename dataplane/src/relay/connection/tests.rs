//! Connections whose task does not run, for tests of what others do to them; and what one connection costs.

use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::relay::api;

/// A connection and its peer, which must live as long.
pub(in crate::relay) async fn connect(
    worker: &Worker,
    encoding: Encoding,
) -> (Rc<Connection>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let socket = Socket::Plain(accepted.unwrap().0);
    let connection = Connection::new(worker, socket, encoding);
    (Rc::new(connection), peer.unwrap())
}

pub(in crate::relay) fn worker() -> Rc<Worker> {
    Worker::new(0, api::tests::shared())
}

/// The payloads of the frames that wait, which are taken out.
pub(in crate::relay) fn take_messages(connection: &Connection) -> Vec<Vec<u8>> {
    let mut outbox = connection.outbox.borrow_mut();
    let payload = |frame: &[u8]| {
        let header_bytes = match frame[1] {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        frame[header_bytes..].to_vec()
    };
    let messages = outbox.slices(usize::MAX).map(payload).collect();
    let waiting_bytes = outbox.waiting_bytes();
    if waiting_bytes > 0 {
        outbox.advance(waiting_bytes);
    }
    messages
}

/// Where the first waiting frame lies in memory.
pub(in crate::relay) fn first_frame(connection: &Connection) -> *const u8 {
    let outbox = connection.outbox.borrow();
    outbox.slices(1).next().unwrap().as_ptr()
}

pub(in crate::relay) fn take_controls(connection: &Connection) -> Vec<Control> {
    std::iter::from_fn(|| connection.take_control())
        .map(|ordered| ordered.control)
        .collect()
}

pub(in crate::relay) fn close_code(connection: &Connection) -> Option<u16> {
    connection
        .closing
        .borrow()
        .as_ref()
        .map(|disconnect| disconnect.code)
}

fn future_bytes<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
    size_of::<F>()
}

/// What, bytes, at most.
pub(in crate::relay) fn assert_sizes(sizes: &[(&str, usize, usize)]) {
    for (what, bytes, _) in sizes {
        println!("{what}: {bytes} bytes");
    }
    for (what, bytes, bytes_max) in sizes {
        assert!(bytes <= bytes_max, "{what}: {bytes} bytes");
    }
}

/// Memory of idle connections is what bounds a fleet, and a future grows by a careless `await` without anyone seeing
/// it in the code. The bounds are a little above what the sizes were when they were set: raise them only for a
/// reason that is worth it for every idle connection.
#[test]
fn an_idle_connection_is_small() {
    let sizes = [
        ("future of the task", future_bytes(run), 540),
        ("connection", size_of::<Connection>(), 408),
        ("session", size_of::<Session>(), 64),
    ];
    assert_sizes(&sizes);
}
