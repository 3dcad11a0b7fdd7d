//! Clients that prove who they are by a signed statement (RFC 7523, OpenID Connect Core 9).

use crate::support::rp_endpoint::RpEndpoint;
use crate::support::signer::Signer;
use crate::support::{
    Backend, CIBA_GRANT, Ground, TestApp, all, approve, assert_oauth_error, everywhere,
    registration,
};
use assent::domain::SignatureAlgorithm;
use assent::domain::client::{ClientAuthentication, KeySource, Registration};
use assent::phone::http::Answer;
use serde_json::{Value, json};

everywhere!(the_whole_flow_with_a_key, an_assertion_is_good_once);

const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A client that signs.
struct Client {
    id: String,
    signer: Signer,
    url: String,
    http: assent::phone::http::HttpClient,
}

async fn client(app: &TestApp, id: &str, algorithm: SignatureAlgorithm) -> Client {
    let signer = Signer::new(algorithm);
    let keys = KeySource::Jwks(signer.jwks());
    register(app, id, algorithm, keys, signer).await
}

async fn register(
    app: &TestApp,
    id: &str,
    algorithm: SignatureAlgorithm,
    keys: KeySource,
    signer: Signer,
) -> Client {
    let authentication = ClientAuthentication::PrivateKeyJwt { algorithm, keys };
    app.client_with(
        id,
        Registration {
            authentication,
            ..registration()
        },
    )
    .await;
    Client {
        id: id.to_owned(),
        signer,
        url: app.url.clone(),
        http: app.http.clone(),
    }
}

