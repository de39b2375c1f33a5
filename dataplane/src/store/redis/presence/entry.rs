//! What stands in Redis for an entry of presence. Lua reads the first two fields. Pure.

use bytes::{Buf, Bytes};

use crate::relay::channel::Channel;
use crate::relay::protocol::ClientInfo;
use crate::store::redis::client_info;

/// Between a channel and a client in the name of a member. Neither holds control characters of its own.
const MEMBER_SEPARATOR: u8 = 0;

/// An entry as it was found.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) holder: Bytes,
    pub(super) info: ClientInfo,
}

/// Fields in turn, each after its length in four bytes.
pub(super) fn encode(holder: &str, info: &ClientInfo) -> Bytes {
    let fields = || std::iter::once(holder.as_bytes()).chain(client_info::fields(info));
    let mut bytes = Vec::with_capacity(fields().map(|field| field.len() + 4).sum());
    for field in fields() {
        let length = u32::try_from(field.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(field);
    }
    bytes.into()
}

/// `None` for what this version did not write.
pub(super) fn decode(mut bytes: Bytes) -> Option<Entry> {
    let holder = take_field(&mut bytes)?;
    let info = client_info::from_fields(|| take_field(&mut bytes))?;
    Some(Entry { holder, info })
}

fn take_field(bytes: &mut Bytes) -> Option<Bytes> {
    let length = bytes.try_get_u32().ok()? as usize;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

pub(super) fn member(channel: &Channel, client: &str) -> Bytes {
    let scoped = channel.scoped().as_bytes();
    let mut member = Vec::with_capacity(scoped.len() + 1 + client.len());
    member.extend_from_slice(scoped);
    member.push(MEMBER_SEPARATOR);
    member.extend_from_slice(client.as_bytes());
    member.into()
}

pub(super) fn parse_member(member: &Bytes) -> Option<(Channel, Bytes)> {
    let at = member.iter().position(|byte| *byte == MEMBER_SEPARATOR)?;
    let channel = Channel::from_scoped(std::str::from_utf8(&member[..at]).ok()?)?;
    Some((channel, member.slice(at + 1..)))
}

/// The holder and user of a field that counts entries.
pub(super) fn parse_pair(mut pair: Bytes) -> Option<(Bytes, Bytes)> {
    let holder = take_field(&mut pair)?;
    Some((holder, pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_members_survive() {
        let info = ClientInfo {
            user: "u".into(),
            client: "c".into(),
            conn_info: "{}".into(),
            chan_info: Bytes::new(),
        };
        let entry = decode(encode("holder", &info)).unwrap();
        assert_eq!(&*entry.holder, b"holder");
        assert_eq!(entry.info, info);
        let channel = Channel::new("a", "x:y");
        assert_eq!(
            parse_member(&member(&channel, "c")),
            Some((channel, "c".into()))
        );
    }

    /// Processes of other versions read them, and so do scripts.
    #[test]
    fn the_bytes_of_an_entry_stay_as_they_are() {
        let info = ClientInfo {
            user: "u\u{e4}".into(),
            client: "client".into(),
            conn_info: "{}".into(),
            chan_info: vec![b'x'; 300].into(),
        };
        let entry = encode("holder", &info);
        let head = b"\0\0\0\x06holder\0\0\0\x03u\xc3\xa4\0\0\0\x06client\0\0\0\x02{}\0\0\x01,";
        assert_eq!(entry, [head.as_slice(), &[b'x'; 300]].concat());
    }

    #[test]
    fn garbage_is_none() {
        for garbage in [&b""[..], b"\0\0\0\x09x", b"\xff\xff\xff\xff", b"abc"] {
            assert_eq!(decode(Bytes::copy_from_slice(garbage)), None);
            assert_eq!(parse_pair(Bytes::copy_from_slice(garbage)), None);
        }
        assert_eq!(parse_member(&Bytes::from_static(b"x")), None);
        assert_eq!(parse_member(&Bytes::from_static(b"x\0c")), None);
    }
}
