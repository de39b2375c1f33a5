//! Requests as the upstream reads them: who sent what, or what is wrong with it.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::checksum;
use super::oracle::{Who, fingerprint};
use super::parameters::Parameters;
use super::record::{Outcome, Record, Stats};
use super::settings::Settings;

/// A request, read whole.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    /// Without `?`.
    pub query: String,
    pub content_type: String,
    pub body: Bytes,
}

/// An answer; JSON unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub body: String,
    pub content_type: &'static str,
    pub retry_after_s: Option<u32>,
}

impl Reply {
    #[must_use]
    pub fn json(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            body: body.into(),
            content_type: "application/json; charset=utf-8",
            retry_after_s: None,
        }
    }

    /// `{"result": <text>}`.
    #[must_use]
    pub fn result(status: u16, text: &str) -> Self {
        Self::json(status, serde_json::json!({ "result": text }).to_string())
    }
}

#[derive(Debug)]
pub(super) enum Work {
    /// Carry out the items.
    Data,
    /// Answer this.
    Answer(Reply, Outcome),
}

/// One request of a device.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) who: Who,
    pub(super) seq: u64,
    pub(super) parameters: Parameters,
    pub(super) fingerprint: [u8; 20],
}

/// Reads requests; keeps each name once.
#[derive(Debug, Default)]
pub(super) struct Reader {
    names: HashSet<Arc<str>>,
}

/// What is wrong with a request of whom.
type Problem = Box<(Option<Item>, Reply)>;

impl Reader {
    /// The request's items, what to do with them, and the name of a JSONP callback.
    pub(super) fn read(
        &mut self,
        settings: &Settings,
        stats: &mut Stats,
        request: &Request,
    ) -> (Vec<Item>, Work, Option<String>) {
        let Ok(parameters) = Parameters::of(&request.query, &request.content_type, &request.body)
        else {
            stats.malformed += 1;
            let reply = Reply::result(400, "Malformed request");
            return (Vec::new(), Work::Answer(reply, Outcome::Rejected), None);
        };
        let callback = parameters.get("callback").map(str::to_owned);
        let read = match request.path.as_str() {
            "/i" => self.read_one(settings, request, parameters),
            "/i/bulk" => self.read_bulk(&parameters),
            _ => {
                let reply = super::server::call(request, &parameters);
                return (Vec::new(), Work::Answer(reply, Outcome::Call), callback);
            }
        };
        match read {
            Ok(items) => (items, Work::Data, callback),
            Err(problem) => {
                let (item, reply) = *problem;
                let work = Work::Answer(reply, Outcome::Rejected);
                (item.into_iter().collect(), work, callback)
            }
        }
    }

    fn read_one(
        &mut self,
        settings: &Settings,
        request: &Request,
        parameters: Parameters,
    ) -> Result<Vec<Item>, Problem> {
        let timestamp = parameters.get("timestamp").unwrap_or_default();
        let hash = fingerprint(&request.query, &request.body, timestamp);
        let Some(item) = self.item(parameters, None, hash) else {
            let text = "Missing parameter \"app_key\" or \"device_id\"";
            return Err(Box::new((None, Reply::result(400, text))));
        };
        let app = &*item.who.app;
        if !settings.keys.is_empty() && !settings.keys.iter().any(|key| key == app) {
            let reply = Reply::result(400, "App does not exist");
            return Err(Box::new((Some(item), reply)));
        }
        if let Some(salt) = settings.salts.get(app) {
            let body = (request.method == "POST").then_some(&*request.body);
            if let Err(mismatch) = checksum::check(salt, &request.query, body, &item.parameters) {
                let reply = Reply::result(200, &mismatch.to_string());
                return Err(Box::new((Some(item), reply)));
            }
        }
        Ok(vec![item])
    }

    fn read_bulk(&mut self, parameters: &Parameters) -> Result<Vec<Item>, Problem> {
        let bad = |text: &str| Box::new((None, Reply::result(400, text)));
        let requests = parameters
            .get("requests")
            .ok_or_else(|| bad("Missing parameter \"requests\""))?;
        let list: Vec<Value> =
            serde_json::from_str(requests).map_err(|_| bad("Invalid parameter \"requests\""))?;
        let items = list.iter().filter_map(|value| {
            let hash = fingerprint("href=/i", value.to_string().as_bytes(), "");
            self.item(Parameters::of_item(value), parameters.get("app_key"), hash)
        });
        Ok(items.collect())
    }

    fn item(
        &mut self,
        parameters: Parameters,
        app: Option<&str>,
        fingerprint: [u8; 20],
    ) -> Option<Item> {
        let app = parameters.get("app_key").or(app)?.to_owned();
        let device = parameters.get("device_id")?.to_owned();
        Some(Item {
            who: Who {
                app: self.name(&app),
                device: self.name(&device),
            },
            seq: parameters.number("seq").unwrap_or(0),
            parameters,
            fingerprint,
        })
    }

    /// The same text once in memory.
    fn name(&mut self, text: &str) -> Arc<str> {
        if let Some(name) = self.names.get(text) {
            return Arc::clone(name);
        }
        let name: Arc<str> = text.into();
        self.names.insert(Arc::clone(&name));
        name
    }
}

impl Item {
    pub(super) fn record(
        &self,
        arrived_ns: u64,
        done_ns: u64,
        status: u16,
        outcome: Outcome,
    ) -> Record {
        Record {
            arrived_ns,
            done_ns,
            app: Arc::clone(&self.who.app),
            device: Arc::clone(&self.who.device),
            seq: self.seq,
            status,
            outcome,
        }
    }
}
