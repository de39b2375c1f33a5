//! How a data plane was, to and from the wire.

use super::convert::{bounded, number};
use super::{Malformed, Past, PastPoint};
use crate::fleet_wire as wire;

/// Seconds of a point.
pub const PAST_STEP_S: u64 = 10;
/// Points in one message: an hour, 14 KB.
pub const PAST_MAX: usize = 360;

impl TryFrom<wire::Past> for Past {
    type Error = Malformed;

    fn try_from(past: wire::Past) -> Result<Self, Malformed> {
        bounded("past.points", past.points.len(), PAST_MAX)?;
        let points = past.points.into_iter();
        let points =
            points.map(|point| point.known.then(|| PastPoint::try_from(point)).transpose());
        Ok(Self {
            from_s: past.from_s - past.from_s % PAST_STEP_S,
            points: points.collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<wire::PastPoint> for PastPoint {
    type Error = Malformed;

    fn try_from(point: wire::PastPoint) -> Result<Self, Malformed> {
        let number = |value: f32| number("past.points", value.into()).map(|_| value);
        Ok(Self {
            arrived_per_minute: number(point.arrived_per_minute)?,
            delivered_per_minute: number(point.delivered_per_minute)?,
            failed_per_minute: number(point.failed_per_minute)?,
            waiting: number(point.waiting)?,
            oldest_seconds: number(point.oldest_seconds)?,
            connections: number(point.connections)?,
            messages_in_per_second: number(point.messages_in_per_second)?,
            messages_out_per_second: number(point.messages_out_per_second)?,
        })
    }
}

impl From<Past> for wire::Past {
    fn from(past: Past) -> Self {
        let points = past.points.into_iter();
        Self {
            from_s: past.from_s,
            points: points
                .map(|point| point.map_or_else(wire::PastPoint::default, Into::into))
                .collect(),
        }
    }
}

impl From<PastPoint> for wire::PastPoint {
    fn from(point: PastPoint) -> Self {
        Self {
            known: true,
            arrived_per_minute: point.arrived_per_minute,
            delivered_per_minute: point.delivered_per_minute,
            failed_per_minute: point.failed_per_minute,
            waiting: point.waiting,
            oldest_seconds: point.oldest_seconds,
            connections: point.connections,
            messages_in_per_second: point.messages_in_per_second,
            messages_out_per_second: point.messages_out_per_second,
        }
    }
}
