//! What files hold, byte for byte: a later version reads what an earlier one wrote.

use super::*;
use crate::store::embedded::queue::block::{Packer, Row};
use crate::store::embedded::queue::verdicts::put_frames;

#[test]
fn a_block_stays_as_it_is() {
    let row = |ordinal, ms: u128| Row {
        ordinal,
        id: EntryId(ms << 80 | 0x0102_0304_0506_0708),
        key: "key".into(),
        barrier: "old".into(),
        cost: 200,
        replay_of: ms.is_multiple_of(2).then_some(EntryId(5)),
        request_bytes: 1,
    };
    let lane = Lane {
        partition: 3,
        application: "shop".into(),
        replay: true,
    };
    let rows = [row(7, 1_800_000_000_124), row(207, 1_800_000_000_123)];
    let mut out = Vec::new();
    let mut packer = Packer::new().unwrap();
    packer.pack(&mut out, 9, 2, &lane, &rows, b"ab");
    let expected =
        b"SLQB\0\x01\x03\0\x02\0\0\0\x02\0\0\0\x07\0\0\0\xcf\0\0\0\x04\0\0\0K\0\0\0\x02\0\0\0\x02\
          \0\0\0{P\\\x18\xa3\x01\0\0|P\\\x18\xa3\x01\0\0\t\0\0\0\0\0\0\x006)\xa2\xe2\x17\xd61\xf8sho\
          p\0\x08\x07\x06\x05\x04\x03\x02\x01\0\0|P\\\x18\xa3\x01\xc8\x01\x01\x03key\x03old\x01\
          \x05\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xc8\x01\x08\x07\x06\x05\x04\x03\x02\x01\0\0{P\\\x18\
          \xa3\x01\xc8\x01\x01\x03key\x03old\0ab";
    assert_eq!(out, expected);
}

#[test]
fn verdicts_stay_as_they_are() {
    let settled = |outcome| {
        What::Settled(Verdict {
            outcome,
            reason: "AttemptsExhausted".into(),
            http_status: 503,
            attempts: 300,
            upstream: format!("{}\u{e4}", "u".repeat(255)).into(),
            at_ms: 1_800_000_000_123,
        })
    };
    let whats = [
        What::Attempts(200),
        settled(Outcome::Delivered),
        settled(Outcome::Parked),
        settled(Outcome::Discarded),
        settled(Outcome::Replayed),
    ];
    let record = |(ordinal, what)| Record {
        ordinal,
        lane_number: 130,
        request_bytes: 70_000,
        what,
    };
    let records: Vec<_> = (0_u32..).zip(whats).map(record).collect();
    let mut out = Vec::new();
    put_frames(&mut out, &records);
    let before = b"\xf5VF\nn\x01\0\0\x02\x11AttemptsExhausted\xff\x01";
    let after =
        b"\x05\0\x82\x01\xf0\xa2\x04\0\xc8\x01\x01\x82\x01\xf0\xa2\x04\x01\xac\x02\xf7\x03\xfb\xa0\
          \xf1\xc2\xb14\0\x01\x02\x82\x01\xf0\xa2\x04\x02\xac\x02\xf7\x03\xfb\xa0\xf1\xc2\xb14\0\
          \x01\x03\x82\x01\xf0\xa2\x04\x03\xac\x02\xf7\x03\xfb\xa0\xf1\xc2\xb14\0\x01\x04\x82\x01\
          \xf0\xa2\x04\x04\xac\x02\xf7\x03\xfb\xa0\xf1\xc2\xb14\0\x01\x03X\xc8\xcd";
    let expected = [before.as_slice(), &[b'u'; 255], after].concat();
    assert_eq!(out, expected);
}
