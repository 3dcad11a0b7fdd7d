//! The extractor that proves a device, over exactly the request it came with.

use super::App;
use super::form::{BodyError, has_content_type, read_body};
use super::problem::Problem;
use crate::domain::strict_json;
use crate::service::authenticate_device::{AuthenticatedDevice, ProvenRequest};
use actix_web::dev::Payload as DevPayload;
use actix_web::http::StatusCode;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, web};
use serde::de::DeserializeOwned;
use std::future::Future;
use std::pin::Pin;

/// Carries the nonce for a device whose clock is wrong.
pub const NONCE_HEADER: &str = "Device-Nonce";
/// The largest JSON body that is read, in bytes.
const MAX_JSON: usize = 256 * 1024;

/// A device that proved this very request, and the request's body.
pub struct ProvenDevice {
    pub device: AuthenticatedDevice,
    pub body: web::Bytes,
}

impl FromRequest for ProvenDevice {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut DevPayload) -> Self::Future {
        let request = request.clone();
        let payload = web::Payload::from_request(&request, payload).into_inner();
        Box::pin(async move {
            let body = read_json_body(&request, payload).await?;
            let proof = proof(&request)?;
            let app = request
                .app_data::<App>()
                .ok_or_else(Problem::proof_missing)?;
            let proven = ProvenRequest {
                method: request.method().as_str(),
                path: request
                    .uri()
                    .path_and_query()
                    .map_or("", |path| path.as_str()),
                body: &body,
            };
            let device = app.authenticate_device(proof, proven).await?;
            Ok(Self { device, body })
        })
    }
}

/// The proof in `Authorization: DeviceProof <JWT>`.
fn proof(request: &HttpRequest) -> Result<&str, Problem> {
    let mut headers = request.headers().get_all(AUTHORIZATION);
    let (Some(value), None) = (headers.next(), headers.next()) else {
        return Err(Problem::proof_missing());
    };
    match value.to_str().unwrap_or_default().split_once(' ') {
        Some((scheme, proof)) if scheme.eq_ignore_ascii_case("DeviceProof") => Ok(proof),
        _ => Err(Problem::proof_missing()),
    }
}

async fn read_json_body(
    request: &HttpRequest,
    payload: Result<web::Payload, actix_web::Error>,
) -> Result<web::Bytes, Problem> {
    let payload = payload.map_err(|_| Problem::bad_request("the body could not be read"))?;
    read_body(request, payload, MAX_JSON)
        .await
        .map_err(|error| match error {
            BodyError::TooLarge => Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "payload_too_large",
                "the body is larger than 256 KiB",
            ),
            BodyError::TooSlow => Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "request_timeout",
                "the body did not arrive in time",
            ),
            BodyError::Broken => Problem::bad_request("the body could not be read"),
            BodyError::TooBusy => Problem::unavailable(),
        })
}

/// Reads a JSON body without members we do not know, or that stand twice.
pub fn json<T: DeserializeOwned>(request: &HttpRequest, body: &[u8]) -> Result<T, Problem> {
    if !has_content_type(request, "application/json") {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "the content type must be application/json",
        ));
    }
    // The position helps a developer; the text could repeat what was sent.
    let invalid = |line, column| {
        Problem::new(
            StatusCode::BAD_REQUEST,
            "invalid_json",
            "the body is not the expected JSON object",
        )
        .because(format_args!("line {line}, column {column}"))
    };
    let at = |error: serde_json::Error| invalid(error.line(), error.column());
    // An array of the members' values would do for a derived reader.
    if !strict_json::parse(body).map_err(at)?.is_object() {
        return Err(invalid(1, 1));
    }
    serde_json::from_slice(body).map_err(at)
}

/// A JSON body from somebody who has no proof yet.
pub struct JsonBody(pub web::Bytes);

impl FromRequest for JsonBody {
    type Error = Problem;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Problem>>>>;

    fn from_request(request: &HttpRequest, payload: &mut DevPayload) -> Self::Future {
        let request = request.clone();
        let payload = web::Payload::from_request(&request, payload).into_inner();
        Box::pin(async move { read_json_body(&request, payload).await.map(Self) })
    }
}
