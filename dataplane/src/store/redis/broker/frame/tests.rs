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
