//! The extractor that proves a client: a handler that takes it cannot forget authentication.

use super::App;
use super::error::OAuthError;
use super::form::Form;
use crate::domain::client::SecretTransport;
use crate::domain::{ClientId, Secret};
use crate::service::authenticate_client::{AuthenticatedClient, Credentials, KnownClient};
use actix_web::dev::Payload as DevPayload;
use actix_web::http::header::AUTHORIZATION;
use actix_web::{FromRequest, HttpRequest, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use std::future::Future;
use std::pin::Pin;

/// The one kind of assertion (RFC 7523 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A form, and the client that sent it. The client's own parameters are taken out.
pub struct ClientForm {
    pub client: AuthenticatedClient,
    pub form: Form,
}

/// The same for polls, which go on for a client that is known from before while the database is away.
pub struct KnownClientForm {
    pub client: KnownClient,
    pub form: Form,
}

impl FromRequest for ClientForm {
    type Error = OAuthError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, OAuthError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut DevPayload) -> Self::Future {
        let known = KnownClientForm::from_request(request, payload);
        Box::pin(async move {
            let KnownClientForm { client, form } = known.await?;
            let client = client.confirmed()?.clone();
            Ok(Self { client, form })
        })
    }
}

impl FromRequest for KnownClientForm {
    type Error = OAuthError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, OAuthError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut DevPayload) -> Self::Future {
        let request = request.clone();
        let payload = web::Payload::from_request(&request, payload).into_inner();
        Box::pin(async move {
            let payload =
                payload.map_err(|_| OAuthError::invalid_request("the body could not be read"))?;
            let mut form = Form::read(&request, payload).await?;
            let by_header = request.headers().contains_key(AUTHORIZATION);
            let credentials = credentials(&request, &mut form)?
                .ok_or_else(|| OAuthError::invalid_client(by_header))?;
            let app = request
                .app_data::<App>()
                .ok_or_else(|| OAuthError::invalid_request("no application"))?;
            let client = app
                .authenticate_client(&credentials)
                .await
                .map_err(|error| OAuthError::client_auth(error, by_header))?;
            Ok(Self { client, form })
        })
    }
}

/// The credentials in a request; `None` when there are none, or none that could be anybody's.
fn credentials(request: &HttpRequest, form: &mut Form) -> Result<Option<Credentials>, OAuthError> {
    let form_id = form.take("client_id");
    let form_secret = form.take("client_secret");
    let assertion = form.take("client_assertion");
    let assertion_type = form.take("client_assertion_type");
    let mut headers = request.headers().get_all(AUTHORIZATION);
    let header = headers.next();
    if headers.next().is_some() {
        return Err(OAuthError::invalid_request(
            "there is more than one Authorization header",
        ));
    }
    let methods = [header.is_some(), form_secret.is_some(), assertion.is_some()];
    if methods.iter().filter(|used| **used).count() > 1 {
        return Err(OAuthError::invalid_request(
            "the client must use one method of authentication (RFC 6749 2.3)",
        ));
    }
    if let Some(assertion) = assertion {
        let known = assertion_type.as_deref() == Some(ASSERTION_TYPE);
        let client_id = form_id.as_deref().map(ClientId::parse);
        if !known || client_id == Some(None) {
            return Ok(None);
        }
        let assertion = Secret::new(assertion);
        return Ok(Some(Credentials::Assertion {
            client_id: client_id.flatten(),
            assertion,
        }));
    }
    if assertion_type.is_some() {
        return Ok(None);
    }
    if let Some(header) = header {
        let Some((client_id, secret)) = basic(header.to_str().unwrap_or_default()) else {
            return Ok(None);
        };
        // A client_id beside the header must be the same client's.
        let same = form_id.is_none_or(|id| id == client_id.as_str());
        let transport = SecretTransport::Basic;
        return Ok(same.then_some(Credentials::Secret {
            client_id,
            secret,
            transport,
        }));
    }
    let (Some(id), Some(secret)) = (form_id, form_secret) else {
        return Ok(None);
    };
    Ok(ClientId::parse(&id).map(|client_id| Credentials::Secret {
        client_id,
        secret: Secret::new(secret),
        transport: SecretTransport::Post,
    }))
}

/// HTTP Basic with both halves form-encoded (RFC 6749 2.3.1).
fn basic(header: &str) -> Option<(ClientId, Secret)> {
    let (scheme, encoded) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    let decode = |text: &str| -> Option<String> {
        let spaced = text.replace('+', " ");
        Some(percent_decode_str(&spaced).decode_utf8().ok()?.into_owned())
    };
    Some((ClientId::parse(&decode(id)?)?, Secret::new(decode(secret)?)))
}