impl Client {
    /// Claims as they should be; each call has its own `jti`.
    fn claims(&self, app: &TestApp) -> Value {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let now = app.now().secs();
        let jti = format!("jti-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        json!({ "iss": self.id, "sub": self.id, "aud": app.url, "exp": now + 60, "iat": now, "jti": jti })
    }

    async fn send(&self, path: &str, assertion: &str, parameters: &[(&str, &str)]) -> Answer {
        let auth = [
            ("client_assertion_type", TYPE),
            ("client_assertion", assertion),
        ];
        let parameters = [auth.as_slice(), parameters].concat();
        self.http
            .form(&format!("{}{path}", self.url), &[], &parameters)
            .await
            .unwrap()
    }

    /// A token request with this assertion: `invalid_grant` says that it was accepted.
    async fn try_assertion(&self, assertion: &str) -> Answer {
        self.send(
            "/token",
            assertion,
            &[("grant_type", CIBA_GRANT), ("auth_req_id", "x")],
        )
        .await
    }
}

async fn the_whole_flow_with_a_key(ground: Ground) {
    let app = TestApp::on(ground).await;
    let alice = app.user("alice").await;
    let phone = app.phone(&alice).await;
    for (id, algorithm) in [
        ("es256", SignatureAlgorithm::Es256),
        ("eddsa", SignatureAlgorithm::EdDsa),
        ("ps256", SignatureAlgorithm::Ps256),
    ] {
        let client = client(&app, id, algorithm).await;
        let sign = || client.signer.sign("JWT", &client.claims(&app));
        let asked = [("scope", "openid"), ("login_hint", "alice")];
        let answer = client.send("/bc-authorize", &sign(), &asked).await;
        assert_eq!(answer.status, 200, "{id}: {}", answer.body);
        let auth_req_id = answer.json()["auth_req_id"].as_str().unwrap().to_owned();
        approve(&phone, &auth_req_id).await;
        let poll = [
            ("grant_type", CIBA_GRANT),
            ("auth_req_id", auth_req_id.as_str()),
        ];
        let tokens = client.send("/token", &sign(), &poll).await;
        assert_eq!(tokens.status, 200, "{id}: {}", tokens.body);
        let token = tokens.json()["access_token"].as_str().unwrap().to_owned();
        let about = client
            .send("/introspect", &sign(), &[("token", &token)])
            .await;
        assert_eq!(about.json()["active"], true);
        assert_eq!(
            client
                .send("/revoke", &sign(), &[("token", &token)])
                .await
                .status,
            200
        );
    }
}

async fn an_assertion_is_good_once(ground: Ground) {
    let app = TestApp::on(ground).await;
    let client = client(&app, "bank", SignatureAlgorithm::Es256).await;
    let assertion = client.signer.sign("JWT", &client.claims(&app));
    let tries = (0..100).map(|_| {
        let (http, url) = (client.http.clone(), client.url.clone());
        let assertion = assertion.clone();
        async move {
            let parameters = [
                ("client_assertion_type", TYPE),
                ("client_assertion", assertion.as_str()),
                ("grant_type", CIBA_GRANT),
                ("auth_req_id", "x"),
            ];
            http.form(&format!("{url}/token"), &[], &parameters)
                .await
                .unwrap()
        }
    });
    let answers = tokio::task::JoinSet::from_iter(tries).join_all().await;
    let accepted = answers
        .iter()
        .filter(|answer| answer.json()["error"] == "invalid_grant")
        .count();
    let refused = answers.iter().filter(|answer| answer.status == 401).count();
    assert_eq!((accepted, refused), (1, 99));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_claim_and_header_is_checked() {
    let app = TestApp::new(Backend::sqlite()).await;
    let client = client(&app, "bank", SignatureAlgorithm::Es256).await;
    let other = self::client(&app, "other", SignatureAlgorithm::Es256).await;
    let now = app.now().secs();
    let claims = |change: &dyn Fn(&mut Value)| {
        let mut claims = client.claims(&app);
        change(&mut claims);
        claims
    };
    let set =
        |name: &'static str, value: Value| claims(&move |claims| claims[name] = value.clone());
    let without = |name: &'static str| {
        claims(&move |claims| {
            claims.as_object_mut().unwrap().remove(name);
        })
    };
    let endpoint = |path: &str| json!(format!("{}{path}", app.url));
    for good in [
        set("aud", endpoint("/token")),
        set("aud", endpoint("/bc-authorize")),
        set("aud", json!([app.url, "https://elsewhere.example"])),
        set("iat", json!(now + 60)),
        set("nbf", json!(now + 10)),
        set("exp", json!(now + 300)),
        without("iat"),
    ] {
        let answer = client
            .try_assertion(&client.signer.sign("JWT", &good))
            .await;
        assert_oauth_error(&answer, 400, "invalid_grant");
    }
    for bad in [
        set("aud", endpoint("/")),
        set("aud", endpoint("/userinfo")),
        set("aud", json!("https://elsewhere.example")),
        set("aud", json!([])),
        set("iss", json!("other")),
        set("sub", json!("other")),
        set("exp", json!(now)),
        set("exp", json!(now + 301)),
        set("exp", json!("soon")),
        set("iat", json!(now + 61)),
        set("nbf", json!(now + 61)),
        set("jti", json!("")),
        set("jti", json!("x".repeat(129))),
        set("jti", json!(7)),
        without("aud"),
        without("exp"),
        without("jti"),
        without("sub"),
        without("iss"),
    ] {
        let answer = client.try_assertion(&client.signer.sign("JWT", &bad)).await;
        assert_oauth_error(&answer, 401, "invalid_client");
    }
    for typ in [
        "at+jwt",
        "dpop+jwt",
        "device-proof+jwt",
        "ciba-approval+jwt",
        "logout+jwt",
    ] {
        let answer = client
            .try_assertion(&client.signer.sign(typ, &client.claims(&app)))
            .await;
        assert_oauth_error(&answer, 401, "invalid_client");
    }
    // Another client's key, another algorithm, a name that is not the signer's, the wrong way.
    let foreign = other.signer.sign("JWT", &client.claims(&app));
    assert_oauth_error(&client.try_assertion(&foreign).await, 401, "invalid_client");
    let rsa = Signer::new(SignatureAlgorithm::Ps256).sign("JWT", &client.claims(&app));
    assert_oauth_error(&client.try_assertion(&rsa).await, 401, "invalid_client");
    let named = [
        ("grant_type", CIBA_GRANT),
        ("auth_req_id", "x"),
        ("client_id", "other"),
    ];
    let assertion = client.signer.sign("JWT", &client.claims(&app));
    assert_oauth_error(
        &client.send("/token", &assertion, &named).await,
        401,
        "invalid_client",
    );
    let twice = [named.as_slice(), &[("client_secret", "x")]].concat();
    assert_oauth_error(
        &client.send("/token", &assertion, &twice).await,
        400,
        "invalid_request",
    );
    let secret = app.client("secret").await;
    let of_secret = Client {
        id: secret.client.id.to_string(),
        ..client
    };
    let assertion = of_secret.signer.sign("JWT", &of_secret.claims(&app));
    assert_oauth_error(
        &of_secret.try_assertion(&assertion).await,
        401,
        "invalid_client",
    );
}

/// Keys that are fetched: kept, fetched anew for an unknown `kid`, but not at everybody's whim.
#[tokio::test(flavor = "multi_thread")]
async fn published_keys_are_fetched_and_followed() {
    let app = TestApp::new(Backend::sqlite()).await;
    let first = Signer::new(SignatureAlgorithm::Es256);
    let server = RpEndpoint::serving(&first.jwks().to_string()).await;
    let keys = KeySource::JwksUri(server.url.clone());
    let mut client = register(&app, "bank", SignatureAlgorithm::Es256, keys, first).await;
    for _ in 0..3 {
        let assertion = client.signer.sign("JWT", &client.claims(&app));
        assert_oauth_error(
            &client.try_assertion(&assertion).await,
            400,
            "invalid_grant",
        );
    }
    assert_eq!(server.received().len(), 1, "fetched once");
    // The client rotates: the new key is found at once, but only after the pause a second time.
    client.signer = Signer::new(SignatureAlgorithm::Es256);
    server.serve(&client.signer.jwks().to_string());
    let early = client.signer.sign("JWT", &client.claims(&app));
    assert_oauth_error(&client.try_assertion(&early).await, 401, "invalid_client");
    assert_eq!(server.received().len(), 1);
    app.advance(30);
    let assertion = client.signer.sign("JWT", &client.claims(&app));
    assert_oauth_error(
        &client.try_assertion(&assertion).await,
        400,
        "invalid_grant",
    );
    assert_eq!(server.received().len(), 2);
    // Forged assertions do not make us call.
    let forger = Signer::new(SignatureAlgorithm::Es256);
    for _ in 0..20 {
        let forged = forger.sign("JWT", &client.claims(&app));
        assert_oauth_error(&client.try_assertion(&forged).await, 401, "invalid_client");
    }
    assert_eq!(server.received().len(), 2);
    // The endpoint is down when the keys grow old: those at hand serve for a while, then no more.
    server.serve("gone");
    app.advance(601);
    let assertion = client.signer.sign("JWT", &client.claims(&app));
    assert_oauth_error(
        &client.try_assertion(&assertion).await,
        400,
        "invalid_grant",
    );
    app.advance(3600);
    let assertion = client.signer.sign("JWT", &client.claims(&app));
    assert_oauth_error(
        &client.try_assertion(&assertion).await,
        401,
        "invalid_client",
    );
}

/// Whoever comes in a client's name before its keys are known: its endpoint is called once.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_has_the_keys_fetched_once() {
    let app = TestApp::new(Backend::sqlite()).await;
    let signer = Signer::new(SignatureAlgorithm::Es256);
    let server = RpEndpoint::serving(&signer.jwks().to_string()).await;
    let keys = KeySource::JwksUri(server.url.clone());
    let bank = register(&app, "bank", SignatureAlgorithm::Es256, keys, signer).await;
    let bank = std::sync::Arc::new(bank);
    let assertions: Vec<_> = (0..16)
        .map(|_| bank.signer.sign("JWT", &bank.claims(&app)))
        .collect();
    let answers = all(assertions.into_iter().map(|assertion| {
        let bank = bank.clone();
        async move { bank.try_assertion(&assertion).await }
    }))
    .await;
    for answer in &answers {
        assert_oauth_error(answer, 400, "invalid_grant");
    }
    assert_eq!(server.received().len(), 1);
}
