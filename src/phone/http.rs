//! An HTTP client for what runs on somebody else's machine: a phone, a relying party in a demo.

use serde_json::Value;
use std::sync::Once;
use std::time::Duration;

static PROVIDER: Once = Once::new();

/// Plain requests: no redirects, no proxy, no cookies, a time-out.
#[derive(Clone, Debug)]
pub struct HttpClient(reqwest::Client);

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TransportError(pub(super) String);

/// What came back.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// The first header of this name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON; `null` when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

impl Default for HttpClient {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpClient {
    pub fn new() -> Self {
        PROVIDER.call_once(|| {
            // Fails when the process has a provider: then that one is used.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        });
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(60))
            .build()
            .expect("a client without options that can fail");
        Self(client)
    }

    /// Sends any request.
    pub async fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Result<Answer, TransportError> {
        let failed = |error: reqwest::Error| {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(inner) = cause {
                text = format!("{text}: {inner}");
                cause = inner.source();
            }
            TransportError(text)
        };
        let method = reqwest::Method::from_bytes(method.as_bytes())
            .map_err(|error| TransportError(error.to_string()))?;
        let mut request = self.0.request(method, url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !body.is_empty() {
            request = request.body(body);
        }
        let response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        let headers = response
            .headers()
            .iter()
            .map(|(name, value)| {
                (
                    name.as_str().to_owned(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect();
        let body = response.text().await.map_err(failed)?;
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    pub async fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Answer, TransportError> {
        self.send("GET", url, headers, Vec::new()).await
    }

    /// Sends a JSON body.
    pub async fn json(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Result<Answer, TransportError> {
        let headers = [headers, &[("content-type", "application/json")]].concat();
        self.send(method, url, &headers, body.to_string().into_bytes())
            .await
    }

    /// Sends a form.
    pub async fn form(
        &self,
        url: &str,
        headers: &[(&str, &str)],
        parameters: &[(&str, &str)],
    ) -> Result<Answer, TransportError> {
        let body = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(parameters)
            .finish();
        let form = ("content-type", "application/x-www-form-urlencoded");
        self.send("POST", url, &[headers, &[form]].concat(), body.into_bytes())
            .await
    }
}

/// The value of `Authorization` for HTTP Basic, both halves form-encoded (RFC 6749 2.3.1).
pub fn basic(client_id: &str, secret: &str) -> String {
    use base64::Engine as _;
    let encode =
        |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encode(client_id), encode(secret));
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair)
    )
}
