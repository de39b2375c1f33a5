use proptest::prelude::*;

use super::*;

const LIMIT: usize = 65_536;

/// A masked client frame.
fn client_frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, key)| byte ^ key),
    );
    out
}

fn read_all(reader: &mut Reader, input: &[u8]) -> Result<Vec<Inbound>, Disconnect> {
    let mut out = Vec::new();
    reader.read(input, LIMIT, &mut |inbound| out.push(inbound))?;
    Ok(out)
}

#[test]
fn a_fragmented_message_with_a_ping_between_is_one_message() {
    let mut wire = client_frame(OP_TEXT, b"he", [1, 2, 3, 4]);
    wire.extend(client_frame(0x80 | OP_PING, b"p", [9, 9, 9, 9]));
    wire.extend(client_frame(0x80, b"llo", [5, 6, 7, 8]));
    let got = read_all(&mut Reader::default(), &wire).unwrap();
    assert_eq!(
        got,
        [
            Inbound::Ping(Bytes::from_static(b"p")),
            Inbound::Message(Bytes::from_static(b"hello"))
        ]
    );
}

#[test]
fn breaches_of_the_protocol_close_with_their_code() {
    let mask = [1, 2, 3, 4];
    let unmasked = vec![0x81, 0x01, b'x'];
    let cases: [(&str, Vec<u8>, u16); 11] = [
        ("unmasked", unmasked, 1002),
        ("reserved bit", client_frame(0xc1, b"x", mask), 1002),
        ("unknown opcode", client_frame(0x83, b"x", mask), 1002),
        (
            "unknown control opcode",
            client_frame(0x8b, b"x", mask),
            1002,
        ),
        ("fragmented ping", client_frame(OP_PING, b"x", mask), 1002),
        (
            "long ping",
            client_frame(0x80 | OP_PING, &[0; 126], mask),
            1002,
        ),
        (
            "continuation of nothing",
            client_frame(0x80, b"x", mask),
            1002,
        ),
        ("invalid utf-8", client_frame(0x81, &[0xff], mask), 1007),
        (
            "too big",
            client_frame(0x82, &vec![0; LIMIT + 1], mask),
            1009,
        ),
        ("one byte close", client_frame(0x88, b"x", mask), 1002),
        (
            "close code nobody may send",
            client_frame(0x88, &1005u16.to_be_bytes(), mask),
            1002,
        ),
    ];
    for (name, wire, code) in cases {
        assert_eq!(
            read_all(&mut Reader::default(), &wire).unwrap_err().code,
            code,
            "{name}"
        );
    }
}

#[test]
fn fragments_count_together_against_the_limit() {
    let half = vec![b'a'; LIMIT / 2 + 1];
    let mut wire = client_frame(OP_TEXT, &half, [0; 4]);
    wire.extend(client_frame(0x80, &half, [0; 4]));
    assert_eq!(
        read_all(&mut Reader::default(), &wire).unwrap_err(),
        codes::CLOSE_TOO_BIG
    );
}

#[test]
fn an_idle_reader_holds_no_memory() {
    let mut reader = Reader::default();
    let wire = client_frame(0x81, &[b'a'; 5000], [1, 2, 3, 4]);
    let (head, tail) = wire.split_at(3000);
    assert!(read_all(&mut reader, head).unwrap().is_empty());
    assert!(reader.reserved_bytes() >= wire.len());
    assert_eq!(read_all(&mut reader, tail).unwrap().len(), 1);
    assert_eq!(reader.reserved_bytes(), 0);
}

#[test]
fn close_reasons_are_cut_at_a_character() {
    let mut out = Vec::new();
    let long = Disconnect {
        code: 4000,
        reason: "é".repeat(100).into(),
    };
    write_close(&long, &mut out);
    assert!(out.len() <= 2 + CONTROL_BYTES_MAX);
    assert!(std::str::from_utf8(&out[4..]).is_ok());
}

proptest! {
    /// However the network cuts the bytes, the messages are the same.
    #[test]
    fn cuts_do_not_matter(
        messages in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..400), any::<[u8; 4]>()), 1..8),
        cuts in prop::collection::vec(1usize..40, 0..64),
    ) {
        let mut wire = Vec::new();
        for (payload, mask) in &messages {
            wire.extend(client_frame(0x80 | OP_BINARY, payload, *mask));
        }
        let mut reader = Reader::default();
        let mut got = Vec::new();
        let mut rest = &wire[..];
        for cut in cuts {
            let (now, later) = rest.split_at(cut.min(rest.len()));
            got.extend(read_all(&mut reader, now).unwrap());
            rest = later;
        }
        got.extend(read_all(&mut reader, rest).unwrap());
        let want: Vec<_> = messages.into_iter().map(|(payload, _)| Inbound::Message(payload.into())).collect();
        prop_assert_eq!(got, want);
        prop_assert_eq!(reader.reserved_bytes(), 0);
    }

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 0usize..600) {
        let mut reader = Reader::default();
        let (head, tail) = bytes.split_at(cut.min(bytes.len()));
        if read_all(&mut reader, head).is_ok() {
            let _ = read_all(&mut reader, tail);
        }
    }
}
