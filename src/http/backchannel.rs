//! `POST /bc-authorize`: the backchannel authentication endpoint (CIBA Core 7).

use super::client::ClientForm;
use super::error::OAuthError;
use super::{App, no_route, path};
use crate::domain::Secret;
use crate::service::start::{AuthenticationRequest, Idempotency};
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource(path::BACKCHANNEL)
            .route(web::post().to(authorize))
            .default_service(no_route::oauth("POST")),
    );
}

/// The acknowledgement (CIBA Core 7.3).
#[derive(Serialize)]
struct Acknowledged<'a> {
    auth_req_id: &'a str,
    expires_in: u64,
    interval: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    matching_code: Option<String>,
}

async fn authorize(
    app: App,
    request: HttpRequest,
    ClientForm { client, mut form }: ClientForm,
) -> Result<HttpResponse, OAuthError> {
    let idempotency = idempotency_key(&request)?.map(|key| Idempotency {
        key,
        parameters: form.canonical(),
    });
    let request = AuthenticationRequest {
        scope: form.take("scope"),
        login_hint: form.take("login_hint"),
        login_hint_token: form.take("login_hint_token"),
        id_token_hint: form.take("id_token_hint"),
        binding_message: form.take("binding_message"),
        acr_values: form.take("acr_values"),
        requested_expiry: form.take("requested_expiry"),
        client_notification_token: form.take("client_notification_token").map(Secret::new),
        user_code: form.take("user_code"),
        authorization_details: form.take("authorization_details"),
        request: form.take("request"),
        request_uri: form.take("request_uri"),
        idempotency,
    };
    let acknowledgement = app.start(&client, &request).await;
    let outcome = if acknowledgement.is_ok() {
        "accepted"
    } else {
        "refused"
    };
    metrics::counter!("assent_requests_total", "outcome" => outcome).increment(1);
    let acknowledgement = acknowledgement?;
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(Acknowledged {
            auth_req_id: acknowledgement.auth_req_id.expose(),
            // Positive also when a replay comes in the last second of the request's life.
            expires_in: acknowledgement.expires_in.as_secs().max(1),
            interval: acknowledgement.interval.as_secs(),
            matching_code: acknowledgement.matching_code,
        }))
}

/// The `Idempotency-Key`: 1 to 255 visible ASCII characters, once.
fn idempotency_key(request: &HttpRequest) -> Result<Option<String>, OAuthError> {
    let mut headers = request.headers().get_all(IDEMPOTENCY_KEY);
    let Some(value) = headers.next() else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default();
    let good = (1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    if !good || headers.next().is_some() {
        return Err(OAuthError::invalid_request(
            "Idempotency-Key must be one header of 1 to 255 visible ASCII characters",
        ));
    }
    Ok(Some(key.to_owned()))
}
