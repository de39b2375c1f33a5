//! The fields of a [`ClientInfo`] in the order in which Redis has them. How each is delimited is up to who writes. Pure.

use std::sync::Arc;

use bytes::Bytes;

use crate::relay::protocol::ClientInfo;

pub(super) fn fields(info: &ClientInfo) -> [&[u8]; 4] {
    [
        info.user.as_bytes(),
        info.client.as_bytes(),
        &info.conn_info,
        &info.chan_info,
    ]
}

/// `next`: takes a field.
pub(super) fn from_fields(mut next: impl FnMut() -> Option<Bytes>) -> Option<ClientInfo> {
    let text = |field: Bytes| std::str::from_utf8(&field).ok().map(Arc::<str>::from);
    Some(ClientInfo {
        user: text(next()?)?,
        client: text(next()?)?,
        conn_info: next()?,
        chan_info: next()?,
    })
}
