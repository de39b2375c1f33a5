//! All that the upstream knows: settings, capacity, users, records. One thread owns it.
//!
//! A request's way: [`State::arrive`] decides whether and until when it is served; [`State::finish`] carries it out at
//! that time. In between nobody waits here.

use std::collections::VecDeque;

use super::capacity::{Admission, Capacity};
use super::incoming::{Item, Reader, Reply, Request, Work};
use super::oracle::{Oracle, Who};
use super::parameters::Parameters;
use super::record::{Copy, Outcome, Record, Stats};
use super::settings::{Fault, FaultKind, Settings};

/// What to do with a request now.
#[derive(Debug)]
pub enum Step {
    Answer(Reply),
    /// Close the connection.
    Close,
    /// Never answer.
    Hang,
    /// Come back with the job at this time.
    Serve {
        done_ns: u64,
        job: Job,
    },
}

/// A request being served.
#[derive(Debug)]
pub struct Job {
    arrived_ns: u64,
    items: Vec<Item>,
    work: Work,
    callback: Option<String>,
    /// Carried out, but not answered.
    close: bool,
}

/// The whole upstream.
pub struct State {
    pub settings: Settings,
    pub stats: Stats,
    pub records: Vec<Record>,
    pub copies: VecDeque<Copy>,
    pub oracle: Oracle,
    capacity: Capacity,
    reader: Reader,
    /// Called with every request that was carried out.
    show: Option<fn(&Who, &Parameters)>,
}

impl State {
    #[must_use]
    pub fn new(settings: Settings, show: Option<fn(&Who, &Parameters)>) -> Self {
        Self {
            settings,
            stats: Stats::default(),
            records: Vec::new(),
            copies: VecDeque::new(),
            oracle: Oracle::default(),
            capacity: Capacity::default(),
            reader: Reader::default(),
            show,
        }
    }

    /// Forgets users and records, not settings.
    pub fn reset(&mut self) {
        let under_way = self.stats.in_service;
        *self = Self::new(self.settings.clone(), self.show);
        self.stats.in_service = under_way;
    }

