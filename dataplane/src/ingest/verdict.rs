//! What an answer of the upstream means for the request that got it.
//!
//! Pure: from the result of one attempt, and what is known of the application and the upstream, to what becomes of the
//! request and what the limiter is told. Attempts are used up only by failures that may be the request's own: never by
//! 429, by a connection that could not be made, or while the upstream as a whole fails. So an outage parks nothing,
//! however long it takes. `countly` reads that dialect's replies, `retry_after` the header of that name.

mod countly;
mod retry_after;

#[cfg(test)]
mod tests;

use std::time::Duration;

use super::limiter::SampleOutcome;

pub use retry_after::parse as parse_retry_after;

/// Of an answer's body as much as this is read: success and every known refusal are far shorter.
pub const REPLY_BODY_MAX: usize = 64 * 1024;
/// Of what the upstream says, as much as this is kept to be shown.
const INFO_CHARS_MAX: usize = 256;
/// Attempts for answers that look as if the request had gone to someone else.
const MISROUTED_ATTEMPTS: u32 = 3;
/// How long a lane pauses when the upstream takes nothing for its application.
const PAUSED_PROBE_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Countly,
    Generic,
}

/// How one attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt<'a> {
    Answered {
        status: u16,
        /// The first [`REPLY_BODY_MAX`] bytes at most.
        body: &'a [u8],
        /// Header `Retry-After`.
        retry_after: Option<&'a [u8]>,
    },
    TimedOut,
    /// There was no connection: the upstream has not seen the request.
    NotConnected,
    /// The connection broke before the answer was complete.
    Broken,
}

/// What is known beside the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    pub dialect: Dialect,
    /// A request of the same application was done within the last minutes.
    pub application_succeeds: bool,
    /// The upstream as a whole fails ([`super::limiter::Limiter::is_failing`]), and not on this request alone, as it was
    /// before this attempt's end was told to the limiter.
    pub upstream_fails: bool,
    /// Used up before this one.
    pub attempts: u32,
    pub attempts_max: u32,
    pub now_ms: u64,
}

/// What becomes of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// `info` is what the upstream said beside its success; empty: nothing.
    Done {
        info: String,
    },
    /// Again, in its place. Not before `after`, when the upstream asked for that.
    Retry {
        reason: Reason,
        after: Option<Duration>,
    },
    Park {
        reason: Reason,
        info: String,
    },
    /// Nothing of the application is taken now; the request stays where it is.
    PauseLane {
        reason: Reason,
        probe_after: Duration,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    pub verdict: Verdict,
    /// Used up, this one included if it counts.
    pub attempts: u32,
    /// For the limiter.
    pub outcome: SampleOutcome,
}

/// Why a request is tried again, parked, or its lane paused. Names are stable: they are stored and are metric labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// 429.
    RateLimited,
    /// 5xx.
    UpstreamError,
    /// 408, or no answer in time.
    Timeout,
    ConnectFailed,
    ConnectionBroken,
    /// The upstream says that its database failed.
    UpstreamDatabase,
    /// 2xx, but not what the dialect answers.
    UnexpectedAnswer,
    Redirected,
    /// The upstream does not know the application, or cannot find out.
    ApplicationUnknown,
    ApplicationPaused,
    ApplicationLocked,
    ChecksumRejected,
    /// The upstream says what is wrong with the request.
    InvalidRequest,
    /// Refused for another reason.
    Rejected,
    AttemptsExhausted,
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Self::RateLimited => "RateLimited",
            Self::UpstreamError => "UpstreamError",
            Self::Timeout => "Timeout",
            Self::ConnectFailed => "ConnectFailed",
            Self::ConnectionBroken => "ConnectionBroken",
            Self::UpstreamDatabase => "UpstreamDatabase",
            Self::UnexpectedAnswer => "UnexpectedAnswer",
            Self::Redirected => "Redirected",
            Self::ApplicationUnknown => "ApplicationUnknown",
            Self::ApplicationPaused => "ApplicationPaused",
            Self::ApplicationLocked => "ApplicationLocked",
            Self::ChecksumRejected => "ChecksumRejected",
            Self::InvalidRequest => "InvalidRequest",
            Self::Rejected => "Rejected",
            Self::AttemptsExhausted => "AttemptsExhausted",
        }
    }
}

/// What an answer means, before attempts are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Meaning {
    Done {
        info: String,
    },
    /// The upstream's trouble more likely than the request's.
    Overload(Reason),
    /// Perhaps the request's own fault: after `attempts` it is parked, as `parked`.
    Doubtful {
        reason: Reason,
        attempts: u32,
        parked: Reason,
        info: String,
    },
    Hopeless {
        reason: Reason,
        info: String,
    },
    Paused,
}

