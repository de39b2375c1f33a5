//! Delivery to connections whose tasks do not run: what is queued for them is what they get.

use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::*;
use crate::relay::connection::tests as connections;
use crate::relay::fossil;
use crate::relay::limits::STUCK_MS;
use crate::relay::protocol::{ClientInfo, Encoding, FilterNode};
use crate::relay::worker::Worker;

const QUEUE_BYTES_MAX: usize = 4_000;

fn at_ms(now_ms: u64) -> Allowance {
    Allowance {
        queue_bytes: QUEUE_BYTES_MAX,
        burst_bytes: QUEUE_BYTES_MAX,
        now_ms,
    }
}

struct Reader {
    connection: Rc<Connection>,
    key: MemberKey,
    id: i64,
    _peer: TcpStream,
}

struct Fixture {
    hub: Hub,
    worker: Rc<Worker>,
    dirty: Dirty,
    channel: Channel,
}

impl Fixture {
    fn congested(&self) -> bool {
        self.congested_at(0)
    }

    fn congested_at(&self, now_ms: u64) -> bool {
        let readers = self.hub.readers(&self.channel, at_ms(now_ms));
        readers.are_congested(false)
    }

    fn new() -> Self {
        Self {
            hub: Hub::new(FrameBytes::default()),
            worker: connections::worker(),
            dirty: Dirty::new(),
            channel: Channel::new("acme", "a"),
        }
    }

    /// A member whose subscribe reply is being made.
    async fn attach(&mut self, encoding: Encoding, wants: fn(&mut Membership)) -> Reader {
        let (connection, peer) = connections::connect(&self.worker, encoding).await;
        let mut membership = Membership {
            connection: Rc::clone(&connection),
            by_id: false,
            delta: false,
            join_leave: false,
            filter: None,
        };
        wants(&mut membership);
        let (key, id) = self.hub.attach(&self.channel, membership);
        Reader {
            connection,
            key,
            id,
            _peer: peer,
        }
    }

    /// A live member at this offset.
    async fn member(
        &mut self,
        encoding: Encoding,
        offset: u64,
        wants: fn(&mut Membership),
    ) -> Reader {
        let reader = self.attach(encoding, wants).await;
        self.begin(&reader, offset);
        reader
    }

    fn begin(&mut self, reader: &Reader, offset: u64) {
        let at = Some(at(offset));
        self.hub.follow(&self.channel, reader.key, at, None);
        self.release(reader);
    }

    fn release(&mut self, reader: &Reader) {
        let (channel, dirty) = (&self.channel, &mut self.dirty);
        self.hub.release(channel, reader.key, at_ms(0), dirty);
    }

    fn deliver(&mut self, event: &Event) -> Delivered {
        let (channel, dirty) = (&self.channel, &mut self.dirty);
        self.hub.deliver(channel, event, at_ms(0), dirty)
    }
}

impl Reader {
    fn json(&self) -> Vec<Value> {
        let messages = connections::take_messages(&self.connection);
        let parse = |message: &Vec<u8>| serde_json::from_slice(message).unwrap();
        messages.iter().map(parse).collect()
    }

    fn offsets(&self) -> Vec<u64> {
        let offset = |push: &Value| push["push"]["pub"]["offset"].as_u64().unwrap();
        self.json().iter().map(offset).collect()
    }

    /// Channels of which it was told that the state is insufficient.
    fn gaps(&self) -> usize {
        let controls = connections::take_controls(&self.connection);
        let gap = |control: &&Control| matches!(control, Control::InsufficientState { .. });
        controls.iter().filter(gap).count()
    }
}

fn at(offset: u64) -> Position {
    Position {
        offset,
        epoch: "e".into(),
    }
}

