//! The channels of one worker: who is in them, and what each member has been sent.
//!
//! Belongs to one thread, so delivery takes no lock. A publication is encoded once per form that any member needs
//! (encoding, name or id, full or delta) and the frame is shared. The hub owns the delivery state of a membership:
//! stream position, delta base, what is held back while the subscribe reply is being made.

mod encode;
#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use slab::Slab;

use self::encode::{Forms, Variant};
use super::channel::Channel;
use super::codes;
use super::congestion::Readers;
use super::connection::Connection;
use super::delta::Form;
use super::filter::Filter;
use super::history::{Live, check_live};
use super::limits::HELD_EVENTS_MAX;
use super::outbox::{Allowance, FrameBytes};
use super::protocol::{Position, Publication};
use super::session::{Control, MemberKey};
use crate::store::Event;

/// Connections that have something to be written, each once.
pub type Dirty = std::collections::VecDeque<Rc<Connection>>;

/// What a member wants.
pub struct Membership {
    pub connection: Rc<Connection>,
    pub by_id: bool,
    pub delta: bool,
    pub join_leave: bool,
    pub filter: Option<Rc<Filter>>,
}

struct Member {
    wants: Membership,
    /// Position in the stream; absent for subscriptions that follow none.
    at: Option<Position>,
    /// `Room::sequence` of the last publication sent here in full or as a delta; 0 for none.
    delta_base: u64,
    /// Events that came before the subscribe reply.
    held: Option<Box<Held>>,
    /// A gap was seen: nothing more is delivered, the connection has been told.
    broken: bool,
}

#[derive(Default)]
struct Held {
    events: Vec<Event>,
    overflowed: bool,
}

struct Room {
    members: Slab<Member>,
    /// Names the channel in compact pushes.
    id: i64,
    /// Counts publications, for delta bases.
    sequence: u64,
    /// The publication that the next delta starts from; kept only where deltas are allowed.
    last: Option<Arc<Publication>>,
}

/// What delivering an event came to.
#[derive(Debug, Default, Clone, Copy)]
pub struct Delivered {
    pub frames: usize,
    pub readers: Readers,
}

pub struct Hub {
    rooms: HashMap<Channel, Room, RandomState>,
    next_id: i64,
    frame_bytes: FrameBytes,
}

impl Hub {
    pub fn new(frame_bytes: FrameBytes) -> Self {
        Self {
            rooms: HashMap::default(),
            next_id: 1,
            frame_bytes,
        }
    }

    /// Adds a member whose events are held back until `release`. Also gives the channel's compact id.
    pub fn attach(&mut self, channel: &Channel, wants: Membership) -> (MemberKey, i64) {
        let next_id = &mut self.next_id;
        let room = self.rooms.entry(channel.clone()).or_insert_with(|| {
            let id = *next_id;
            *next_id += 1;
            // Most channels of most fleets have few members here: start with room for one.
            Room {
                members: Slab::with_capacity(1),
                id,
                sequence: 0,
                last: None,
            }
        });
        let member = Member {
            wants,
            at: None,
            delta_base: 0,
            held: Some(Box::default()),
            broken: false,
        };
        let key = room.members.insert(member);
        (MemberKey::try_from(key).unwrap_or(MemberKey::MAX), room.id)
    }

    pub fn detach(&mut self, channel: &Channel, key: MemberKey) {
        let Some(room) = self.rooms.get_mut(channel) else {
            return;
        };
        room.members.try_remove(key as usize);
        if room.members.is_empty() {
            self.rooms.remove(channel);
        }
    }

    /// Sets the position that the subscribe reply will tell. `sent` is the last publication in that reply.
    pub fn follow(
        &mut self,
        channel: &Channel,
        key: MemberKey,
        at: Option<Position>,
        sent: Option<&Publication>,
    ) {
        let Some(room) = self.rooms.get_mut(channel) else {
            return;
        };
        let base_known = match (&room.last, sent) {
            (Some(last), Some(sent)) => last.offset == sent.offset,
            (None, _) | (_, None) => false,
        };
        if let Some(member) = room.members.get_mut(key as usize) {
            member.at = at;
            member.delta_base = if base_known { room.sequence } else { 0 };
        }
    }

