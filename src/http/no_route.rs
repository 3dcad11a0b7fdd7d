//! What is not there, and methods that are not offered.

use super::error::OAuthError;
use super::problem::Problem;
use actix_web::http::StatusCode;
use actix_web::http::header::ALLOW;
use actix_web::{HttpResponse, ResponseError as _, Route, web};

pub async fn not_found() -> HttpResponse {
    Problem::new(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is nothing at this path",
    )
    .error_response()
}

/// Answers every method but `allowed` at an OAuth endpoint.
pub fn oauth(allowed: &'static str) -> Route {
    web::route().to(move || async move {
        let error = OAuthError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "invalid_request",
            "this endpoint does not offer the method",
        );
        with_allow(error.error_response(), allowed)
    })
}

/// Answers every method but `allowed` in the device API.
pub fn device(allowed: &'static str) -> Route {
    web::route().to(move || async move {
        let problem = Problem::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method_not_allowed",
            "this path does not offer the method",
        );
        with_allow(problem.error_response(), allowed)
    })
}

fn with_allow(mut response: HttpResponse, allowed: &'static str) -> HttpResponse {
    response.headers_mut().insert(
        ALLOW,
        actix_web::http::header::HeaderValue::from_static(allowed),
    );
    response
}
