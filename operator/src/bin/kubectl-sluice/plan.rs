//! The manager's view and plan of a gateway, as the operator shows it: fields that an older operator does not show are empty.

use serde::Deserialize;

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Fleet {
    /// `<namespace>/<name>`.
    pub(crate) gateway: String,
    pub(crate) term: u64,
    pub(crate) generation: u64,
    pub(crate) learning: bool,
    pub(crate) wrong: Option<String>,
    pub(crate) activity: Option<String>,
    pub(crate) connections: u64,
    pub(crate) arrived_per_minute: f64,
    pub(crate) delivered_per_minute: f64,
    pub(crate) failed_per_minute: f64,
    pub(crate) waiting: u64,
    pub(crate) oldest_seconds: f64,
    pub(crate) scale: Option<Scale>,
    pub(crate) caps: Vec<Cap>,
    pub(crate) pods: Vec<Pod>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Scale {
    pub(crate) wanted: u32,
    pub(crate) wish: u32,
    pub(crate) reason: String,
    pub(crate) limit: Option<String>,
    pub(crate) waits: Option<String>,
    pub(crate) victim: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Cap {
    pub(crate) key: String,
    pub(crate) sent_per_minute: f64,
    pub(crate) allowed_per_minute: f64,
}

#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) state: String,
    pub(crate) reason: String,
    pub(crate) connections: u64,
    pub(crate) fair: f64,
    pub(crate) reporting: bool,
    pub(crate) drained: bool,
}

impl Fleet {
    pub(crate) fn pod(&self, name: &str) -> Option<&Pod> {
        self.pods.iter().find(|pod| pod.name == name)
    }
}
