use proptest::prelude::*;

use super::*;

const ID: Id = Id {
    publisher: 0x0102_0304_0506_0708,
    serial: 9,
};

fn who() -> ClientInfo {
    ClientInfo {
        user: "u".into(),
        client: "c".into(),
        conn_info: vec![b'x'; 300].into(),
        chan_info: "\u{0}:".into(),
    }
}

fn full() -> Body {
    Body::Publication {
        publication: NewPublication {
            data: vec![0, 255, b':', 10].into(),
            info: Some(Arc::new(who())),
            tags: vec![("k".into(), "v".into()), ("".into(), "".into())],
            time_ms: -5,
        },
        delta: true,
    }
}

#[test]
fn frames_come_back_as_they_were() {
    let Some(Content::Publication { publication, delta }) = decode(full().encode(ID, b"")) else {
        panic!("no publication");
    };
    assert!(delta);
    assert_eq!(publication.info, Some(Arc::new(who())));
    assert_eq!(&publication.data[..], [0, 255, b':', 10]);
    assert_eq!(publication.tags.len(), 2);
    assert_eq!(publication.time_ms, -5);
    let join = Body::Presence(PresenceEvent::Join(Arc::new(who())));
    assert_eq!(decode(join.encode(ID, b"")), Some(Content::Join(who())));
    let leave = Body::Presence(PresenceEvent::Leave(Arc::new(who())));
    assert_eq!(decode(leave.encode(ID, b"")), Some(Content::Leave(who())));
}

#[test]
fn positions_and_ids_are_found_without_decoding() {
    let message = full().encode(ID, b"12:abc:");
    let (at, frame) = split(&message).unwrap();
    assert_eq!(
        at,
        Some(At {
            offset: 12,
            epoch: "abc"
        })
    );
    assert_eq!(id(frame), Some(ID));
    let message = full().encode(ID, b":");
    assert_eq!(split(&message).unwrap().0, None);
    assert_eq!(
        Id::from_bytes(&frame[2..18]),
        Some(ID),
        "as the script cuts it out"
    );
}

#[test]
fn other_versions_are_refused() {
    let mut frame = full().encode(ID, b"").to_vec();
    frame[0] = 2;
    assert_eq!(id(&frame), None);
    assert_eq!(decode(frame.into()), None);
}

/// Processes of other versions read them, and what streams hold is older than this process.
#[test]
fn the_bytes_of_a_frame_stay_as_they_are() {
    let who = Arc::new(ClientInfo {
        conn_info: vec![b'x'; 130].into(),
        ..who()
    });
    let publication = Body::Publication {
        publication: NewPublication {
            data: "data".into(),
            info: Some(Arc::clone(&who)),
            tags: vec![("key".into(), "value".into()), ("".into(), "".into())],
            time_ms: 1_800_000_000_123,
        },
        delta: true,
    };
    let joins = Body::Presence(PresenceEvent::Join(Arc::clone(&who)));
    let leaves = Body::Presence(PresenceEvent::Leave(who));
    let info = [
        b"\x01u\x01c\x82\x01".as_slice(),
        [b'x'; 130].as_slice(),
        b"\x02\0:",
    ]
    .concat();
    let bytes = |head: &[u8], tail: &[u8]| [head, &info, tail].concat();
    let encoded = |body: &Body| body.encode(ID, b"7:e:");
    let head = b"7:e:\x011\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\0\0\t\0\0\x01\xa3\x18\\P{";
    let tail = b"\x02\x03key\x05value\0\0data";
    assert_eq!(encoded(&publication), bytes(head, tail));
    let head = b"7:e:\x01\x02\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\0\0\t";
    assert_eq!(encoded(&joins), bytes(head, b""));
    let head = b"7:e:\x01\x03\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\0\0\t";
    assert_eq!(encoded(&leaves), bytes(head, b""));
}

proptest! {
    #[test]
    fn nothing_that_comes_makes_it_panic(mut bytes: Vec<u8>, cut in 0_usize..400) {
        let _ = split(&bytes).map(|(_, frame)| id(frame));
        bytes.splice(0..0, [VERSION, PUBLICATION | HAS_INFO]);
        let _ = decode(bytes.into());
        let whole = full().encode(ID, b"");
        let _ = decode(whole.slice(..cut.min(whole.len())));
    }
}
