//! `application/x-www-form-urlencoded`, read strictly.

use super::App;
use super::admission::{TooBusy, admit};
use super::error::OAuthError;
use actix_web::HttpRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web::{Bytes, Payload};
use percent_encoding::percent_decode_str;
use std::collections::BTreeMap;
use std::time::Duration;

/// The largest form that is read, in bytes.
pub const MAX_FORM: usize = 64 * 1024;
/// How long a body may take, from its first byte to its last.
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// The most parameters a form may have.
const MAX_PARAMETERS: usize = 100;

/// Parameters by name, each sent once and with a value.
#[derive(Debug, Default)]
pub struct Form(BTreeMap<String, String>);

impl Form {
    /// Reads a request's body as a form.
    ///
    /// # Errors
    /// `invalid_request` for another content type, a parameter that stands twice (RFC 6749 3.1), a NUL,
    /// bad UTF-8 or a broken escape; 413 for a body that is too large, 408 for one that does not come.
    pub async fn read(request: &HttpRequest, payload: Payload) -> Result<Self, OAuthError> {
        if !has_content_type(request, "application/x-www-form-urlencoded") {
            return Err(OAuthError::invalid_request(
                "the content type must be application/x-www-form-urlencoded",
            ));
        }
        let body = read_body(request, payload, MAX_FORM)
            .await
            .map_err(|error| match error {
                BodyError::TooLarge => OAuthError::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "invalid_request",
                    "the body is larger than 64 KiB",
                ),
                BodyError::TooSlow => OAuthError::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "invalid_request",
                    "the body did not arrive in time",
                ),
                BodyError::Broken => OAuthError::invalid_request("the body could not be read"),
                BodyError::TooBusy => OAuthError::unavailable(),
            })?;
        Self::parse(&body).map_err(OAuthError::invalid_request)
    }

    fn parse(body: &[u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8")?;
        let mut parameters = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            if parameters.insert(name, value).is_some() {
                return Err("a parameter is sent more than once");
            }
            if parameters.len() > MAX_PARAMETERS {
                return Err("there are too many parameters");
            }
        }
        // A parameter without a value is treated as if it had not been sent (RFC 6749 3.1).
        parameters.retain(|_, value| !value.is_empty());
        Ok(Self(parameters))
    }

    /// Takes a parameter's value out of the form.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// All parameters in one text with one possible spelling.
    pub fn canonical(&self) -> String {
        url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.0)
            .finish()
    }
}

/// Decodes one name or value.
fn decode(text: &str) -> Result<String, &'static str> {
    let broken = text.split('%').skip(1).any(|escape| {
        let bytes = escape.as_bytes();
        bytes.len() < 2 || !bytes[..2].iter().all(u8::is_ascii_hexdigit)
    });
    if broken {
        return Err("a parameter holds a broken escape");
    }
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced)
        .decode_utf8()
        .map_err(|_| "a parameter is not UTF-8")?;
    if decoded.contains('\0') {
        return Err("a parameter holds a NUL");
    }
    Ok(decoded.into_owned())
}

/// Whether the request has this content type, with whatever parameters behind it.
pub fn has_content_type(request: &HttpRequest, wanted: &str) -> bool {
    let mut headers = request.headers().get_all(CONTENT_TYPE);
    let (Some(value), None) = (headers.next(), headers.next()) else {
        return false;
    };
    let essence = value
        .to_str()
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default();
    essence.trim().eq_ignore_ascii_case(wanted)
}

/// Why a body cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyError {
    TooLarge,
    TooSlow,
    Broken,
    /// It is there, but the node has too much to do.
    TooBusy,
}

/// Reads a body up to a limit, checked while it comes in; whoever sends it has not for ever. Then the
/// request counts as in progress.
pub async fn read_body(
    request: &HttpRequest,
    payload: Payload,
    limit: usize,
) -> Result<Bytes, BodyError> {
    let app = request.app_data::<App>().ok_or(BodyError::Broken)?;
    let late = app.clock.now().plus(BODY_WITHIN);
    tokio::select! {
        body = payload.to_bytes_limited(limit) => match body {
            Ok(Ok(bytes)) => match admit(request) {
                Ok(()) => Ok(bytes),
                Err(TooBusy) => Err(BodyError::TooBusy),
            },
            Ok(Err(_)) => Err(BodyError::Broken),
            Err(_) => Err(BodyError::TooLarge),
        },
        () = app.clock.sleep_until(late) => Err(BodyError::TooSlow),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get(body: &str, name: &str) -> Option<String> {
        Form::parse(body.as_bytes()).unwrap().take(name)
    }

    #[test]
    fn values_are_decoded_once() {
        assert_eq!(get("a=1+2%2B3&b=%C3%A9", "a"), Some("1 2+3".into()));
        assert_eq!(get("a=1+2%2B3&b=%C3%A9", "b"), Some("é".into()));
        assert_eq!(get("a=%2541", "a"), Some("%41".into()));
        assert_eq!(get("a=", "a"), None);
        assert_eq!(get("a", "a"), None);
        assert_eq!(get("&&a=1&", "a"), Some("1".into()));
        assert_eq!(get("a=b=c", "a"), Some("b=c".into()));
    }

    #[test]
    fn what_is_no_form() {
        let many = (0..101)
            .map(|i| format!("p{i}=1"))
            .collect::<Vec<_>>()
            .join("&");
        for body in [
            "a=1&a=1",
            "a=&a=1",
            "%61=1&a=2",
            "a=%",
            "a=%4",
            "a=%zz",
            "a=%00",
            "a=%ff",
            "%00=1",
            &many,
        ] {
            assert!(Form::parse(body.as_bytes()).is_err(), "{body}");
        }
        assert!(Form::parse(b"a=\xff").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_have_one_canonical_text(body in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(form) = Form::parse(&body) {
                let again = Form::parse(form.canonical().as_bytes()).unwrap();
                prop_assert_eq!(again.0, form.0);
            }
        }
    }
}