pub fn judge(attempt: Attempt<'_>, context: &Context) -> Judged {
    let (status, body, retry_after) = match attempt {
        Attempt::Answered {
            status,
            body,
            retry_after,
        } => {
            let wait = retry_after.and_then(|value| parse_retry_after(value, context.now_ms));
            (status, body, wait)
        }
        Attempt::TimedOut => {
            return fails(
                Reason::Timeout,
                SampleOutcome::TimedOut,
                None,
                true,
                context,
            );
        }
        Attempt::NotConnected => {
            return fails(
                Reason::ConnectFailed,
                SampleOutcome::Failed,
                None,
                false,
                context,
            );
        }
        Attempt::Broken => {
            return fails(
                Reason::ConnectionBroken,
                SampleOutcome::Failed,
                None,
                true,
                context,
            );
        }
    };
    let outcome = outcome_of(status, retry_after);
    match status {
        429 => return fails(Reason::RateLimited, outcome, retry_after, false, context),
        408 => return fails(Reason::Timeout, outcome, retry_after, true, context),
        500.. => return fails(Reason::UpstreamError, outcome, retry_after, true, context),
        _ => {}
    }
    let meaning = match context.dialect {
        Dialect::Countly => countly::meaning(status, body, context),
        Dialect::Generic => generic(status, body, context),
    };
    apply(meaning, context)
}

/// What the limiter is told of an answer by its status alone, as for proxied calls.
pub fn outcome_of(status: u16, retry_after: Option<Duration>) -> SampleOutcome {
    match status {
        200..=299 => SampleOutcome::Ok,
        429 => SampleOutcome::RateLimited { retry_after },
        408 | 503 | 504 => SampleOutcome::Overloaded { retry_after },
        500.. if retry_after.is_some() => SampleOutcome::Overloaded { retry_after },
        // A fault of the upstream, which too much to do may bring out or not.
        500.. => SampleOutcome::Erred,
        _ => SampleOutcome::Neutral,
    }
}

/// The pause before an attempt that follows `failures` in a row, counted from 1: doubled each time, and at least half of
/// it whatever `spread`, which is random in 0..1.
pub fn backoff(initial: Duration, max: Duration, failures: u32, spread: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    let full = initial.saturating_mul(1 << doublings).min(max);
    let spread = if spread.is_finite() { spread } else { 1.0 };
    full.mul_f64(0.5 + 0.5 * spread.clamp(0.0, 1.0))
}

fn generic(status: u16, body: &[u8], context: &Context) -> Meaning {
    match status {
        200..=299 => Meaning::Done {
            info: String::new(),
        },
        300..=399 => Meaning::Hopeless {
            reason: Reason::Redirected,
            info: String::new(),
        },
        // Too early: the upstream asks for the same again.
        425 => Meaning::Doubtful {
            reason: Reason::Rejected,
            attempts: context.attempts_max,
            parked: Reason::AttemptsExhausted,
            info: String::new(),
        },
        400..=499 => Meaning::Hopeless {
            reason: Reason::Rejected,
            info: shown(&String::from_utf8_lossy(head(body))),
        },
        _ => Meaning::Doubtful {
            reason: Reason::UnexpectedAnswer,
            attempts: MISROUTED_ATTEMPTS,
            parked: Reason::UnexpectedAnswer,
            info: String::new(),
        },
    }
}

fn apply(meaning: Meaning, context: &Context) -> Judged {
    match meaning {
        Meaning::Done { info } => Judged {
            verdict: Verdict::Done { info },
            attempts: context.attempts.saturating_add(1),
            outcome: SampleOutcome::Ok,
        },
        Meaning::Overload(reason) => fails(reason, SampleOutcome::Erred, None, true, context),
        Meaning::Doubtful {
            reason,
            attempts,
            parked,
            info,
        } => {
            let used = used(true, context);
            let verdict = if used >= attempts.min(context.attempts_max) {
                Verdict::Park {
                    reason: parked,
                    info,
                }
            } else {
                Verdict::Retry {
                    reason,
                    after: None,
                }
            };
            Judged {
                verdict,
                attempts: used,
                outcome: SampleOutcome::Neutral,
            }
        }
        Meaning::Hopeless { reason, info } => Judged {
            verdict: Verdict::Park { reason, info },
            attempts: context.attempts.saturating_add(1),
            outcome: SampleOutcome::Neutral,
        },
        Meaning::Paused => Judged {
            verdict: Verdict::PauseLane {
                reason: Reason::ApplicationPaused,
                probe_after: PAUSED_PROBE_AFTER,
            },
            attempts: context.attempts,
            outcome: SampleOutcome::Neutral,
        },
    }
}

/// `own`: it may be the request that makes the upstream fail.
fn fails(
    reason: Reason,
    outcome: SampleOutcome,
    after: Option<Duration>,
    own: bool,
    context: &Context,
) -> Judged {
    let used = used(own, context);
    let verdict = if used > context.attempts && used >= context.attempts_max {
        Verdict::Park {
            reason: Reason::AttemptsExhausted,
            info: reason.name().to_owned(),
        }
    } else {
        Verdict::Retry { reason, after }
    };
    Judged {
        verdict,
        attempts: used,
        outcome,
    }
}

fn used(own: bool, context: &Context) -> u32 {
    let counts = own && !context.upstream_fails;
    context.attempts.saturating_add(u32::from(counts))
}

/// Enough bytes for what is shown.
fn head(body: &[u8]) -> &[u8] {
    &body[..body.len().min(4 * INFO_CHARS_MAX)]
}

/// The beginning of what the upstream says, without line breaks and other control characters.
fn shown(text: &str) -> String {
    text.chars()
        .take(INFO_CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned()
}
