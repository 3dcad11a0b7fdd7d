//! `GET /enrol`, where an enrolment link leads without an app, and `POST /device/v1/enrolments`.

use super::device_proof::{JsonBody, json};
use super::problem::Problem;
use super::{App, no_route};
use crate::domain::binding_message::is_showable;
use crate::domain::device::{DeviceDescription, DeviceState, Platform};
use crate::domain::{AppId, DeviceId, Secret};
use crate::service::enrol::EnrolmentRequest;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, REFERRER_POLICY};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Serialize};

/// The most characters of a label or version.
const MAX_TEXT: usize = 64;
/// The most bytes of a push target: a Web Push subscription is the longest kind.
const MAX_PUSH_TARGET: usize = 4096;

pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource("/enrol")
            .route(web::get().to(landing_page))
            .route(web::head().to(landing_page))
            .default_service(no_route::device("GET, HEAD")),
    );
    config.service(
        web::resource("/device/v1/enrolments")
            .route(web::post().to(enrol))
            .default_service(no_route::device("POST")),
    );
}

/// The code is in the fragment, which no browser sends: this page never sees it.
async fn landing_page() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .insert_header((CONTENT_SECURITY_POLICY, "default-src 'none'"))
        .content_type("text/html; charset=utf-8")
        .body(include_str!("enrol.html"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Enrolment {
    code: String,
    jwk: serde_json::Value,
    platform: Platform,
    push_target: Option<String>,
    app_id: Option<String>,
    label: String,
    app_version: String,
    os_version: String,
    proof: String,
}

#[derive(Serialize)]
struct Enrolled<'a> {
    device_id: &'a DeviceId,
    state: DeviceState,
    issuer: &'a str,
    /// To be pinned: every challenge must verify with one of them.
    challenge_keys: serde_json::Value,
    /// Seconds since the epoch, so that an app can see its clock is off.
    time: i64,
}

async fn enrol(
    app: App,
    request: HttpRequest,
    JsonBody(body): JsonBody,
) -> Result<HttpResponse, Problem> {
    let sent: Enrolment = json(&request, &body)?;
    let push_target = sent
        .push_target
        .map(|target| check_push_target(sent.platform, target))
        .transpose()?;
    let app_id = sent.app_id.map(check_app_id).transpose()?;
    let device = app
        .enrol(&EnrolmentRequest {
            code: Secret::new(sent.code),
            jwk: sent.jwk,
            description: DeviceDescription {
                label: check_text("label", sent.label)?,
                platform: sent.platform,
                app_version: check_text("app_version", sent.app_version)?,
                os_version: check_text("os_version", sent.os_version)?,
            },
            push_target,
            app_id,
            proof: sent.proof,
        })
        .await?;
    Ok(HttpResponse::Created()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(Enrolled {
            device_id: &device.id,
            state: device.state,
            issuer: &app.policy.issuer,
            challenge_keys: app.keys.challenge_jwks(),
            time: app.clock.now().secs(),
        }))
}

/// A text a person may see: short, on one line, with nothing that hides or turns text around.
pub fn check_text(name: &'static str, text: String) -> Result<String, Problem> {
    let length = text.chars().count();
    if (1..=MAX_TEXT).contains(&length) && text.chars().all(is_showable) {
        return Ok(text);
    }
    Err(Problem::bad_request(format!(
        "{name} must have 1 to 64 characters, none a control or invisible one"
    )))
}

pub fn check_app_id(text: String) -> Result<AppId, Problem> {
    AppId::parse(&text)
        .ok_or_else(|| Problem::bad_request("app_id must have 1 to 255 visible ASCII characters"))
}

/// A push target, for a platform that has any.
pub fn check_push_target(platform: Platform, target: String) -> Result<Secret, Problem> {
    let good = platform != Platform::None
        && (1..=MAX_PUSH_TARGET).contains(&target.len())
        && !target.chars().any(char::is_control);
    if good {
        return Ok(Secret::new(target));
    }
    Err(Problem::bad_request(
        "push_target must fit the platform and have 1 to 4096 bytes",
    ))
}