    /// Delivers what was held back, then the member is live. To be called right after the reply was queued.
    pub fn release(
        &mut self,
        channel: &Channel,
        key: MemberKey,
        allowance: Allowance,
        dirty: &mut Dirty,
    ) {
        let Some(room) = self.rooms.get_mut(channel) else {
            return;
        };
        let Some(member) = room.members.get_mut(key as usize) else {
            return;
        };
        let Some(held) = member.held.take() else {
            return;
        };
        if held.overflowed {
            member.fail(channel);
            return;
        }
        for event in &held.events {
            // The base of a held delta is not known any more: everything goes in full.
            let mut forms = Forms::new(channel, room.id, event, None, &self.frame_bytes);
            member.deliver(channel, event, &mut forms, 0, allowance, dirty);
        }
    }

    pub fn deliver(
        &mut self,
        channel: &Channel,
        event: &Event,
        allowance: Allowance,
        dirty: &mut Dirty,
    ) -> Delivered {
        let Some(room) = self.rooms.get_mut(channel) else {
            return Delivered::default();
        };
        let previous = match event {
            Event::Publication {
                publication, delta, ..
            } => {
                room.sequence += 1;
                let previous = room.last.take();
                room.last = delta.then(|| Arc::clone(publication));
                previous.filter(|_| *delta)
            }
            Event::Join(_) | Event::Leave(_) | Event::Lost => None,
        };
        let mut forms = Forms::new(
            channel,
            room.id,
            event,
            previous.as_deref(),
            &self.frame_bytes,
        );
        let mut delivered = Delivered::default();
        delivered.readers.members = room.members.len();
        for (_, member) in &mut room.members {
            if let Some(held) = &mut member.held {
                held.add(event);
                continue;
            }
            delivered.readers.behind += usize::from(member.wants.connection.is_behind(allowance));
            let sent = member.deliver(channel, event, &mut forms, room.sequence, allowance, dirty);
            delivered.frames += usize::from(sent);
        }
        delivered
    }

    pub fn has_members(&self, channel: &Channel) -> bool {
        self.rooms.contains_key(channel)
    }

    /// How the channel's members keep up.
    pub fn readers(&self, channel: &Channel, allowance: Allowance) -> Readers {
        let Some(room) = self.rooms.get(channel) else {
            return Readers::default();
        };
        let is_behind = |member: &Member| member.wants.connection.is_behind(allowance);
        let behind = room
            .members
            .iter()
            .filter(|(_, member)| is_behind(member))
            .count();
        Readers {
            members: room.members.len(),
            behind,
        }
    }
}

impl Held {
    fn add(&mut self, event: &Event) {
        if self.events.len() < HELD_EVENTS_MAX {
            self.events.push(event.clone());
        } else {
            self.overflowed = true;
        }
    }
}

impl Member {
    /// Sends the event if it is this member's turn to have it. `sequence` is 0 when no delta base may be taken over.
    fn deliver(
        &mut self,
        channel: &Channel,
        event: &Event,
        forms: &mut Forms<'_>,
        sequence: u64,
        allowance: Allowance,
        dirty: &mut Dirty,
    ) -> bool {
        if self.broken {
            return false;
        }
        let connection = &self.wants.connection;
        let mut form = Form::Plain;
        match event {
            Event::Join(_) | Event::Leave(_) => {
                if !self.wants.join_leave {
                    return false;
                }
            }
            Event::Lost => {
                if self.at.is_some() {
                    self.fail(channel);
                }
                return false;
            }
            Event::Publication {
                publication,
                position,
                ..
            } => {
                if let (Some(at), Some(position)) = (&mut self.at, position) {
                    match check_live(at, position) {
                        Live::Deliver => at.offset = position.offset,
                        Live::Drop => return false,
                        Live::Gap => {
                            self.fail(channel);
                            return false;
                        }
                    }
                }
                if self
                    .wants
                    .filter
                    .as_ref()
                    .is_some_and(|filter| !filter.matches(&publication.tags))
                {
                    return false;
                }
                if self.wants.delta {
                    let follows = sequence > 1 && self.delta_base == sequence - 1;
                    form = if follows { Form::Patch } else { Form::Full };
                    self.delta_base = sequence;
                }
            }
        }
        let variant = Variant {
            encoding: connection.encoding(),
            by_id: self.wants.by_id,
            form,
        };
        match forms.frame(variant) {
            Some(frame) => {
                connection.enqueue(frame, allowance, dirty);
                true
            }
            None => {
                connection.request_close(codes::DISCONNECT_INAPPROPRIATE_PROTOCOL);
                false
            }
        }
    }

    fn fail(&mut self, channel: &Channel) {
        self.broken = true;
        self.wants.connection.control(
            Control::InsufficientState {
                channel: channel.clone(),
            },
            None,
        );
    }
}
