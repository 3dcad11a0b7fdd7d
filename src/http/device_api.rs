//! The phone's side: inbox, challenge, decision, and the upkeep of devices.

use super::device_proof::{ProvenDevice, json};
use super::enrolment::{check_app_id, check_push_target, check_text};
use super::problem::Problem;
use super::{App, no_route};
use crate::domain::device::{DeviceDescription, DeviceState, Platform};
use crate::domain::{Decision, Device, DeviceId, RequestId};
use crate::service::decide::{Answer, DecideError, InboxItem};
use crate::service::devices::Actor;
use actix_web::http::StatusCode;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use serde::{Deserialize, Deserializer, Serialize};

pub fn configure(config: &mut ServiceConfig) {
    config
        .service(
            web::resource("/device/v1/requests")
                .route(web::get().to(inbox))
                .default_service(no_route::device("GET")),
        )
        .service(
            web::resource("/device/v1/requests/{id}")
                .route(web::get().to(challenge))
                .default_service(no_route::device("GET")),
        )
        .service(
            web::resource("/device/v1/requests/{id}/decision")
                .route(web::post().to(decide))
                .default_service(no_route::device("POST")),
        )
        .service(
            web::resource("/device/v1/device")
                .route(web::get().to(device))
                .route(web::patch().to(describe))
                .route(web::delete().to(revoke_self))
                .default_service(no_route::device("GET, PATCH, DELETE")),
        )
        .service(
            web::resource("/device/v1/push-target")
                .route(web::put().to(set_push_target))
                .default_service(no_route::device("PUT")),
        )
        .service(
            web::resource("/device/v1/devices")
                .route(web::get().to(devices))
                .default_service(no_route::device("GET")),
        )
        .service(
            web::resource("/device/v1/devices/{id}")
                .route(web::delete().to(revoke))
                .default_service(no_route::device("DELETE")),
        );
}

fn ok(body: impl Serialize) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(body)
}

fn no_content() -> HttpResponse {
    HttpResponse::NoContent()
        .insert_header((CACHE_CONTROL, "no-store"))
        .finish()
}

#[derive(Serialize)]
struct Inbox {
    requests: Vec<InboxEntry>,
}

#[derive(Serialize)]
pub struct InboxEntry {
    id: RequestId,
    created_at: i64,
    expires_at: i64,
}

impl From<InboxItem> for InboxEntry {
    fn from(item: InboxItem) -> Self {
        Self {
            id: item.id,
            created_at: item.created_at.secs(),
            expires_at: item.expires_at.secs(),
        }
    }
}

async fn inbox(app: App, proven: ProvenDevice) -> Result<HttpResponse, Problem> {
    let requests = app.inbox(&proven.device).await?;
    let requests = requests.into_iter().map(InboxEntry::from).collect();
    Ok(ok(Inbox { requests }))
}

#[derive(Serialize)]
struct ChallengeBody {
    id: RequestId,
    challenge: String,
}

