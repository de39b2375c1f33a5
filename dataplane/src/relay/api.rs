//! placeholder until the api branch lands
use std::sync::Arc;
use bytes::Bytes;
use http_body_util::Full;
use super::shared::Shared;
pub(super) async fn handle(_shared: &Arc<Shared>, _request: http::Request<hyper::body::Incoming>) -> http::Response<Full<Bytes>> {
    super::http::text(http::StatusCode::NOT_FOUND, "not found")
}
