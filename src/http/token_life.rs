//! `POST /introspect` (RFC 7662) and `POST /revoke` (RFC 7009).

use super::client::ClientForm;
use super::error::OAuthError;
use super::token::required;
use super::{App, no_route, path};
use crate::domain::Secret;
use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, ServiceConfig};

pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource(path::INTROSPECT)
            .route(web::post().to(introspect))
            .default_service(no_route::oauth("POST")),
    );
    config.service(
        web::resource(path::REVOKE)
            .route(web::post().to(revoke))
            .default_service(no_route::oauth("POST")),
    );
}

// `token_type_hint` is not read: a token's own beginning says what it is.

async fn introspect(
    app: App,
    ClientForm { client, mut form }: ClientForm,
) -> Result<HttpResponse, OAuthError> {
    let token = Secret::new(required(&mut form, "token")?);
    let introspection = app.introspect(&client, &token).await?;
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(introspection))
}

async fn revoke(
    app: App,
    ClientForm { client, mut form }: ClientForm,
) -> Result<HttpResponse, OAuthError> {
    let token = Secret::new(required(&mut form, "token")?);
    app.revoke(&client, &token).await?;
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .finish())
}
