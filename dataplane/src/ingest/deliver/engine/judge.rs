//! What the end of an attempt means: for its entry, and for the limits of the upstream.

use std::time::Duration;

use http::StatusCode;

use super::attempt::{End, Reply};
use crate::ingest::limiter::SampleOutcome;

pub(super) enum Judgement {
    Done {
        reason: &'static str,
    },
    Park {
        reason: &'static str,
    },
    Retry {
        reason: &'static str,
        uses_attempt: bool,
    },
    /// The upstream does not take the application's requests for now.
    PauseLane {
        reason: &'static str,
    },
}

pub(super) fn judge(end: &End) -> (Judgement, SampleOutcome, &'static str) {
    let retry = |reason, uses_attempt| Judgement::Retry {
        reason,
        uses_attempt,
    };
    match end {
        End::Answer(reply) if reply.status.is_success() => {
            (Judgement::Done { reason: "" }, SampleOutcome::Ok, "ok")
        }
        End::Answer(reply) if reply.status == StatusCode::TOO_MANY_REQUESTS => (
            retry("RateLimited", false),
            SampleOutcome::RateLimited { retry_after: None },
            "rate_limited",
        ),
        End::Answer(reply) if reply.status.is_server_error() => (
            retry("Overloaded", true),
            SampleOutcome::Overloaded { retry_after: None },
            "overloaded",
        ),
        End::Answer(_) => (
            Judgement::Park { reason: "Refused" },
            SampleOutcome::Neutral,
            "refused",
        ),
        End::NotConnected => (
            retry("NotConnected", false),
            SampleOutcome::Failed,
            "failed",
        ),
        End::Broken => (
            retry("ConnectionBroke", true),
            SampleOutcome::Failed,
            "failed",
        ),
        End::TimedOut => (retry("Timeout", true), SampleOutcome::TimedOut, "timed_out"),
        End::Unsendable(reason) => (
            Judgement::Park { reason },
            SampleOutcome::Abandoned,
            "unsendable",
        ),
    }
}