    /// Sums as of now.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            busy_ns: self.capacity.busy_ns,
            ..self.stats
        }
    }

    /// Keeps a request as it came, if that is wanted.
    pub fn keep(&mut self, copy: impl FnOnce() -> Copy) {
        if self.settings.keep_requests == 0 {
            return;
        }
        if self.copies.len() >= self.settings.keep_requests {
            self.copies.pop_front();
        }
        self.copies.push_back(copy());
    }

    /// A request has come.
    pub fn arrive(&mut self, now_ns: u64, request: &Request) -> Step {
        self.stats.requests += 1;
        let (items, work, callback) = self.reader.read(&self.settings, &mut self.stats, request);
        let mut job = Job {
            arrived_ns: now_ns,
            items,
            work,
            callback,
            close: false,
        };
        let mut delay_ns = 0;
        if let Some(kind) = self.fault(now_ns, &job) {
            match kind {
                FaultKind::Delay { ms } => delay_ns = ms * 1_000_000,
                FaultKind::CloseAfter => job.close = true,
                FaultKind::Reply {
                    status,
                    body,
                    retry_after_s,
                } => {
                    self.record(now_ns, &job, status, Outcome::Faulted);
                    let mut reply = Reply::json(status, body);
                    reply.retry_after_s = retry_after_s;
                    return Step::Answer(reply);
                }
                FaultKind::Html => {
                    self.record(now_ns, &job, 200, Outcome::Faulted);
                    let mut reply = Reply::json(200, "<html><body>Welcome</body></html>");
                    reply.content_type = "text/html";
                    return Step::Answer(reply);
                }
                FaultKind::BlackHole => {
                    self.record(now_ns, &job, 0, Outcome::Faulted);
                    return Step::Hang;
                }
                FaultKind::CloseBefore | FaultKind::Down => {
                    self.record(now_ns, &job, 0, Outcome::Faulted);
                    return Step::Close;
                }
            }
        }
        match self.capacity.admit(&self.settings, now_ns, fastrand::f64()) {
            Admission::Refuse { status } => {
                self.record(now_ns, &job, status, Outcome::Refused);
                let mut reply = Reply::result(status, "Busy");
                reply.retry_after_s = self.settings.retry_after_s;
                Step::Answer(reply)
            }
            Admission::Serve { done_ns } => {
                self.stats.in_service += 1;
                self.stats.in_service_max = self.stats.in_service_max.max(self.stats.in_service);
                if matches!(job.work, Work::Data) {
                    for item in &job.items {
                        self.oracle.begin(&item.who, &mut self.stats);
                        // Items of one bulk request do not overlap.
                        if job.items.len() > 1 {
                            self.oracle.abandon(&item.who);
                        }
                    }
                }
                Step::Serve {
                    done_ns: done_ns + delay_ns,
                    job,
                }
            }
        }
    }

    /// A job's time has come: its answer, or none.
    pub fn finish(&mut self, now_ns: u64, mut job: Job) -> Option<Reply> {
        self.stats.in_service = self.stats.in_service.saturating_sub(1);
        let reply = match std::mem::replace(&mut job.work, Work::Data) {
            Work::Answer(reply, outcome) => {
                self.record(now_ns, &job, reply.status, outcome);
                reply
            }
            Work::Data => self.carry_out(now_ns, &job),
        };
        if job.close {
            return None;
        }
        Some(match &job.callback {
            Some(name) => Reply {
                body: format!("{name}({})", reply.body),
                ..reply
            },
            None => reply,
        })
    }

    fn carry_out(&mut self, now_ns: u64, job: &Job) -> Reply {
        let mut reply = r#"{"result":"Success"}"#;
        for item in &job.items {
            let outcome = self.oracle.finish(
                &item.who,
                &item.parameters,
                item.fingerprint,
                &mut self.stats,
            );
            if outcome == Outcome::DuplicateIgnored && job.items.len() == 1 {
                reply = r#"{"result":"Success","info":"Request ignored: Duplicate request"}"#;
            }
            if let (Some(show), Outcome::Applied) = (self.show, outcome) {
                show(&item.who, &item.parameters);
            }
            self.records
                .push(item.record(job.arrived_ns, now_ns, 200, outcome));
        }
        Reply::json(200, reply)
    }

    fn record(&mut self, now_ns: u64, job: &Job, status: u16, outcome: Outcome) {
        let count = match outcome {
            Outcome::Refused => &mut self.stats.refused,
            Outcome::Faulted => &mut self.stats.faulted,
            Outcome::Call => &mut self.stats.calls,
            Outcome::Applied
            | Outcome::DuplicateIgnored
            | Outcome::Repeated
            | Outcome::Rejected => &mut self.stats.rejected,
        };
        *count += job.items.len().max(1) as u64;
        for item in &job.items {
            self.records
                .push(item.record(job.arrived_ns, now_ns, status, outcome));
        }
        if job.items.is_empty() {
            self.records.push(Record {
                arrived_ns: job.arrived_ns,
                done_ns: now_ns,
                app: "".into(),
                device: "".into(),
                seq: 0,
                status,
                outcome,
            });
        }
    }

    fn fault(&self, now_ns: u64, job: &Job) -> Option<FaultKind> {
        let (app, device, seq) = match job.items.first() {
            Some(item) => (&*item.who.app, &*item.who.device, Some(item.seq)),
            None => ("", "", None),
        };
        let mut fitting = self
            .settings
            .faults
            .iter()
            .filter(|fault| fault.fits(now_ns, app, device, seq));
        fitting
            .find(|fault| fault.share >= 1.0 || fastrand::f64() < fault.share)
            .map(|fault| fault.kind.clone())
    }

    /// Whether health checks fail now, and how.
    #[must_use]
    pub fn sick(&self, now_ns: u64) -> Option<FaultKind> {
        if self.settings.ill {
            return Some(Fault::reply(503, "").kind);
        }
        let general = |fault: &&Fault| fault.is_general() && fault.fits(now_ns, "", "", None);
        let fault = self.settings.faults.iter().find(general)?;
        (fault.share >= 1.0).then(|| fault.kind.clone())
    }
}
