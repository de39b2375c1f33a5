use proptest::prelude::*;

use super::*;

fn entry() -> impl Strategy<Value = NewEntry> {
    let bytes = |most| proptest::collection::vec(any::<u8>(), 0..most).prop_map(Bytes::from);
    let replay_of = proptest::option::of(any::<u128>().prop_map(EntryId));
    (
        any::<u128>(),
        bytes(40),
        bytes(9),
        any::<u32>(),
        replay_of,
        bytes(2_000),
    )
        .prop_map(|(id, key, barrier, cost, replay_of, request)| NewEntry {
            id: EntryId(id),
            lane: Lane {
                partition: 3,
                application: "shop".into(),
                replay: cost % 2 == 0,
            },
            key,
            barrier,
            cost,
            replay_of,
            request,
        })
}

proptest! {
    #[test]
    fn what_is_packed_is_read_again(mut entries in proptest::collection::vec(entry(), 1..20)) {
        let replay = entries[0].lane.replay;
        for entry in &mut entries {
            entry.lane.replay = replay;
        }
        let packed = pack(&entries, *b"mark");
        let block = Block::parse(&packed.bytes, 3).unwrap();
        prop_assert_eq!(&block.head, &packed.block.head);
        prop_assert_eq!(&block.rows, &packed.block.rows);
        let beginning = packed.bytes.slice(..packed.bytes.len().min(320));
        prop_assert_eq!(&Head::parse(&beginning, 3).unwrap(), &block.head);
        for (index, entry) in entries.iter().enumerate() {
            prop_assert_eq!(block.rows[index].id, entry.id);
            prop_assert_eq!(block.request(index).unwrap(), &entry.request);
        }
    }

    #[test]
    fn damage_is_refused_without_a_panic(
        entries in proptest::collection::vec(entry(), 1..4),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        cut in any::<prop::sample::Index>(),
    ) {
        let packed = pack(&entries[..1], *b"mark").bytes;
        let mut damaged = packed.to_vec();
        let at = at.index(damaged.len());
        damaged[at] ^= 1 << bit;
        let _ = Block::parse(&damaged.into(), 3);
        prop_assert!(Block::parse(&packed.slice(..cut.index(packed.len())), 3).is_none());
    }
}

/// Processes of other versions read them, and so do scripts.
#[test]
fn the_bytes_of_a_block_stay_as_they_are() {
    let entry = |ms: u128, request: &'static str| NewEntry {
        id: EntryId(ms << 80 | 0x0102_0304_0506_0708),
        lane: Lane {
            partition: 3,
            application: "shop".into(),
            replay: true,
        },
        key: "k".into(),
        barrier: "o".into(),
        cost: 200,
        replay_of: ms.is_multiple_of(2).then_some(EntryId(5)),
        request: request.into(),
    };
    let bytes = |requests: [&'static str; 2]| {
        let entries = [
            entry(1_800_000_000_124, requests[0]),
            entry(1_800_000_000_123, requests[1]),
        ];
        pack(&entries, *b"mark").bytes
    };
    let expected =
        b"\x01\x01mark\0\x02+\xf1Y\xcb\x04shop\xfb\xa0\xf1\xc2\xb14\x01\x02\x008\x01\0\0\x01\x02\x03\
          \x04\x05\x06\x07\x08\x01\xc8\x01\x01\x01k\x01o\x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
          \x01\x02\x03\x04\x05\x06\x07\x08\0\xc8\x01\x01\x01k\x01oab";
    assert_eq!(bytes(["a", "b"]), expected.as_slice());
}

/// The least that is compressed, and the least that this must save.
#[test]
fn what_compression_does_not_make_smaller_is_stored_as_it_is() {
    assert!(compress(&[b'a'; TINY_BYTES - 1]).is_none());
    assert!(compress(&[b'a'; TINY_BYTES]).is_some());
    let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
        .take(4_000)
        .collect();
    assert!(compress(&noise).is_none());
    let request = Bytes::from_static(b"a request");
    assert_eq!(
        pack_beside(&request),
        b"\x81\xb1\xc2,\0a request".as_slice()
    );
}

#[test]
fn a_large_request_is_kept_beside() {
    let request: Bytes = (0..BESIDE_BYTES as u32 + 1)
        .map(|n| (n % 251) as u8)
        .collect::<Vec<_>>()
        .into();
    let entry = NewEntry {
        id: EntryId(1 << 80),
        lane: Lane {
            partition: 0,
            application: "".into(),
            replay: false,
        },
        key: Bytes::new(),
        barrier: Bytes::new(),
        cost: 1,
        replay_of: None,
        request: request.clone(),
    };
    let packed = pack(&[entry], [0; 4]);
    assert!(packed.bytes.len() < 200);
    let mut block = Block::parse(&packed.bytes, 0).unwrap();
    assert_eq!(block.missing(), [(0, EntryId(1 << 80))]);
    assert_eq!(block.request(0), None);
    let (_, beside) = &packed.beside[0];
    assert_eq!(block.head.beside_bytes, beside.len() as u64);
    assert!(!block.set_request(0, &beside.slice(..beside.len() - 1)));
    assert!(block.set_request(0, beside));
    assert_eq!(block.request(0), Some(request));
}

#[test]
fn compression_finds_what_requests_have_in_common() {
    let entries: Vec<_> = (0..16)
        .map(|number: u32| NewEntry {
            id: EntryId(u128::from(number) << 80),
            lane: Lane {
                partition: 0,
                application: "a".into(),
                replay: false,
            },
            key: format!("device-{number}").into(),
            barrier: Bytes::new(),
            cost: 1,
            replay_of: None,
            request: format!(
                "{} device-{number}",
                "segmentation=level&count=1".repeat(30)
            )
            .into(),
        })
        .collect();
    let packed = pack(&entries, [0; 4]);
    assert!(packed.bytes.len() < packed.block.head.request_bytes as usize / 10);
    assert!(fits(15, 1_000, 10) && !fits(BLOCK_ENTRIES_MAX, 1_000, 10));
    assert!(fits(0, 0, usize::MAX) && !fits(1, 0, BESIDE_BYTES + 1));
}
