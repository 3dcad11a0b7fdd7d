//! How much a node takes on at a time, and what it gives up first when that is too much.
//!
//! Whoever begins something new is refused first, whoever only looks next, and last of all whoever brings
//! a decision home or comes for its result. Polls that are held wait for nothing here and do not count.

use super::App;
use super::error::OAuthError;
use super::path;
use super::problem::Problem;
use actix_web::ResponseError as _;
use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::web::Data;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Requests in progress on this node, and how many there may be.
#[derive(Debug)]
pub struct Admission {
    limit: usize,
    in_progress: AtomicUsize,
}

/// What a request is worth while the node is busy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    Begins,
    Looks,
    Decides,
}

/// A request in progress; its place is freed when it is dropped, however it ends.
struct Place<'a>(&'a Admission);

impl Admission {
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            in_progress: AtomicUsize::new(0),
        }
    }

    /// A place, unless the node is too busy for a request of this worth. `held` polls do not count.
    fn admit(&self, worth: Worth, held: usize) -> Option<Place<'_>> {
        let room = match worth {
            Worth::Begins => self.limit / 2,
            Worth::Looks => self.limit * 3 / 4,
            Worth::Decides => self.limit,
        };
        let before = self.in_progress.fetch_add(1, Ordering::Relaxed);
        let place = Place(self);
        (before.saturating_sub(held) < room).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Refuses what the node is too busy for: 503 with `Retry-After`, before anything is read or changed.
pub async fn admit<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    let known = (
        request.app_data::<App>().cloned(),
        request.app_data::<Data<Admission>>().cloned(),
    );
    let (Some(app), Some(admission)) = known else {
        return Ok(next.call(request).await?.map_into_left_body());
    };
    let worth = worth(request.method(), request.path());
    let Some(_place) = admission.admit(worth, app.held_polls()) else {
        let worth = match worth {
            Worth::Begins => "begins",
            Worth::Looks => "looks",
            Worth::Decides => "decides",
        };
        metrics::counter!("assent_shed_total", "worth" => worth).increment(1);
        let response = if request.path().starts_with(path::DEVICE_API) {
            Problem::unavailable().error_response()
        } else {
            OAuthError::unavailable().error_response()
        };
        return Ok(request.into_response(response).map_into_right_body());
    };
    Ok(next.call(request).await?.map_into_left_body())
}

fn worth(method: &Method, path: &str) -> Worth {
    let decides = [path::TOKEN, path::REVOKE, path::CANCEL].contains(&path)
        || (path.starts_with(path::DEVICE_API) && path.ends_with("/decision"));
    if *method != Method::POST {
        Worth::Looks
    } else if decides {
        Worth::Decides
    } else if path == path::INTROSPECT || path == path::USERINFO {
        Worth::Looks
    } else {
        Worth::Begins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_node_gives_up_what_begins_first_and_what_decides_last() {
        let admission = Admission::new(8);
        let mut places = Vec::new();
        let mut fill = |to: usize| {
            while places.len() < to {
                places.push(admission.admit(Worth::Decides, 0).unwrap());
            }
        };
        let admits = || {
            [Worth::Begins, Worth::Looks, Worth::Decides]
                .map(|worth| admission.admit(worth, 0).is_some())
        };
        assert_eq!(admits(), [true, true, true]);
        fill(4);
        assert_eq!(admits(), [false, true, true]);
        fill(6);
        assert_eq!(admits(), [false, false, true]);
        fill(8);
        assert_eq!(admits(), [false, false, false]);
        assert!(
            admission.admit(Worth::Begins, 5).is_some(),
            "held polls do not count"
        );
        places.clear();
        assert_eq!(admission.in_progress.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn every_request_has_its_worth() {
        for (method, path, expected) in [
            (Method::POST, "/bc-authorize", Worth::Begins),
            (Method::POST, "/device/v1/enrolments", Worth::Begins),
            (Method::POST, "/token", Worth::Decides),
            (Method::POST, "/revoke", Worth::Decides),
            (
                Method::POST,
                "/device/v1/requests/x/decision",
                Worth::Decides,
            ),
            (Method::GET, "/device/v1/requests/x/decision", Worth::Looks),
            (Method::GET, "/device/v1/requests", Worth::Looks),
            (Method::POST, "/introspect", Worth::Looks),
            (Method::GET, "/jwks", Worth::Looks),
        ] {
            assert_eq!(worth(&method, path), expected, "{method} {path}");
        }
    }
}
