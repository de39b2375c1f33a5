//! What the end of an attempt means: `verdict` knows answers and failures, the rest was never sent.

use http::header::RETRY_AFTER;

use super::attempt::End;
use crate::ingest::limiter::SampleOutcome;
use crate::ingest::verdict::{self, Attempt, Context, Judged};

/// `None`: it was not sent and cannot be.
pub(super) fn judge(end: &End, context: &Context) -> Option<Judged> {
    let attempt = match end {
        End::Answer(reply) => Attempt::Answered {
            status: reply.status.as_u16(),
            body: &reply.body,
            retry_after: reply.headers.get(RETRY_AFTER).map(|value| value.as_bytes()),
        },
        End::NotConnected => Attempt::NotConnected,
        End::Broken => Attempt::Broken,
        End::TimedOut => Attempt::TimedOut,
        End::Unsendable(_) => return None,
    };
    Some(verdict::judge(attempt, context))
}

/// Whether it speaks for an outage or against it; `None`: neither.
pub(super) fn fails(outcome: SampleOutcome) -> Option<bool> {
    match outcome {
        SampleOutcome::Ok | SampleOutcome::Neutral => Some(false),
        SampleOutcome::RateLimited { .. }
        | SampleOutcome::Overloaded { .. }
        | SampleOutcome::TimedOut
        | SampleOutcome::Erred
        | SampleOutcome::Failed => Some(true),
        SampleOutcome::Abandoned => None,
    }
}

/// An outcome's name in metrics.
pub(super) fn name(outcome: SampleOutcome) -> &'static str {
    match outcome {
        SampleOutcome::Ok => "Ok",
        SampleOutcome::RateLimited { .. } => "RateLimited",
        SampleOutcome::Overloaded { .. } => "Overloaded",
        SampleOutcome::TimedOut => "TimedOut",
        SampleOutcome::Erred => "Erred",
        SampleOutcome::Failed => "Failed",
        SampleOutcome::Neutral => "Rejected",
        SampleOutcome::Abandoned => "Abandoned",
    }
}
