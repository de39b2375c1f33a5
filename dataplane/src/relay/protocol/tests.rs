//! Both encodings against literal wire samples, the generated types and `serde_json`.

#![allow(clippy::too_many_lines, reason = "tables of samples")]

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use serde_json::{Value, json};
use sluice_proto::client as wire;

use super::*;

const BOTH: [Encoding; 2] = [Encoding::Json, Encoding::Protobuf];

fn commands(encoding: Encoding, frame: impl Into<Bytes>) -> Vec<Result<Command, DecodeError>> {
    Commands::new(encoding, frame.into()).collect()
}

fn one(frame: &str) -> Command {
    let mut all = commands(Encoding::Json, frame.to_owned());
    assert_eq!(all.len(), 1, "{frame}");
    all.remove(0).unwrap()
}

fn reply_json(id: u32, body: ResultBody) -> String {
    let mut out = Vec::new();
    encode_reply(
        Encoding::Json,
        &Reply {
            id,
            result: Ok(body),
        },
        &mut out,
    )
    .unwrap();
    String::from_utf8(out).unwrap()
}

fn push_json(push: &Push<'_>) -> String {
    let mut out = Vec::new();
    encode_push(Encoding::Json, push, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn info() -> ClientInfo {
    ClientInfo {
        user: "42".into(),
        client: "c1".into(),
        conn_info: Bytes::from_static(br#"{"name":"Ann"}"#),
        chan_info: Bytes::new(),
    }
}

fn publication() -> Publication {
    Publication {
        data: Bytes::from_static(br#"{"a":1}"#),
        info: Some(Arc::new(info())),
        offset: u64::MAX,
        tags: vec![("k\"".into(), "v\n".into())],
        delta: true,
        time_ms: -5,
        epoch: Some("e".into()),
    }
}

fn position() -> Position {
    Position {
        offset: 7,
        epoch: "xyz".into(),
    }
}

#[test]
fn decodes_what_sdks_send() {
    let publish = |data: &'static str| Request::Publish {
        channel: "c".into(),
        data: Bytes::from_static(data.as_bytes()),
    };
    let cases = [
        ("{}", 0, Request::Empty),
        (
            r#"{"id":1,"connect":{}}"#,
            1,
            Request::Connect(ConnectRequest::default()),
        ),
        (
            r#"{"id":2,"publish":{"channel":"c","data":{"x":[1, 2]}}}"#,
            2,
            publish(r#"{"x":[1, 2]}"#),
        ),
        (
            r#"{"publish":{"data":"s","channel":"c","type":0,"key":{"n":[]}},"id":3}"#,
            3,
            publish(r#""s""#),
        ),
        (
            r#"{"id":4,"publish":{"channel":"c","data":null}}"#,
            4,
            publish(""),
        ),
        (r#"{"id":5,"subscribe":null,"ping":{}}"#, 5, Request::Ping),
        (
            r#"{"id":6,"unsubscribe":{"channel":"c"}}"#,
            6,
            Request::Unsubscribe {
                channel: "c".into(),
            },
        ),
        (
            r#"{"id":7,"presence":{"channel":"c"}}"#,
            7,
            Request::Presence {
                channel: "c".into(),
            },
        ),
        (
            r#"{"id":8,"presence_stats":{"channel":"c"}}"#,
            8,
            Request::PresenceStats {
                channel: "c".into(),
            },
        ),
        (
            r#"{"send":{"data":1}}"#,
            0,
            Request::Send {
                data: Bytes::from_static(b"1"),
            },
        ),
        (
            r#"{"id":9,"rpc":{"method":"m","data":[]}}"#,
            9,
            Request::Rpc {
                method: "m".into(),
                data: Bytes::from_static(b"[]"),
            },
        ),
        (
            r#"{"id":10,"refresh":{"token":"t"}}"#,
            10,
            Request::Refresh { token: "t".into() },
        ),
        (
            r#"{"id":11,"sub_refresh":{"channel":"c","token":"t"}}"#,
            11,
            Request::SubRefresh {
                channel: "c".into(),
                token: "t".into(),
            },
        ),
        (r#"{"id":12,"future":{"deep":[{}]}}"#, 12, Request::Empty),
        (
            r#"{"id":13,"history":{"channel":"c","limit":-1,"since":{"offset":7,"epoch":"xyz"},"reverse":true}}"#,
            13,
            Request::History(HistoryRequest {
                channel: "c".into(),
                limit: -1,
                since: Some(position()),
                reverse: true,
            }),
        ),
    ];
    for (frame, id, request) in cases {
        assert_eq!(one(frame), Command { id, request }, "{frame}");
    }
    let connect = one(r#"{"id":1,"connect":{"token":"t","data":{},"name":"js","version":"1","headers":{"h":"v"},"flag":1,
        "subs":{"a":{"recover":true,"epoch":"e","offset":3},"b":null}}}"#.replace('\n', "").as_str());
    let sub = SubscribeRequest {
        recover: true,
        epoch: "e".into(),
        offset: 3,
        ..SubscribeRequest::default()
    };
    let expected = ConnectRequest {
        token: "t".into(),
        data: Bytes::from_static(b"{}"),
        subs: vec![("a".into(), sub)],
        name: "js".into(),
        version: "1".into(),
        headers: vec![("h".into(), "v".into())],
        flag: 1,
    };
    assert_eq!(connect.request, Request::Connect(expected));
}

#[test]
fn splits_frames() {
    let ids = |frame: &str| -> Vec<Option<u32>> {
        commands(Encoding::Json, frame.to_owned())
            .into_iter()
            .map(|c| c.ok().map(|c| c.id))
            .collect()
    };
    assert_eq!(ids("{\"id\":1}\n{\"id\":2}\n"), [Some(1), Some(2)]);
    assert_eq!(ids("{\"id\":1}\n\n{\"id\":2}"), [Some(1), None]);
    assert_eq!(ids("{\"id\":1}{\"id\":2}"), [None]);
    assert_eq!(ids("\n"), [None]);
    for encoding in BOTH {
        assert_eq!(commands(encoding, ""), [Err(DecodeError::Empty)]);
    }
    assert_eq!(
        commands(Encoding::Protobuf, vec![0, 0]),
        [Ok(Command::default()), Ok(Command::default())]
    );
    assert_eq!(
        commands(Encoding::Protobuf, vec![2, 8, 1, 2, 8]),
        [
            Ok(Command {
                id: 1,
                ..Command::default()
            }),
            Err(DecodeError::Truncated)
        ]
    );
    assert_eq!(
        commands(Encoding::Protobuf, vec![0xff; 12]),
        [Err(DecodeError::Truncated)]
    );
    assert_eq!(
        commands(Encoding::Json, vec![b'{', 0xff, b'}']),
        [Err(DecodeError::NotUtf8)]
    );
}

#[test]
fn payloads_share_the_frame() {
    let json = Bytes::from_static(br#"{"id":1,"publish":{"channel":"c","data":"hello"}}"#);
    let message = wire::Command {
        publish: Some(wire::PublishRequest {
            channel: "c".into(),
            data: Bytes::from_static(b"hello"),
        }),
        ..wire::Command::default()
    };
    for (encoding, frame) in [
        (Encoding::Json, json),
        (
            Encoding::Protobuf,
            message.encode_length_delimited_to_vec().into(),
        ),
    ] {
        let range = frame.as_ptr_range();
        let Some(Ok(Command {
            request: Request::Publish { data, .. },
            ..
        })) = Commands::new(encoding, frame.clone()).next()
        else {
            panic!("{encoding:?}");
        };
        assert!(range.contains(&data.as_ptr()), "{encoding:?}");
    }
}

#[test]
fn deep_nesting_is_no_danger() {
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let Request::Send { data } = one(&format!(r#"{{"send":{{"data":{deep}}}}}"#)).request else {
        panic!()
    };
    assert_eq!(data.len(), deep.len());
    one(&format!(r#"{{"id":1,"unknown":{deep}}}"#));
    let nodes = format!(
        r#"{{"id":1,"subscribe":{{"tf":{}{{}}{}}}}}"#,
        r#"{"nodes":["#.repeat(5000),
        "]}".repeat(5000)
    );
    assert_eq!(
        commands(Encoding::Json, nodes),
        [Err(DecodeError::Malformed)]
    );
}

#[test]
fn replies_in_json() {
    let history = ResultBody::History {
        publications: vec![],
        position: Position::default(),
    };
    let cases = [
        (ResultBody::Publish, r#"{"id":1,"publish":{}}"#),
        (ResultBody::Unsubscribe, r#"{"id":1,"unsubscribe":{}}"#),
        (ResultBody::Ping, r#"{"id":1,"ping":{}}"#),
        (
            ResultBody::Rpc { data: Bytes::new() },
            r#"{"id":1,"rpc":{}}"#,
        ),
        (
            ResultBody::Rpc {
                data: Bytes::from_static(b"{\"a\":\n[1,\n2]}"),
            },
            r#"{"id":1,"rpc":{"data":{"a":[1,2]}}}"#,
        ),
        (
            ResultBody::Presence(vec![]),
            r#"{"id":1,"presence":{"presence":{}}}"#,
        ),
        (
            ResultBody::Presence(vec![Arc::new(info())]),
            r#"{"id":1,"presence":{"presence":{"c1":{"user":"42","client":"c1","conn_info":{"name":"Ann"}}}}}"#,
        ),
        (
            ResultBody::PresenceStats {
                num_clients: 0,
                num_users: 0,
            },
            r#"{"id":1,"presence_stats":{"num_clients":0,"num_users":0}}"#,
        ),
        (
            history,
            r#"{"id":1,"history":{"publications":[],"epoch":"","offset":0}}"#,
        ),
        (
            ResultBody::SubRefresh {
                expires: true,
                ttl: 9,
            },
            r#"{"id":1,"sub_refresh":{"expires":true,"ttl":9}}"#,
        ),
        (
            ResultBody::Subscribe(SubscribeResult {
                recoverable: true,
                positioned: true,
                position: position(),
                ..SubscribeResult::default()
            }),
            r#"{"id":1,"subscribe":{"recoverable":true,"epoch":"xyz","offset":7,"positioned":true}}"#,
        ),
        (
            ResultBody::Connect(ConnectResult {
                client: "c1".into(),
                version: "0.1".into(),
                ping: 25,
                pong: true,
                subs: vec![("a".into(), SubscribeResult::default())],
                ..ConnectResult::default()
            }),
            r#"{"id":1,"connect":{"client":"c1","version":"0.1","subs":{"a":{}},"ping":25,"pong":true}}"#,
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(reply_json(1, body), expected);
    }
    let mut out = Vec::new();
    let error = ErrorReply {
        code: 111,
        message: "too many requests",
        temporary: true,
    };
    encode_reply(
        Encoding::Json,
        &Reply {
            id: 2,
            result: Err(error),
        },
        &mut out,
    )
    .unwrap();
    assert_eq!(
        out,
        br#"{"id":2,"error":{"code":111,"message":"too many requests","temporary":true}}"#
    );
}

#[test]
fn pushes_in_json() {
    let (info, publication, position) = (info(), publication(), position());
    let channel = ChannelRef::Name("c");
    let message = Bytes::from_static(b"1");
    let who = r#"{"user":"42","client":"c1","conn_info":{"name":"Ann"}}"#;
    let cases = [
        (
            Push::Publication { channel: ChannelRef::Id(3), publication: &publication },
            format!(r#"{{"push":{{"id":3,"pub":{{"data":{{"a":1}},"info":{who},"offset":18446744073709551615,"tags":{{"k\"":"v\n"}},"delta":true,"time":-5,"epoch":"e"}}}}}}"#),
        ),
        (Push::Join { channel, info: &info }, format!(r#"{{"push":{{"channel":"c","join":{{"info":{who}}}}}}}"#)),
        (Push::Leave { channel, info: &info }, format!(r#"{{"push":{{"channel":"c","leave":{{"info":{who}}}}}}}"#)),
        (Push::Unsubscribe { channel, code: 2500, reason: "r" }, r#"{"push":{"channel":"c","unsubscribe":{"code":2500,"reason":"r"}}}"#.into()),
        (
            Push::Subscribe { channel: "c", recoverable: true, positioned: true, position: &position, data: &message },
            r#"{"push":{"channel":"c","subscribe":{"recoverable":true,"epoch":"xyz","offset":7,"positioned":true,"data":1}}}"#.into(),
        ),
        (Push::Message { data: &message }, r#"{"push":{"message":{"data":1}}}"#.into()),
        (Push::Refresh { expires: true, ttl: 3 }, r#"{"push":{"refresh":{"expires":true,"ttl":3}}}"#.into()),
    ];
    for (push, expected) in cases {
        assert_eq!(push_json(&push), expected);
    }
}

#[test]
fn refuses_payloads_that_are_not_json() {
    for data in [&b"{"[..], b"\xff", b"a", b"1 2", b"\"\n\"", b" "] {
        let mut out = b"before".to_vec();
        let data = Bytes::copy_from_slice(data);
        assert_eq!(
            encode_push(Encoding::Json, &Push::Message { data: &data }, &mut out),
            Err(NotJson),
            "{data:?}"
        );
        assert_eq!(out, b"before");
        assert_eq!(
            encode_push(Encoding::Protobuf, &Push::Message { data: &data }, &mut out),
            Ok(())
        );
    }
    assert_eq!(json_string(b"\xff"), None);
}

#[test]
fn publication_in_protobuf() {
    for size in [0, 1, 60, 80, 90, 127, 128, 5000, 16_300, 16_350, 70_000] {
        let publication = Publication {
            data: vec![7; size].into(),
            ..publication()
        };
        let mut out = b"before".to_vec();
        let push = Push::Publication {
            channel: ChannelRef::Name("c"),
            publication: &publication,
        };
        encode_push(Encoding::Protobuf, &push, &mut out).unwrap();
        let reply = wire::Reply::decode_length_delimited(&out[6..]).unwrap();
        assert_eq!(reply.encode_length_delimited_to_vec(), out[6..], "{size}");
        let push = reply.push.unwrap();
        let got = push.r#pub.unwrap();
        assert_eq!(
            (push.channel.as_str(), got.data.len(), got.offset, got.time),
            ("c", size, u64::MAX, -5)
        );
        assert_eq!(
            (
                got.tags["k\""].as_str(),
                got.info.unwrap().user.as_str(),
                got.delta
            ),
            ("v\n", "42", true)
        );
    }
}

#[test]
fn replies_in_protobuf() {
    let sub = SubscribeResult {
        expires: true,
        ttl: 1,
        recoverable: true,
        positioned: true,
        position: position(),
        publications: vec![publication()],
        recovered: true,
        was_recovering: true,
        data: Bytes::from_static(b"x"),
        delta: true,
        id: 12,
    };
    let connect = ConnectResult {
        client: "c1".into(),
        version: "v".into(),
        expires: true,
        ttl: 2,
        data: Bytes::from_static(b"y"),
        subs: vec![("a".into(), sub.clone())],
        ping: 25,
        pong: true,
        time_ms: 99,
    };
    let encode = |body| {
        let mut out = Vec::new();
        encode_reply(
            Encoding::Protobuf,
            &Reply {
                id: 5,
                result: Ok(body),
            },
            &mut out,
        )
        .unwrap();
        let reply = wire::Reply::decode_length_delimited(out.as_slice()).unwrap();
        assert_eq!(reply.encode_length_delimited_to_vec(), out);
        assert_eq!(reply.id, 5);
        reply
    };
    let got = encode(ResultBody::Connect(connect)).connect.unwrap();
    assert_eq!(
        (got.client.as_str(), got.ttl, got.ping, got.pong, got.time),
        ("c1", 2, 25, true, 99)
    );
    let nested = &got.subs["a"];
    assert_eq!(
        encode(ResultBody::Subscribe(sub)).subscribe.as_ref(),
        Some(nested)
    );
    assert_eq!(
        (
            nested.epoch.as_str(),
            nested.offset,
            nested.id,
            nested.publications.len()
        ),
        ("xyz", 7, 12, 1)
    );
    assert!(
        nested.expires
            && nested.recoverable
            && nested.positioned
            && nested.recovered
            && nested.was_recovering
    );
    assert!(
        encode(ResultBody::Publish).publish.is_some()
            && encode(ResultBody::Unsubscribe).unsubscribe.is_some()
    );
    assert!(encode(ResultBody::Ping).ping.is_some());
    assert_eq!(
        encode(ResultBody::Presence(vec![Arc::new(info())]))
            .presence
            .unwrap()
            .presence["c1"]
            .user,
        "42"
    );
    let history = encode(ResultBody::History {
        publications: vec![publication(); 3],
        position: position(),
    })
    .history
    .unwrap();
    assert_eq!(
        (
            history.publications.len(),
            history.offset,
            history.epoch.as_str()
        ),
        (3, 7, "xyz")
    );
    assert_eq!(
        encode(ResultBody::PresenceStats {
            num_clients: 3,
            num_users: 2
        })
        .presence_stats
        .unwrap()
        .num_users,
        2
    );
    assert_eq!(
        encode(ResultBody::Rpc {
            data: Bytes::from_static(b"z")
        })
        .rpc
        .unwrap()
        .data,
        "z"
    );
    assert_eq!(
        encode(ResultBody::SubRefresh {
            expires: true,
            ttl: 4
        })
        .sub_refresh
        .unwrap()
        .ttl,
        4
    );
    let refresh = RefreshResult {
        client: "c".into(),
        version: "v".into(),
        expires: true,
        ttl: 8,
    };
    assert_eq!(encode(ResultBody::Refresh(refresh)).refresh.unwrap().ttl, 8);
}

#[test]
fn pings() {
    assert_eq!(ping(Encoding::Json), b"{}");
    assert_eq!(ping(Encoding::Protobuf), [0]);
}

prop_compose! {
    fn any_wire_subscribe()(
        text in ".{0,8}", token in ".{0,8}", epoch in "[a-z]{0,4}", offset: u64, flags: [bool; 4], flag: i64,
        kind: i32, vals in prop::collection::vec(".{0,3}", 0..3), data in "\"[a-z ]{0,9}\"",
    ) -> wire::SubscribeRequest {
        let leaf = wire::FilterNode { key: text.clone(), cmp: "in".into(), vals, ..wire::FilterNode::default() };
        wire::SubscribeRequest {
            channel: text, token, recover: flags[0], epoch, offset, data: data.into(), positioned: flags[1],
            recoverable: flags[2], join_leave: flags[3], delta: "fossil".into(),
            tf: Some(wire::FilterNode { op: "not".into(), nodes: vec![leaf], ..wire::FilterNode::default() }),
            flag, r#type: kind,
        }
    }
}

fn subscribe_as_json(wire: &wire::SubscribeRequest) -> Value {
    let node = &wire.tf.as_ref().unwrap().nodes[0];
    let data: Value = serde_json::from_slice(&wire.data).unwrap();
    json!({
        "channel": wire.channel, "token": wire.token, "recover": wire.recover, "epoch": wire.epoch,
        "offset": wire.offset, "data": data, "positioned": wire.positioned, "recoverable": wire.recoverable,
        "join_leave": wire.join_leave, "delta": wire.delta, "flag": wire.flag, "type": wire.r#type,
        "tf": {"op": "not", "nodes": [{"key": node.key, "cmp": node.cmp, "vals": node.vals}]},
    })
}

proptest! {
    #[test]
    fn any_bytes_do_not_panic(frame in any::<Vec<u8>>(), text in r#"[{}\[\]",:a-z0-9\n]{0,60}"#) {
        for encoding in BOTH {
            prop_assert!(Commands::new(encoding, frame.clone().into()).count() >= 1);
            let _ = Commands::new(encoding, text.clone().into()).count();
        }
    }

    #[test]
    fn damaged_commands_do_not_panic(sub in any_wire_subscribe(), at: prop::sample::Index, byte: u8) {
        let json = json!({"id": 1, "subscribe": subscribe_as_json(&sub)}).to_string().into_bytes();
        let message = wire::Command { id: 1, subscribe: Some(sub), ..wire::Command::default() };
        for (encoding, mut frame) in [(Encoding::Json, json), (Encoding::Protobuf, message.encode_length_delimited_to_vec())] {
            let at = at.index(frame.len());
            frame[at] = byte;
            let _ = Commands::new(encoding, frame.into()).count();
        }
    }

    #[test]
    fn both_encodings_decode_alike(id: u32, sub in any_wire_subscribe(), headers in prop::collection::btree_map(".{0,4}", ".{0,4}", 0..3)) {
        let json = json!({"id": id, "connect": {"subs": {"s": subscribe_as_json(&sub)}, "headers": headers, "token": sub.token}});
        let message = wire::Command {
            id,
            connect: Some(wire::ConnectRequest {
                token: sub.token.clone(),
                subs: [("s".to_owned(), sub)].into(),
                headers,
                ..wire::ConnectRequest::default()
            }),
            ..wire::Command::default()
        };
        let from_json = commands(Encoding::Json, json.to_string());
        prop_assert!(from_json[0].is_ok());
        prop_assert_eq!(from_json, commands(Encoding::Protobuf, message.encode_length_delimited_to_vec()));
    }

    #[test]
    fn json_push_is_one_line_and_keeps_the_data(data in "[ \n]{0,2}\\[(\"[a-zé\\\\t]{0,4}\",[ \n]?){0,3}1[\n]?\\]", tag in any::<String>()) {
        let publication = Publication { data: data.clone().into(), tags: vec![("t".into(), tag.as_str().into())], ..Publication::default() };
        let push = Push::Publication { channel: ChannelRef::Name(&tag), publication: &publication };
        let mut out = Vec::new();
        if encode_push(Encoding::Json, &push, &mut out).is_ok() {
            prop_assert!(!out.contains(&b'\n'));
            let got: Value = serde_json::from_slice(&out).unwrap();
            let sent: Value = serde_json::from_str(&data).unwrap();
            prop_assert_eq!(&got["push"]["pub"]["data"], &sent);
            prop_assert_eq!(got["push"]["pub"]["tags"]["t"].as_str(), Some(tag.as_str()));
        } else {
            prop_assert!(serde_json::from_str::<Value>(&data).is_err());
        }
    }

    #[test]
    fn json_string_reads_back(text in any::<String>()) {
        let literal = json_string(text.as_bytes()).unwrap();
        prop_assert_eq!(serde_json::from_slice::<String>(&literal).unwrap(), text);
    }
}