async fn challenge(
    app: App,
    proven: ProvenDevice,
    id: Path<String>,
) -> Result<HttpResponse, Problem> {
    let id = request_id(&id)?;
    let challenge = app.challenge(&proven.device, id).await?;
    Ok(ok(ChallengeBody { id, challenge }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecisionBody {
    challenge: String,
    approval: String,
}

#[derive(Serialize)]
struct Decided {
    id: RequestId,
    decision: Decision,
}

async fn decide(
    app: App,
    request: HttpRequest,
    proven: ProvenDevice,
    id: Path<String>,
) -> Result<HttpResponse, Problem> {
    let id = request_id(&id)?;
    let sent: DecisionBody = json(&request, &proven.body)?;
    let answer = Answer {
        challenge: sent.challenge,
        approval: sent.approval,
    };
    let decision = app.decide(&proven.device, id, &answer).await?;
    Ok(ok(Decided { id, decision }))
}

/// The id in a path; anything that is not an id is not there.
fn request_id(text: &str) -> Result<RequestId, Problem> {
    RequestId::parse(text).ok_or_else(|| DecideError::NotFound.into())
}

#[derive(Serialize)]
struct DeviceBody<'a> {
    device_id: &'a DeviceId,
    state: DeviceState,
    #[serde(flatten)]
    description: &'a DeviceDescription,
    created_at: i64,
    /// Whether it should register where it is woken: its target is gone.
    needs_push_refresh: bool,
    /// Whether it is the one that asks.
    current: bool,
}

impl<'a> DeviceBody<'a> {
    fn new(device: &'a Device, asking: &DeviceId) -> Self {
        Self {
            device_id: &device.id,
            state: device.state,
            description: &device.description,
            created_at: device.created_at.secs(),
            needs_push_refresh: device.needs_push_refresh(),
            current: device.id == *asking,
        }
    }
}

async fn device(ProvenDevice { device, .. }: ProvenDevice) -> HttpResponse {
    ok(DeviceBody::new(&device, &device.id))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    label: Option<String>,
    app_version: Option<String>,
    os_version: Option<String>,
}

async fn describe(
    app: App,
    request: HttpRequest,
    ProvenDevice { device, body }: ProvenDevice,
) -> Result<HttpResponse, Problem> {
    let sent: Description = json(&request, &body)?;
    let mut changed = Device::clone(&device);
    let description = &mut changed.description;
    if let Some(label) = sent.label {
        description.label = check_text("label", label)?;
    }
    if let Some(version) = sent.app_version {
        description.app_version = check_text("app_version", version)?;
    }
    if let Some(version) = sent.os_version {
        description.os_version = check_text("os_version", version)?;
    }
    app.describe_device(&device, description).await?;
    Ok(ok(DeviceBody::new(&changed, &device.id)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PushTarget {
    platform: Platform,
    /// `null`: do not push.
    push_target: Option<String>,
    /// Absent: as it is; `null`: none.
    #[serde(default, deserialize_with = "present")]
    app_id: Option<Option<String>>,
}

/// Tells a member that is `null` from one that is absent.
fn present<'de, D: Deserializer<'de>>(member: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(member).map(Some)
}

async fn set_push_target(
    app: App,
    request: HttpRequest,
    ProvenDevice { device, body }: ProvenDevice,
) -> Result<HttpResponse, Problem> {
    let sent: PushTarget = json(&request, &body)?;
    let target = sent
        .push_target
        .map(|target| check_push_target(sent.platform, target))
        .transpose()?;
    let app_id = match sent.app_id {
        None => device.app_id.clone(),
        Some(app_id) => app_id.map(check_app_id).transpose()?,
    };
    app.set_push_target(&device, sent.platform, target.as_ref(), app_id.as_ref())
        .await?;
    Ok(no_content())
}

#[derive(Serialize)]
struct Devices<'a> {
    devices: Vec<DeviceBody<'a>>,
}

async fn devices(
    app: App,
    ProvenDevice { device, .. }: ProvenDevice,
) -> Result<HttpResponse, Problem> {
    let siblings = app.sibling_devices(&device).await?;
    let devices = siblings
        .iter()
        .map(|sibling| DeviceBody::new(sibling, &device.id))
        .collect();
    Ok(ok(Devices { devices }))
}

async fn revoke_self(
    app: App,
    ProvenDevice { device, .. }: ProvenDevice,
) -> Result<HttpResponse, Problem> {
    app.revoke_device(&device, Actor::Owner).await?;
    Ok(no_content())
}

async fn revoke(
    app: App,
    ProvenDevice { device, .. }: ProvenDevice,
    id: Path<String>,
) -> Result<HttpResponse, Problem> {
    let not_found = || {
        Problem::new(
            StatusCode::NOT_FOUND,
            "device_not_found",
            "you have no such device",
        )
    };
    let target = DeviceId::parse(&id).ok_or_else(not_found)?;
    if app.revoke_own_device(&device, &target).await? {
        Ok(no_content())
    } else {
        Err(not_found())
    }
}
