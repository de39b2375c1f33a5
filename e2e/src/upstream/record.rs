//! What is kept of every request, and the sums.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What became of a request, or of an item of a bulk request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Carried out.
    Applied,
    /// The same as the user's last one: answered with success, not carried out again.
    DuplicateIgnored,
    /// Had been carried out before, and the duplicate filter did not see it: carried out twice.
    Repeated,
    /// 429 or 503 of the capacity.
    Refused,
    /// Met a fault and was not carried out.
    Faulted,
    /// Answered with a lasting error: parameters missing, checksum wrong, application unknown.
    Rejected,
    /// A call that is no data: `/o/...`, `/i/sdk` and the like.
    Call,
}

/// One request. As JSON an array, because there are many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// On the monotonic clock, which all processes of the machine share.
    pub arrived_ns: u64,
    pub done_ns: u64,
    pub app: Arc<str>,
    pub device: Arc<str>,
    /// 0: had none.
    pub seq: u64,
    pub status: u16,
    pub outcome: Outcome,
}

type Row = (u64, u64, Arc<str>, Arc<str>, u64, u16, Outcome);

impl Serialize for Record {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (
            self.arrived_ns,
            self.done_ns,
            &self.app,
            &self.device,
            self.seq,
            self.status,
            self.outcome,
        )
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (arrived_ns, done_ns, app, device, seq, status, outcome) =
            Row::deserialize(deserializer)?;
        Ok(Self {
            arrived_ns,
            done_ns,
            app,
            device,
            seq,
            status,
            outcome,
        })
    }
}

/// Sums since the start or the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// HTTP requests, of every kind.
    pub requests: u64,
    /// Connections taken.
    pub connections: u64,
    /// Connections that ended because what came was no HTTP.
    pub unreadable: u64,
    /// Requests whose body was not what its type says.
    pub malformed: u64,
    pub applied: u64,
    pub duplicates_ignored: u64,
    pub repeated: u64,
    pub refused: u64,
    pub faulted: u64,
    pub rejected: u64,
    pub calls: u64,
    /// Requests under way now.
    pub in_service: u64,
    /// Most that were under way at a time.
    pub in_service_max: u64,
    /// Requests that came before one with a smaller number of their device.
    pub out_of_order: u64,
    /// Numbers that were jumped over and have not come yet.
    pub missing: u64,
    /// Requests that came while another one of their device was being served.
    pub overlaps: u64,
    /// Requests of a session that was not begun.
    pub session_orphans: u64,
    pub merges: u64,
    /// Merges before everything of the old device had come, or after one of the new device that follows it.
    pub merges_early: u64,
    /// Requests of a device that had been merged into another.
    pub after_merge: u64,
    /// Time that workers were busy.
    pub busy_ns: u64,
}

/// What is known of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSummary {
    pub app: String,
    pub device: String,
    pub last_seq: u64,
    pub applied: u64,
    pub missing: u64,
}

/// A request as it came, for byte-exact comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copy {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case, in the order of arrival.
    pub headers: Vec<(String, String)>,
    /// Each byte as the character with its number.
    body: String,
}

impl Copy {
    #[must_use]
    pub fn new(method: &str, target: &str, headers: Vec<(String, String)>, body: &[u8]) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            headers,
            body: body.iter().map(|byte| char::from(*byte)).collect(),
        }
    }

    #[must_use]
    pub fn body(&self) -> Vec<u8> {
        self.body
            .chars()
            .filter_map(|c| u8::try_from(u32::from(c)).ok())
            .collect()
    }

    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}
