//! What this server offers (OpenID Connect Discovery, RFC 8414, CIBA Core 4) and the keys to its tokens.

use super::{App, no_route, path};
use crate::domain::SignatureAlgorithm;
use crate::domain::client::{ClientAuthMethod, DeliveryMode, Grant};
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
    introspection_endpoint: String,
    revocation_endpoint: String,
    jwks_uri: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    backchannel_cancellation_endpoint: Option<String>,
    scopes_supported: &'static [&'static str],
    response_types_supported: &'static [&'static str],
    grant_types_supported: &'static [Grant],
    backchannel_token_delivery_modes_supported: &'static [DeliveryMode],
    backchannel_user_code_parameter_supported: bool,
    token_endpoint_auth_methods_supported: &'static [ClientAuthMethod],
    token_endpoint_auth_signing_alg_values_supported: &'static [SignatureAlgorithm],
    introspection_endpoint_auth_methods_supported: &'static [ClientAuthMethod],
    introspection_endpoint_auth_signing_alg_values_supported: &'static [SignatureAlgorithm],
    revocation_endpoint_auth_methods_supported: &'static [ClientAuthMethod],
    revocation_endpoint_auth_signing_alg_values_supported: &'static [SignatureAlgorithm],
    subject_types_supported: &'static [&'static str],
    id_token_signing_alg_values_supported: Vec<SignatureAlgorithm>,
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
            introspection_endpoint: endpoint(path::INTROSPECT),
            revocation_endpoint: endpoint(path::REVOKE),
            jwks_uri: endpoint(path::JWKS),
            backchannel_cancellation_endpoint: app
                .policy
                .cancel_endpoint
                .then(|| endpoint(path::CANCEL)),
            scopes_supported: &["openid", "profile"],
            response_types_supported: &[],
            grant_types_supported: Grant::ALL,
            backchannel_token_delivery_modes_supported: DeliveryMode::ALL,
            backchannel_user_code_parameter_supported: true,
            token_endpoint_auth_methods_supported: ClientAuthMethod::ALL,
            token_endpoint_auth_signing_alg_values_supported: SignatureAlgorithm::ALL,
            introspection_endpoint_auth_methods_supported: ClientAuthMethod::ALL,
            introspection_endpoint_auth_signing_alg_values_supported: SignatureAlgorithm::ALL,
            revocation_endpoint_auth_methods_supported: ClientAuthMethod::ALL,
            revocation_endpoint_auth_signing_alg_values_supported: SignatureAlgorithm::ALL,

            subject_types_supported: &["public", "pairwise"],
            // Only what there is a key for.
            id_token_signing_alg_values_supported: SignatureAlgorithm::ALL
                .iter()
                .copied()
                .filter(|algorithm| app.keys.can_sign_tokens(*algorithm))
                .collect(),
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
