//! What this server offers (OpenID Connect Discovery, RFC 8414, CIBA Core 4) and the keys to its tokens.

use super::token::CIBA_GRANT;
use super::{App, no_route, path};
use crate::domain::client::{ClientAuthMethod, DeliveryMode};
use crate::domain::request::ACR_DEVICE;
use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, ServiceConfig};
use serde::Serialize;

/// How long clients may keep the documents, in seconds.
const MAX_AGE: &str = "public, max-age=300";

pub fn configure(config: &mut ServiceConfig) {
    for metadata in [
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
    ] {
        config.service(
            web::resource(metadata)
                .route(web::get().to(discovery))
                .route(web::head().to(discovery))
                .default_service(no_route::oauth("GET, HEAD")),
        );
    }
    config.service(
        web::resource(path::JWKS)
            .route(web::get().to(jwks))
            .route(web::head().to(jwks))
            .default_service(no_route::oauth("GET, HEAD")),
    );
}

#[derive(Serialize)]
struct Metadata<'a> {
    issuer: &'a str,
    token_endpoint: String,
    backchannel_authentication_endpoint: String,
    userinfo_endpoint: String,
    jwks_uri: String,
    scopes_supported: &'static [&'static str],
    response_types_supported: &'static [&'static str],
    grant_types_supported: &'static [&'static str],
    backchannel_token_delivery_modes_supported: &'static [DeliveryMode],
    backchannel_user_code_parameter_supported: bool,
    token_endpoint_auth_methods_supported: &'static [ClientAuthMethod],
    subject_types_supported: &'static [&'static str],
    id_token_signing_alg_values_supported: &'static [&'static str],
    acr_values_supported: &'static [&'static str],
    claims_supported: &'static [&'static str],
    claims_parameter_supported: bool,
    request_parameter_supported: bool,
    request_uri_parameter_supported: bool,
}

async fn discovery(app: App) -> HttpResponse {
    let issuer = app.policy.issuer.as_str();
    let endpoint = |path: &str| format!("{issuer}{path}");
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, MAX_AGE))
        .json(Metadata {
            issuer,
            token_endpoint: endpoint(path::TOKEN),
            backchannel_authentication_endpoint: endpoint(path::BACKCHANNEL),
            userinfo_endpoint: endpoint(path::USERINFO),
            jwks_uri: endpoint(path::JWKS),
            scopes_supported: &["openid", "profile"],
            response_types_supported: &[],
            grant_types_supported: &[CIBA_GRANT],
            backchannel_token_delivery_modes_supported: DeliveryMode::ALL,
            backchannel_user_code_parameter_supported: false,
            token_endpoint_auth_methods_supported: ClientAuthMethod::ALL,
            subject_types_supported: &["public"],
            id_token_signing_alg_values_supported: &["ES256"],
            acr_values_supported: &[ACR_DEVICE],
            claims_supported: &[
                "iss",
                "sub",
                "aud",
                "exp",
                "iat",
                "auth_time",
                "acr",
                "amr",
                "name",
                "preferred_username",
            ],
            claims_parameter_supported: false,
            request_parameter_supported: false,
            request_uri_parameter_supported: false,
        })
}

async fn jwks(app: App) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, MAX_AGE))
        .json(app.keys.token_jwks())
}
