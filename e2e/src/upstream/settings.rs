//! What the upstream can do and how it fails: set at its start, patched by `POST /_control`.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How service times are spread around their mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Spread {
    /// All alike.
    #[default]
    Fixed,
    /// From half to one and a half of the mean.
    Uniform,
    /// Many short, few long ones.
    Exponential,
}

/// Capacity, failures, and who is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Requests served at the same time; the others wait in line. 0: as many as come.
    pub workers: u32,
    /// Mean time a worker takes.
    pub service_ms: f64,
    pub spread: Spread,
    /// Requests that may wait in line; more get 503.
    pub line: u32,
    /// Requests above this rate get 429.
    pub rate_per_second: Option<f64>,
    pub rate_burst: f64,
    /// More requests than this at a time get 503.
    pub concurrency: Option<u32>,
    /// Sent with 429 and 503 of the capacity.
    pub retry_after_s: Option<u32>,
    /// The first that fits is what happens.
    pub faults: Vec<Fault>,
    /// Health checks fail, and nothing else.
    pub ill: bool,
    /// Keys of known applications; empty: all are known.
    pub keys: Vec<String>,
    /// Salts of applications by key.
    pub salts: BTreeMap<String, String>,
    /// So many requests are kept as they came, for `GET /_requests`.
    pub keep_requests: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            workers: 0,
            service_ms: 0.0,
            spread: Spread::Fixed,
            line: 200,
            rate_per_second: None,
            rate_burst: 10.0,
            concurrency: None,
            retry_after_s: None,
            faults: Vec::new(),
            ill: false,
            keys: Vec::new(),
            salts: BTreeMap::new(),
            keep_requests: 0,
        }
    }
}

/// Something that goes wrong, for all requests or for some.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub kind: FaultKind,
    /// Of the requests it fits, this share meets it.
    #[serde(default = "all")]
    pub share: f64,
    /// Only requests with this `app_key`.
    #[serde(default)]
    pub app: Option<String>,
    /// Only requests with this `device_id`.
    #[serde(default)]
    pub device: Option<String>,
    /// Only requests with this `seq`.
    #[serde(default)]
    pub seq: Option<u64>,
    /// From when it was set; without it until it is taken away.
    #[serde(default)]
    pub for_ms: Option<u64>,
    /// When it ends, on the monotonic clock; made from `for_ms`.
    #[serde(default)]
    pub until_ns: Option<u64>,
}

fn all() -> f64 {
    1.0
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// This answer, without looking at the request.
    Reply {
        status: u16,
        #[serde(default)]
        body: String,
        #[serde(default)]
        retry_after_s: Option<u32>,
    },
    /// A page instead of JSON, with status 200.
    Html,
    /// Never an answer.
    BlackHole,
    /// The connection is closed instead of an answer; nothing was done.
    CloseBefore,
    /// The connection is closed instead of an answer; the request was carried out.
    CloseAfter,
    /// Served this much later.
    Delay { ms: u64 },
    /// Connections are closed, new ones refused. Fits every request.
    Down,
}

impl Fault {
    /// One that fits every request until it is taken away.
    #[must_use]
    pub fn of(kind: FaultKind) -> Self {
        Self {
            kind,
            share: 1.0,
            app: None,
            device: None,
            seq: None,
            for_ms: None,
            until_ns: None,
        }
    }

    /// An answer with this status and body.
    #[must_use]
    pub fn reply(status: u16, body: &str) -> Self {
        Self::of(FaultKind::Reply {
            status,
            body: body.to_owned(),
            retry_after_s: None,
        })
    }

    /// Whether it is meant for a request of these.
    #[must_use]
    pub fn fits(&self, now_ns: u64, app: &str, device: &str, seq: Option<u64>) -> bool {
        self.until_ns.is_none_or(|until| now_ns < until)
            && self.app.as_deref().is_none_or(|only| only == app)
            && self.device.as_deref().is_none_or(|only| only == device)
            && self.seq.is_none_or(|only| Some(only) == seq)
    }

    /// Whether it hits everything, health checks included.
    #[must_use]
    pub fn is_general(&self) -> bool {
        self.app.is_none() && self.device.is_none() && self.seq.is_none()
    }
}

impl Settings {
    /// With the members of `patch` put in the place of what was there.
    pub fn patched(&self, patch: &Value, now_ns: u64) -> Result<Self> {
        let mut value = serde_json::to_value(self)?;
        let members = patch.as_object().context("a patch is a JSON object")?;
        for (name, member) in members {
            value[name] = member.clone();
        }
        let mut settings: Self = serde_json::from_value(value)?;
        for fault in &mut settings.faults {
            if let Some(ms) = fault.for_ms.take() {
                fault.until_ns = Some(now_ns + ms * 1_000_000);
            }
        }
        Ok(settings)
    }

    /// Whether the upstream is to refuse connections.
    #[must_use]
    pub fn is_down(&self, now_ns: u64) -> bool {
        self.faults.iter().any(|fault| {
            fault.kind == FaultKind::Down && fault.until_ns.is_none_or(|until| now_ns < until)
        })
    }

    /// Requests per second it can serve for long; `None` without a limit.
    #[must_use]
    pub fn per_second(&self) -> Option<f64> {
        let workers =
            (self.workers > 0).then(|| f64::from(self.workers) * 1000.0 / self.service_ms);
        match (workers, self.rate_per_second) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_changes_what_it_names() {
        let settings = Settings {
            workers: 3,
            ..Settings::default()
        };
        let fault = json!({ "faults": [{ "kind": { "reply": { "status": 503 } }, "for_ms": 2 }] });
        let patched = settings.patched(&fault, 5).unwrap();
        assert_eq!(
            (patched.workers, patched.faults[0].until_ns),
            (3, Some(2_000_005))
        );
        assert!(settings.patched(&json!({ "wrokers": 3 }), 0).is_err());
        let down = json!({ "faults": [{ "kind": "down" }] });
        assert!(settings.patched(&down, 0).unwrap().is_down(9));
    }

    #[test]
    fn a_fault_fits_whom_it_names() {
        let mut fault = Fault::of(FaultKind::Html);
        assert!(fault.fits(7, "a", "d", None) && fault.is_general());
        fault.device = Some("d".to_owned());
        fault.seq = Some(4);
        assert!(fault.fits(7, "a", "d", Some(4)) && !fault.is_general());
        assert!(!fault.fits(7, "a", "e", Some(4)) && !fault.fits(7, "a", "d", Some(5)));
    }
}
