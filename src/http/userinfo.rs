//! `GET` and `POST /userinfo` (OpenID Connect Core 5.3).

use super::error::OAuthError;
use super::{App, no_route, path};
use actix_web::http::header::{AUTHORIZATION, CACHE_CONTROL};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};

pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource(path::USERINFO)
            .route(web::get().to(userinfo))
            .route(web::post().to(userinfo))
            .default_service(no_route::oauth("GET, POST")),
    );
}

async fn userinfo(app: App, request: HttpRequest) -> Result<HttpResponse, OAuthError> {
    let info = app.userinfo(bearer(&request)?).await?;
    Ok(HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .json(info))
}

/// The token in the Authorization header (RFC 6750 2.1), the only place we take one from.
fn bearer(request: &HttpRequest) -> Result<&str, OAuthError> {
    let mut headers = request.headers().get_all(AUTHORIZATION);
    let value = headers.next().ok_or_else(OAuthError::bearer_missing)?;
    if headers.next().is_some() {
        return Err(OAuthError::invalid_request(
            "there is more than one Authorization header",
        ));
    }
    match value.to_str().unwrap_or_default().split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("Bearer") => Ok(token.trim()),
        _ => Err(OAuthError::bearer_missing()),
    }
}