fn text(offset: u64) -> String {
    format!(r#"{{"n":{offset},"text":"{}"}}"#, "same ".repeat(20))
}

fn publication(offset: u64) -> Event {
    tagged(offset, "plain")
}

fn tagged(offset: u64, kind: &str) -> Event {
    Event::Publication {
        publication: Arc::new(Publication {
            data: text(offset).into(),
            offset,
            tags: vec![("kind".into(), kind.into())],
            ..Publication::default()
        }),
        position: Some(at(offset)),
        delta: true,
    }
}

fn plain(_: &mut Membership) {}

fn deltas(wants: &mut Membership) {
    wants.delta = true;
}

fn only_plain(wants: &mut Membership) {
    let node = FilterNode {
        key: "kind".to_owned(),
        cmp: "eq".to_owned(),
        val: "plain".to_owned(),
        ..FilterNode::default()
    };
    wants.filter = Some(Rc::new(Filter::compile(&node).unwrap()));
}

#[tokio::test]
async fn held_events_come_after_release_in_order() {
    let mut fixture = Fixture::new();
    let reader = fixture.attach(Encoding::Json, plain).await;
    for offset in 4..=7 {
        let delivered = fixture.deliver(&publication(offset));
        assert_eq!(delivered.frames, 0);
    }
    assert!(reader.json().is_empty());
    // The reply told everything up to 5.
    fixture.begin(&reader, 5);
    assert_eq!(fixture.deliver(&publication(8)).frames, 1);
    assert_eq!(reader.offsets(), [6, 7, 8]);
    fixture.release(&reader);
    assert!(reader.json().is_empty(), "released once");
    assert_eq!(reader.gaps(), 0);
}

#[tokio::test]
async fn too_many_held_events_are_a_gap() {
    let mut fixture = Fixture::new();
    let reader = fixture.attach(Encoding::Json, plain).await;
    for offset in 1..=HELD_EVENTS_MAX as u64 + 1 {
        fixture.deliver(&publication(offset));
    }
    fixture.begin(&reader, 0);
    fixture.deliver(&publication(HELD_EVENTS_MAX as u64 + 2));
    assert!(reader.json().is_empty());
    assert_eq!(reader.gaps(), 1);
}

#[tokio::test]
async fn a_gap_is_told_once_and_ends_delivery() {
    let mut fixture = Fixture::new();
    let reader = fixture.member(Encoding::Json, 3, plain).await;
    let other = fixture.member(Encoding::Json, 4, plain).await;
    for offset in [5, 6, 4, 7] {
        fixture.deliver(&publication(offset));
    }
    assert!(reader.json().is_empty());
    assert_eq!(reader.gaps(), 1);
    assert_eq!((other.offsets(), other.gaps()), (vec![5, 6, 7], 0));
}

#[tokio::test]
async fn a_new_epoch_is_a_gap() {
    let mut fixture = Fixture::new();
    let reader = fixture.member(Encoding::Json, 3, plain).await;
    let mut event = publication(4);
    if let Event::Publication { position, .. } = &mut event {
        *position = Some(Position {
            offset: 4,
            epoch: "f".into(),
        });
    }
    fixture.deliver(&event);
    assert_eq!((reader.json().len(), reader.gaps()), (0, 1));
}

#[tokio::test]
async fn known_publications_are_dropped() {
    let mut fixture = Fixture::new();
    let reader = fixture.member(Encoding::Json, 3, plain).await;
    for offset in [2, 3, 4, 4, 3, 5] {
        fixture.deliver(&publication(offset));
    }
    assert_eq!((reader.offsets(), reader.gaps()), (vec![4, 5], 0));
}

#[tokio::test]
async fn a_filtered_publication_is_no_gap() {
    let mut fixture = Fixture::new();
    let reader = fixture.member(Encoding::Json, 0, only_plain).await;
    for (offset, kind) in [(1, "plain"), (2, "other"), (3, "plain")] {
        fixture.deliver(&tagged(offset, kind));
    }
    assert_eq!((reader.offsets(), reader.gaps()), (vec![1, 3], 0));
}

#[tokio::test]
async fn joins_and_leaves_go_to_those_who_want_them() {
    let mut fixture = Fixture::new();
    let indifferent = fixture.member(Encoding::Json, 0, plain).await;
    let curious = fixture
        .member(Encoding::Json, 0, |wants| wants.join_leave = true)
        .await;
    let info = Arc::new(ClientInfo {
        user: "42".into(),
        client: "c".into(),
        ..ClientInfo::default()
    });
    fixture.deliver(&Event::Join(Arc::clone(&info)));
    fixture.deliver(&Event::Leave(info));
    assert!(indifferent.json().is_empty());
    let who = json!({"info": {"user": "42", "client": "c"}});
    assert_eq!(
        curious.json(),
        [
            json!({"push": {"channel": "a", "join": who}}),
            json!({"push": {"channel": "a", "leave": who}})
        ]
    );
}

/// Applies what came to what is known; gives the text and whether it came as a patch.
fn apply(known: &str, push: &Value) -> (String, bool) {
    let publication = &push["push"]["pub"];
    let data = publication["data"].as_str().unwrap();
    if publication["delta"] != json!(true) {
        return (data.to_owned(), false);
    }
    let text = fossil::apply(known.as_bytes(), data.as_bytes()).unwrap();
    (String::from_utf8(text).unwrap(), true)
}

#[tokio::test]
async fn patches_start_from_what_the_member_has() {
    let mut fixture = Fixture::new();
    let all = fixture.member(Encoding::Json, 0, deltas).await;
    let some = fixture
        .member(Encoding::Json, 0, |wants| {
            deltas(wants);
            only_plain(wants);
        })
        .await;
    for (offset, kind) in [
        (1, "plain"),
        (2, "plain"),
        (3, "other"),
        (4, "plain"),
        (5, "plain"),
    ] {
        fixture.deliver(&tagged(offset, kind));
    }
    let late = fixture.member(Encoding::Json, 5, deltas).await;
    fixture.deliver(&publication(6));
    let check = |reader: &Reader, want: &[(u64, bool)]| {
        let mut known = String::new();
        let pushes = reader.json();
        assert_eq!(pushes.len(), want.len());
        for (push, &(offset, patch)) in pushes.iter().zip(want) {
            let applied = apply(&known, push);
            assert_eq!(applied, (text(offset), patch), "{offset}");
            known = applied.0;
        }
    };
    check(
        &all,
        &[
            (1, false),
            (2, true),
            (3, true),
            (4, true),
            (5, true),
            (6, true),
        ],
    );
    check(
        &some,
        &[(1, false), (2, true), (4, false), (5, true), (6, true)],
    );
    check(&late, &[(6, false)]);
}

#[tokio::test]
async fn a_recovered_member_gets_a_patch_to_the_last_one_sent() {
    let mut fixture = Fixture::new();
    let _first = fixture.member(Encoding::Json, 0, deltas).await;
    fixture.deliver(&publication(1));
    let sent = Publication {
        offset: 1,
        ..Publication::default()
    };
    for (held, patch) in [(false, true), (true, false)] {
        let reader = fixture.attach(Encoding::Json, deltas).await;
        let (channel, key) = (fixture.channel.clone(), reader.key);
        // What came meanwhile stands between the member and its base.
        if held {
            fixture.deliver(&publication(2));
        }
        fixture.hub.follow(&channel, key, Some(at(1)), Some(&sent));
        fixture.release(&reader);
        fixture.deliver(&publication(if held { 3 } else { 2 }));
        let pushes = reader.json();
        assert_eq!(apply(&text(1), &pushes[0]), (text(2), patch));
        fixture.hub.detach(&channel, key);
    }
}

#[tokio::test]
async fn compact_ids_name_the_channel() {
    let mut fixture = Fixture::new();
    let by_id = fixture
        .member(Encoding::Json, 0, |wants| wants.by_id = true)
        .await;
    let by_name = fixture.member(Encoding::Json, 0, plain).await;
    assert!(by_id.id > 0);
    fixture.deliver(&publication(1));
    let push = &by_id.json()[0]["push"];
    assert_eq!((&push["id"], push.get("channel")), (&json!(by_id.id), None));
    let push = &by_name.json()[0]["push"];
    assert_eq!((push.get("id"), &push["channel"]), (None, &json!("a")));
    let other = Channel::new("other", "a");
    fixture.channel = other;
    let stranger = fixture.member(Encoding::Json, 0, plain).await;
    assert_ne!(stranger.id, by_id.id);
}

#[tokio::test]
async fn members_share_a_frame_and_are_written_once() {
    let mut fixture = Fixture::new();
    let first = fixture.member(Encoding::Json, 0, plain).await;
    let second = fixture.member(Encoding::Json, 0, plain).await;
    let third = fixture.member(Encoding::Protobuf, 0, plain).await;
    assert_eq!(fixture.deliver(&publication(1)).frames, 3);
    let place = |reader: &Reader| connections::first_frame(&reader.connection);
    assert_eq!(place(&first), place(&second));
    assert_ne!(place(&first), place(&third));
    fixture.deliver(&publication(2));
    assert_eq!(fixture.dirty.len(), 3, "each connection once");
    let alive = fixture.hub.frame_bytes.get();
    drop((first, second, third));
    fixture.dirty.clear();
    let channel = fixture.channel.clone();
    for key in 0..3 {
        fixture.hub.detach(&channel, key);
    }
    assert!(alive > 0 && fixture.hub.frame_bytes.get() == 0);
    assert!(!fixture.hub.has_members(&channel));
}

#[tokio::test]
async fn what_is_not_json_reaches_protobuf_members_only() {
    let mut fixture = Fixture::new();
    let json = fixture.member(Encoding::Json, 0, plain).await;
    let protobuf = fixture.member(Encoding::Protobuf, 0, plain).await;
    let event = Event::Publication {
        publication: Arc::new(Publication {
            data: vec![0xff, 0xfe].into(),
            offset: 1,
            ..Publication::default()
        }),
        position: Some(at(1)),
        delta: false,
    };
    assert_eq!(fixture.deliver(&event).frames, 1);
    assert_eq!(connections::close_code(&json.connection), Some(3506));
    assert_eq!(connections::close_code(&protobuf.connection), None);
    let messages = connections::take_messages(&protobuf.connection);
    assert!(messages[0].windows(2).any(|bytes| bytes == [0xff, 0xfe]));
}

#[tokio::test]
async fn a_slow_member_is_closed_alone() {
    let mut fixture = Fixture::new();
    let slow = fixture.member(Encoding::Json, 0, plain).await;
    let quick = fixture.member(Encoding::Json, 0, plain).await;
    for offset in 1..=40 {
        fixture.deliver(&publication(offset));
        assert_eq!(quick.offsets(), [offset]);
    }
    assert_eq!(connections::close_code(&slow.connection), Some(3008));
    assert!(slow.connection.waiting_bytes() <= QUEUE_BYTES_MAX);
    assert_eq!(connections::close_code(&quick.connection), None);
}

#[tokio::test]
async fn congested_when_many_are_behind_that_still_read() {
    let mut fixture = Fixture::new();
    let mut readers = Vec::new();
    for _ in 0..4 {
        readers.push(fixture.member(Encoding::Json, 0, plain).await);
    }
    let alive = FrameBytes::default();
    let backlog = crate::relay::outbox::Frame::new(vec![0; QUEUE_BYTES_MAX / 4 + 1], &alive);
    for (index, congested) in [false, true, true, true].into_iter().enumerate() {
        let connection = &readers[index].connection;
        connection.enqueue(backlog.clone(), at_ms(0), &mut fixture.dirty);
        let delivered = fixture.deliver(&publication(index as u64 + 1));
        assert_eq!(delivered.readers.are_congested(false), congested, "{index}");
        assert!(
            delivered.readers.are_congested(true),
            "in overload one is reason enough"
        );
        assert_eq!(fixture.congested(), congested);
    }
    assert!(
        !fixture.congested_at(STUCK_MS + 60_000),
        "who takes nothing is no reason to wait"
    );
    assert!(fixture.congested());
    readers.iter().take(3).for_each(|reader| {
        connections::take_messages(&reader.connection);
    });
    assert!(!fixture.congested());
}

/// Every subscription of every client is one member; see `connection::tests` for why this is guarded.
#[test]
fn a_member_is_small() {
    let sizes = [
        ("member", size_of::<Member>(), 80),
        ("room", size_of::<Room>(), 72),
    ];
    connections::assert_sizes(&sizes);
}
