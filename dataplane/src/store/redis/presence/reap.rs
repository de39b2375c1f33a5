//! Removes what dead processes left, one partition at a time, some entries with each call.

use std::sync::Arc;

use bytes::Bytes;

use super::{RedisPresence, entry};
use crate::store::Reaped;
use crate::store::redis::cluster::{Again, CallError};
use crate::store::redis::reply::Reply;
use crate::store::redis::script::{Script, script};

static BURY: Script = script!("presence_bury.lua");
static REAP: Script = script!("presence_reap.lua");

/// Dead holders that one round looks at.
const HOLDERS_MAX: usize = 16;
/// Entries that one call removes: it holds the server for about a millisecond.
const ENTRIES_PER_CALL: usize = 200;

pub(super) async fn reap(
    presence: &RedisPresence,
    partition: u16,
) -> Result<Vec<Reaped>, CallError> {
    let keys = [
        presence.leases_key(partition),
        presence.partitions.key(partition, "dead"),
    ];
    let slot = presence.partitions.slot(partition);
    let args = [HOLDERS_MAX.to_string().into()];
    let dead = presence
        .cluster
        .call(slot, &BURY, &keys, args, Again::Safe)
        .await?;
    let mut all = Vec::new();
    for holder in dead.list().iter().filter_map(Reply::bytes) {
        while reap_some(presence, partition, holder, &mut all).await? {}
    }
    Ok(all)
}

/// Whether there may be more.
async fn reap_some(
    presence: &RedisPresence,
    partition: u16,
    holder: &Bytes,
    all: &mut Vec<Reaped>,
) -> Result<bool, CallError> {
    let slot = presence.partitions.slot(partition);
    let members_key = presence.members_key(partition, &String::from_utf8_lossy(holder));
    let some = vec![members_key.clone(), ENTRIES_PER_CALL.to_string().into()];
    let members = presence
        .cluster
        .command(slot, "SRANDMEMBER", some, Again::Safe)
        .await?;
    let mut keys = vec![
        presence.leases_key(partition),
        presence.partitions.key(partition, "dead"),
        members_key,
    ];
    let mut args = vec![holder.clone()];
    let mut channels = Vec::new();
    for member in members.list().iter().filter_map(Reply::bytes) {
        let Some((channel, client)) = entry::parse_member(member) else {
            continue;
        };
        keys.push(presence.entries_key(partition, &channel));
        keys.push(presence.counts_key(partition, &channel));
        args.extend([member.clone(), client]);
        channels.push(channel);
    }
    // Without members the script still forgets the holder.
    let removed = presence
        .cluster
        .call(slot, &REAP, &keys, args, Again::Safe)
        .await?;
    for (channel, entry) in channels.iter().zip(removed.list()) {
        let entry = entry.bytes().filter(|entry| !entry.is_empty()).cloned();
        if let Some(entry) = entry.and_then(entry::decode) {
            all.push(Reaped {
                channel: channel.clone(),
                info: Arc::new(entry.info),
            });
        }
    }
    let stopped = removed.list().is_empty();
    Ok(!stopped && channels.len() >= ENTRIES_PER_CALL)
}
