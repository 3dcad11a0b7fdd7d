//! `POST /token` (RFC 6749 3.2, CIBA Core 10.1), one function per grant.

use super::client::KnownClientForm;
use super::error::OAuthError;
use super::form::Form;
use super::{App, no_route, path};
use crate::domain::client::Grant;
use crate::domain::{AuthReqId, Secret};
use crate::service::authenticate_client::KnownClient;
use crate::service::redeem::poll_label;
use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, PRAGMA};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use std::time::Duration;

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
    KnownClientForm { client, mut form }: KnownClientForm,
) -> Result<HttpResponse, OAuthError> {
    let grant = required(&mut form, "grant_type")?;
    let grant: Grant = grant.parse().map_err(|_| {
        OAuthError::new(
            StatusCode::BAD_REQUEST,
            "unsupported_grant_type",
            "this server supports the CIBA grant, refresh_token and client_credentials",
        )
    })?;
    let response = match grant {
        Grant::Ciba => poll(&app, &request, &client, &mut form).await?,
        Grant::RefreshToken => {
            let token = Secret::new(required(&mut form, "refresh_token")?);
            app.refresh(client.confirmed()?, &token, form.take("scope").as_deref())
                .await?
        }
        Grant::ClientCredentials => {
            app.client_credentials(client.confirmed()?, form.take("scope").as_deref())
                .await?
        }
    };
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((PRAGMA, "no-cache"))
        .content_type("application/json")
        .body(response.expose().to_owned()))
}

async fn poll(
    app: &App,
    request: &HttpRequest,
    client: &KnownClient,
    form: &mut Form,
) -> Result<Secret, OAuthError> {
    let id = AuthReqId::new(required(form, "auth_req_id")?);
    let answer = app.poll(client, &id, preferred_wait(request)).await;
    metrics::counter!("assent_polls_total", "answer" => poll_label(&answer)).increment(1);
    Ok(answer?)
}

/// A parameter that must be there.
pub fn required(form: &mut Form, name: &'static str) -> Result<String, OAuthError> {
    form.take(name)
        .ok_or_else(|| OAuthError::invalid_request(format!("{name} is missing")))
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
