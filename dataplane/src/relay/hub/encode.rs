//! The forms of one event: each is encoded when the first member needs it, then shared.

use crate::relay::channel::Channel;
use crate::relay::delta::{self, Form};
use crate::relay::frame;
use crate::relay::outbox::{Frame, FrameBytes};
use crate::relay::protocol::{self, ChannelRef, Encoding, Publication, Push};
use crate::store::Event;

/// What distinguishes members that could not share a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Variant {
    pub(super) encoding: Encoding,
    /// The channel is named by its compact id.
    pub(super) by_id: bool,
    pub(super) form: Form,
}

/// 2 encodings x 2 channel names x 3 forms.
const VARIANTS: usize = 12;

#[derive(Debug, Clone)]
enum Slot {
    Empty,
    Ready(Frame),
    /// The payload cannot be said in this encoding.
    Impossible,
}

pub(super) struct Forms<'e> {
    channel: &'e Channel,
    id: i64,
    event: &'e Event,
    /// What a delta starts from.
    previous: Option<&'e Publication>,
    slots: [Slot; VARIANTS],
    frame_bytes: &'e FrameBytes,
}

impl<'e> Forms<'e> {
    pub(super) fn new(
        channel: &'e Channel,
        id: i64,
        event: &'e Event,
        previous: Option<&'e Publication>,
        frame_bytes: &'e FrameBytes,
    ) -> Self {
        let slots = [const { Slot::Empty }; VARIANTS];
        Self {
            channel,
            id,
            event,
            previous,
            slots,
            frame_bytes,
        }
    }

    /// `None`: this member's encoding cannot carry the payload.
    pub(super) fn frame(&mut self, variant: Variant) -> Option<Frame> {
        let form = match variant.form {
            Form::Plain => 0,
            Form::Full => 1,
            Form::Patch => 2,
        };
        let index = form * 4
            + usize::from(variant.encoding == Encoding::Protobuf) * 2
            + usize::from(variant.by_id);
        if matches!(self.slots[index], Slot::Empty) {
            self.slots[index] = self.encode(variant);
        }
        match &self.slots[index] {
            Slot::Ready(frame) => Some(frame.clone()),
            Slot::Empty | Slot::Impossible => None,
        }
    }

    fn encode(&self, variant: Variant) -> Slot {
        let channel = if variant.by_id {
            ChannelRef::Id(self.id)
        } else {
            ChannelRef::Name(self.channel.name())
        };
        let mut message = Vec::new();
        let outcome = match self.event {
            Event::Join(info) => protocol::encode_push(
                variant.encoding,
                &Push::Join { channel, info },
                &mut message,
            ),
            Event::Leave(info) => protocol::encode_push(
                variant.encoding,
                &Push::Leave { channel, info },
                &mut message,
            ),
            Event::Publication { publication, .. } => {
                match delta::publication(variant.encoding, variant.form, publication, self.previous)
                {
                    Some(publication) => {
                        let publication = &*publication;
                        protocol::encode_push(
                            variant.encoding,
                            &Push::Publication {
                                channel,
                                publication,
                            },
                            &mut message,
                        )
                    }
                    None => return Slot::Impossible,
                }
            }
            // Told by a control, not pushed.
            Event::Lost => return Slot::Impossible,
        };
        if outcome.is_err() {
            return Slot::Impossible;
        }
        let bytes = frame::message(variant.encoding, &message);
        Slot::Ready(Frame::new(bytes, self.frame_bytes))
    }
}
