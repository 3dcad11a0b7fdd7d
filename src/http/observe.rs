//! Every request gets an id, a span, a count and a duration.

use super::App;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::ConnectionType;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use tracing::Instrument as _;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Wraps every request. The id is ours, never the caller's, so that it cannot be used to forge log lines.
pub async fn observe<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    let Some(app) = request.app_data::<App>().cloned() else {
        return next.call(request).await;
    };
    let id = app.random_id();
    let route = request.match_pattern().unwrap_or_else(|| "none".into());
    let method = method_label(request.method().as_str());
    let span = tracing::info_span!("request", id, method, route);
    let started = app.clock.now();
    let mut response = next.call(request).instrument(span.clone()).await?;
    if app.draining.is_cancelled() {
        // Else the client sends its next request over a connection that is about to end.
        let head = response.response_mut().head_mut();
        head.set_connection_type(ConnectionType::Close);
    }
    let status = response.status();
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID.clone(), value);
    }
    let took = app.clock.now().since(started);
    metrics::counter!(
        "assent_http_requests_total",
        "route" => route.clone(),
        "method" => method,
        "status" => status.as_str().to_owned()
    )
    .increment(1);
    metrics::histogram!("assent_http_request_seconds", "route" => route).record(took.as_secs_f64());
    span.in_scope(|| {
        tracing::debug!(
            status = status.as_u16(),
            ms = took.as_millis() as u64,
            "answered"
        )
    });
    Ok(response)
}

/// A label that a caller cannot make up.
fn method_label(method: &str) -> &'static str {
    match method {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}
