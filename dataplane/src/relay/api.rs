//! The server API: `POST /api/<method>` with a key, for the operator's backends.
//!
//! Requests and answers have Centrifugo's names and shapes; `account` chooses whose channels and users are meant.
//! This file is the HTTP around it: key, body, statuses. `request` parses, `message` and `orders` decide, `execute`
//! carries out, `answer` writes JSON. It owns nothing but the space for request bodies. Overload and draining never
//! refuse a request; a publish may wait a bounded time for a congested channel.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method as HttpMethod, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Body;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time;

use self::answer::{Answer, ApiError};
use self::execute::Executor;
use self::request::{Batch, Command, Malformed, Method, OldCommand};
use super::http::text;
use super::limits::{API_BODY_BYTES_MAX, API_BODY_DEADLINE};
use super::shared::Shared;

mod answer;
mod execute;
mod key;
mod message;
mod orders;
mod pattern;
mod request;
#[cfg(test)]
pub(super) mod tests;

/// Asks for errors as HTTP statuses.
const ERROR_MODE_HEADER: &str = "x-centrifugo-error-mode";
const ERROR_MODE_TRANSPORT: &[u8] = b"transport";
/// Bodies of requests that are worked on, over all connections of the process; further requests wait.
const BODIES_BYTES_MAX: usize = 128 * 1024 * 1024;
const BODY_UNIT_BYTES: usize = 1024;
static BODY_SPACE: Semaphore = Semaphore::const_new(BODIES_BYTES_MAX / BODY_UNIT_BYTES);

/// What the path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    One(Method),
    Batch,
    /// `/api` itself: commands that name their methods.
    Old,
}

fn route(path: &str) -> Option<Route> {
    match path.strip_prefix("/api")? {
        "" | "/" => Some(Route::Old),
        "/batch" => Some(Route::Batch),
        method => Method::named(method.strip_prefix('/')?).map(Route::One),
    }
}

pub(super) async fn handle<B>(shared: &Arc<Shared>, request: Request<B>) -> Response<Full<Bytes>>
where
    B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    if request.method() != HttpMethod::POST {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "use POST");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    let config = shared.config();
    if !key::is_right(
        config.relay.server_api_key.as_ref(),
        request.headers(),
        request.uri().query(),
    ) {
        return text(StatusCode::UNAUTHORIZED, "missing or wrong API key");
    }
    let errors_as_status = request
        .headers()
        .get(ERROR_MODE_HEADER)
        .is_some_and(|mode| mode.as_bytes() == ERROR_MODE_TRANSPORT);
    let Some(route) = route(request.uri().path()) else {
        return json(
            StatusCode::NOT_FOUND,
            error_body(ApiError::NotFound, errors_as_status),
        );
    };
    let (body, _space) = match read_body(request.into_body()).await {
        Ok(read) => read,
        Err(problem) => return problem,
    };
    let executor = Executor::new(shared);
    match serve(&executor, route, &body).await {
        Ok(Served::Whole(body)) => json(StatusCode::OK, body),
        Ok(Served::One(Err(error))) if errors_as_status => {
            json(error.status(), error_body(error, true))
        }
        Ok(Served::One(answer)) => json(StatusCode::OK, answer::response(&answer)),
        Err(malformed) => {
            tracing::debug!(%malformed, "server API request refused");
            text(StatusCode::BAD_REQUEST, "bad request")
        }
    }
}

/// Carries out what another process asks for; `None`: nothing that this one knows.
pub(super) async fn carry_out_here(
    shared: &Arc<Shared>,
    method: &str,
    params: &str,
) -> Option<String> {
    let command = Command::parse(Method::named(method)?, params.as_bytes()).ok()?;
    let answer = Executor::new(shared).command_here(command).await?;
    // What is wrong with the command was told by the process that was asked first.
    Some(answer.unwrap_or_else(|_| answer::NOTHING.to_owned()))
}

enum Served {
    One(Answer),
    /// A body with answers of its own, not wrapped in `result`.
    Whole(String),
}

async fn serve(executor: &Executor<'_>, route: Route, body: &[u8]) -> Result<Served, Malformed> {
    Ok(match route {
        Route::One(method) => Served::One(executor.command(Command::parse(method, body)?).await),
        Route::Batch => Served::Whole(executor.batch(Batch::parse(body)?).await),
        Route::Old => {
            let mut replies = Vec::new();
            for OldCommand { id, command } in OldCommand::parse_all(body)? {
                let answer = match command {
                    Ok(command) => executor.command(command).await,
                    Err(error) => Err(error),
                };
                replies.push(answer::old_response(id, &answer));
            }
            Served::Whole(replies.join("\n"))
        }
    })
}

/// The body and its share of the space for bodies, to be held while the body is in use.
async fn read_body<B>(body: B) -> Result<(Bytes, SemaphorePermit<'static>), Response<Full<Bytes>>>
where
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>>,
{
    let declared = body
        .size_hint()
        .upper()
        .map_or(API_BODY_BYTES_MAX, |bytes| {
            usize::try_from(bytes).unwrap_or(usize::MAX)
        });
    if declared > API_BODY_BYTES_MAX {
        return Err(too_large());
    }
    let units = u32::try_from(declared.div_ceil(BODY_UNIT_BYTES)).unwrap_or(u32::MAX);
    let space = BODY_SPACE
        .acquire_many(units)
        .await
        .expect("the semaphore is never closed");
    let collected = time::timeout(
        API_BODY_DEADLINE,
        Limited::new(body, API_BODY_BYTES_MAX).collect(),
    )
    .await;
    match collected {
        Ok(Ok(collected)) => Ok((collected.to_bytes(), space)),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(text(StatusCode::BAD_REQUEST, "body not readable")),
        Err(_) => Err(text(StatusCode::REQUEST_TIMEOUT, "body too slow")),
    }
}

fn too_large() -> Response<Full<Bytes>> {
    text(StatusCode::PAYLOAD_TOO_LARGE, "body too large")
}

fn error_body(error: ApiError, errors_as_status: bool) -> String {
    if errors_as_status {
        error.json()
    } else {
        answer::response(&Err(error))
    }
}

fn json(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
