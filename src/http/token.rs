//! `POST /token` (RFC 6749 3.2, CIBA Core 10.1).

use super::client::ClientForm;
use super::error::OAuthError;
use super::{App, no_route, path};
use crate::domain::AuthReqId;
use crate::service::redeem::poll_label;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, PRAGMA};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use std::time::Duration;

/// The CIBA grant (CIBA Core 4).
pub const CIBA_GRANT: &str = "urn:openid:params:grant-type:ciba";

pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource(path::TOKEN)
            .route(web::post().to(token))
            .default_service(no_route::oauth("POST")),
    );
}

async fn token(
    app: App,
    request: HttpRequest,
    ClientForm { client, mut form }: ClientForm,
) -> Result<HttpResponse, OAuthError> {
    let grant = form
        .take("grant_type")
        .ok_or_else(|| OAuthError::invalid_request("grant_type is missing"))?;
    if grant != CIBA_GRANT {
        return Err(OAuthError::new(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            "this server supports the CIBA grant only",
        ));
    }
    let id = form
        .take("auth_req_id")
        .map(AuthReqId::new)
        .ok_or_else(|| OAuthError::invalid_request("auth_req_id is missing"))?;
    let answer = app.poll(&client, &id, preferred_wait(&request)).await;
    metrics::counter!("assent_polls_total", "answer" => poll_label(&answer)).increment(1);
    let response = answer?;
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((PRAGMA, "no-cache"))
        .content_type("application/json")
        .body(response.expose().to_owned()))
}

/// How long the client would wait: `Prefer: wait=N` in seconds (RFC 7240 4.3). A preference that cannot
/// be read is ignored, as the RFC demands.
fn preferred_wait(request: &HttpRequest) -> Option<Duration> {
    request
        .headers()
        .get_all("Prefer")
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .filter_map(|preference| preference.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))
        .and_then(|(_, seconds)| seconds.trim().parse().ok())
        .map(Duration::from_secs)
}
