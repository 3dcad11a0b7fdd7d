//! `POST /bc-cancel`: a client withdraws its own request. An extension, offered where an operator says so.

use super::client::ClientForm;
use super::error::OAuthError;
use super::token::required;
use super::{App, no_route, path};
use crate::domain::AuthReqId;
use actix_web::HttpResponse;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::web::{self, ServiceConfig};

pub fn configure(config: &mut ServiceConfig) {
    config.service(
        web::resource(path::CANCEL)
            .route(web::post().to(cancel))
            .default_service(no_route::oauth("POST")),
    );
}

async fn cancel(
    app: App,
    ClientForm { client, mut form }: ClientForm,
) -> Result<HttpResponse, OAuthError> {
    let id = AuthReqId::new(required(&mut form, "auth_req_id")?);
    app.cancel_own(&client, &id).await?;
    Ok(HttpResponse::NoContent()
        .insert_header((CACHE_CONTROL, "no-store"))
        .finish())
}
