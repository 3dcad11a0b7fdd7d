//! How much a node takes on at a time, and what it gives up first when that is too much.
//!
//! Whoever begins something new is refused first, whoever only looks next, and last of all whoever brings
//! a decision home or comes for its result. A request counts from when its body is there, so that nobody can
//! fill a node with requests that never come; polls that are held wait for nothing here and do not count.

use super::{App, path};
use actix_web::http::Method;
use actix_web::web::Data;
use actix_web::{HttpMessage as _, HttpRequest};
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
struct Place(Data<Admission>);

/// The node is too busy for this request.
#[derive(Clone, Copy, Debug)]
pub struct TooBusy;

impl Admission {
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            in_progress: AtomicUsize::new(0),
        }
    }

    /// How many requests may be in progress for one of this worth to be taken on.
    const fn room(&self, worth: Worth) -> usize {
        match worth {
            Worth::Begins => self.limit / 2,
            Worth::Looks => self.limit * 3 / 4,
            Worth::Decides => self.limit,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_progress.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Takes a place for a request whose body is there, until it is answered.
///
/// # Errors
/// [`TooBusy`]: nothing has been changed, and it is worth coming again.
pub fn admit(request: &HttpRequest) -> Result<(), TooBusy> {
    let known = (
        request.app_data::<App>(),
        request.app_data::<Data<Admission>>(),
    );
    let (Some(app), Some(admission)) = known else {
        return Ok(());
    };
    let worth = worth(request.method(), request.path());
    let Some(place) = admit_to(admission, worth, app.held_polls()) else {
        metrics::counter!("assent_shed_total", "worth" => worth.label()).increment(1);
        return Err(TooBusy);
    };
    request.extensions_mut().insert(place);
    Ok(())
}

impl Worth {
    const fn label(self) -> &'static str {
        match self {
            Self::Begins => "begins",
            Self::Looks => "looks",
            Self::Decides => "decides",
        }
    }
}

/// A place, unless the node is too busy for a request of this worth. `held` polls do not count.
fn admit_to(admission: &Data<Admission>, worth: Worth, held: usize) -> Option<Place> {
    let before = admission.in_progress.fetch_add(1, Ordering::Relaxed);
    let place = Place(admission.clone());
    (before.saturating_sub(held) < admission.room(worth)).then_some(place)
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
        let admission = Data::new(Admission::new(8));
        let mut places = Vec::new();
        let mut fill = |to: usize| {
            while places.len() < to {
                places.push(admit_to(&admission, Worth::Decides, 0).unwrap());
            }
        };
        let admits = || {
            [Worth::Begins, Worth::Looks, Worth::Decides]
                .map(|worth| admit_to(&admission, worth, 0).is_some())
        };
        assert_eq!(admits(), [true, true, true]);
        fill(4);
        assert_eq!(admits(), [false, true, true]);
        fill(6);
        assert_eq!(admits(), [false, false, true]);
        fill(8);
        assert_eq!(admits(), [false, false, false]);
        assert!(
            admit_to(&admission, Worth::Begins, 5).is_some(),
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
