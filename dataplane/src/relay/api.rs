//! placeholder until the api branch lands
use super::shared::Shared;
use bytes::Bytes;
use http_body_util::Full;
use std::sync::Arc;
pub(super) async fn handle(
    _shared: &Arc<Shared>,
    _request: http::Request<hyper::body::Incoming>,
) -> http::Response<Full<Bytes>> {
    super::http::text(http::StatusCode::NOT_FOUND, "not found")
}
