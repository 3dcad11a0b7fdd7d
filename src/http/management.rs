//! For operators, on a listener of its own: is it alive, can it serve, what does it count?

use super::no_route;
use actix_web::HttpResponse;
use actix_web::web::{self, Data, ServiceConfig};
use async_trait::async_trait;
use std::sync::Arc;

/// Tells whether the server can do its work.
#[async_trait]
pub trait Readiness: Send + Sync {
    /// `None`: ready; else what is missing.
    async fn missing(&self) -> Option<&'static str>;

    /// All metrics as Prometheus text.
    fn metrics(&self) -> String;
}

pub fn management(config: &mut ServiceConfig) {
    config
        .service(web::resource("/livez").route(web::get().to(livez)))
        .service(web::resource("/readyz").route(web::get().to(readyz)))
        .service(web::resource("/metrics").route(web::get().to(metrics)))
        .default_service(web::route().to(no_route::not_found));
}

async fn livez() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain")
        .body("alive\n")
}

async fn readyz(readiness: Data<Arc<dyn Readiness>>) -> HttpResponse {
    match readiness.missing().await {
        None => HttpResponse::Ok()
            .content_type("text/plain")
            .body("ready\n"),
        Some(what) => HttpResponse::ServiceUnavailable()
            .content_type("text/plain")
            .body(format!("{what}\n")),
    }
}

async fn metrics(readiness: Data<Arc<dyn Readiness>>) -> HttpResponse {
    HttpResponse::Ok()
        .content_type("text/plain; version=0.0.4")
        .body(readiness.metrics())
}
